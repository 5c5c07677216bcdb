//! Each rule on a small fixture that breaks it and one that does not.

use super::circles;
use super::exemptions::Exemption;
use super::files::TreeFile;
use super::functions;
use super::source::SourceText;
use super::walk::WALK;
use super::{Finding, apply_exemptions, survey};

const LIBRARY: &str = "crates/core/src/lib.rs";
const MODULE: &str = "crates/core/src/module.rs";
const EDGE: &str = "crates/linux/src/module.rs";
const TEST: &str = "crates/core/tests/it.rs";

fn findings(path: &str, text: &str) -> Vec<Finding> {
    survey(&[TreeFile { path: path.to_string(), text: text.to_string() }]).findings
}

/// The broken rules with their lines.
fn broken(path: &str, text: &str) -> Vec<(&'static str, usize)> {
    findings(path, text).iter().map(|finding| (finding.rule, finding.line)).collect()
}

fn words(text: &str) -> Vec<String> {
    SourceText::parse(text).tokens().iter().map(|token| token.text.to_string()).collect()
}

#[test]
fn literals_and_comments_are_not_code() {
    assert_eq!(words(r#"a "unsafe \" {" b"#), ["a", "b"]);
    assert_eq!(words("a r#\"unsafe \" {\"# b br\"x\" c"), ["a", "b", "c"]);
    assert_eq!(words("a // unsafe\nb /* unsafe /* { */ */ c"), ["a", "b", "c"]);
    assert_eq!(words(r"'{' b'\'' '\n' x"), ["x"]);
    assert_eq!(
        words("fn f<'a>(x: &'a u8)"),
        ["fn", "f", "<", "'", "a", ">", "(", "x", ":", "&", "'", "a", "u8", ")"]
    );
    assert_eq!(words("\"ünfinished"), Vec::<String>::new());
    assert_eq!(words("r#match bar\"x\""), ["r", "#", "match", "bar"]);
}

#[test]
fn lines_survive_literals() {
    let source = SourceText::parse("a\n\"x\ny\"\nb // c\n");
    assert_eq!(source.tokens().last().map(|token| (token.text, token.line)), Some(("b", 4)));
    assert_eq!(source.comment_lines()[3].trim(), "// c");
    assert_eq!(source.line_count(), 4);
}

#[test]
fn functions_end_at_their_brace() {
    let text = "pub const fn a<F: Fn(u8) -> u8>(f: F, on: bool) -> [u8; 4]\nwhere F: Copy,\n{\n  fn b() {}\n}\n\
                trait T { fn c(&self, x: Option<bool>); }\ntype P = fn(bool);\npub(crate) fn d(x: bool) {}\n";
    let source = SourceText::parse(text);
    let tokens = source.tokens();
    let found = functions::find(&tokens);
    let spans: Vec<_> = found.iter().map(|f| (f.name, f.public, f.first_line, f.last_line)).collect();
    assert_eq!(spans, [("a", true, 1, 5), ("b", false, 4, 4), ("c", false, 6, 6), ("d", false, 8, 8)]);
    assert_eq!(found[0].bool_parameters, ["on"]);
    assert_eq!(found[2].bool_parameters, Vec::<&str>::new());
    assert_eq!(found[3].bool_parameters, ["x"]);
}

#[test]
fn lengths_stop_at_the_limit() {
    assert_eq!(broken(MODULE, &"\n".repeat(800)), []);
    assert_eq!(broken(MODULE, &"\n".repeat(801)), [("file-length", 801)]);
    let function = |lines: usize| format!("\nfn long() {{\n{}}}\n", "x;\n".repeat(lines - 2));
    assert_eq!(broken(MODULE, &function(70)), []);
    assert_eq!(broken(MODULE, &function(71)), [("function-length", 2)]);
    assert_eq!(findings(MODULE, &function(71))[0].item, "long");
}

#[test]
fn aims_are_counted() {
    let text = format!("fn f() {{\n{}}}\n", "x;\n".repeat(400));
    let survey = survey(&[TreeFile { path: MODULE.to_string(), text }]);
    assert_eq!((survey.long_files, survey.long_functions), (1, 1));
}

#[test]
fn unsafe_belongs_at_the_edge() {
    let block = "// SAFETY: fine.\nunsafe { f() }";
    assert_eq!(broken(MODULE, block), [("unsafe-outside-edge", 2)]);
    assert_eq!(broken(EDGE, block), []);
    assert_eq!(broken("crates/capi/src/module.rs", block), []);
    assert_eq!(broken("crates/capi/src/module.rs", "unsafe { f() }"), [("safety-comment", 1)]);
    assert_eq!(broken(MODULE, "// unsafe\nlet x = \"unsafe\";"), []);
    assert_eq!(broken(MODULE, "#[unsafe(no_mangle)]\nfn f() {}"), [("unsafe-outside-edge", 1)]);
}

#[test]
fn crate_roots_forbid_unsafe_and_have_a_doc() {
    assert_eq!(broken(LIBRARY, "//! Doc.\n#![forbid(unsafe_code)]\n"), []);
    assert_eq!(broken(LIBRARY, "//! Doc.\n"), [("forbid-unsafe", 1)]);
    assert_eq!(broken(LIBRARY, "// #![forbid(unsafe_code)]\n//! Doc."), [("forbid-unsafe", 1)]);
    assert_eq!(broken("xtask/src/main.rs", "#![forbid(unsafe_code)]\n"), [("crate-doc", 1)]);
    assert_eq!(broken("crates/linux/src/lib.rs", "//! Doc.\n"), []);
}

#[test]
fn unfinished_work_is_refused() {
    assert_eq!(broken(MODULE, "fn f() { todo!() }"), [("unfinished", 1)]);
    assert_eq!(broken(MODULE, "fn f() {\nunimplemented!(\"x\") }"), [("unfinished", 2)]);
    assert_eq!(broken(MODULE, concat!("// FIX", "ME later")), [("unfinished", 1)]);
    assert_eq!(broken(MODULE, concat!("// mktemp.", "XX", "XXXX")), []);
    assert_eq!(broken(MODULE, "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), [("unfinished", 2)]);
    assert_eq!(broken(MODULE, "#[allow(unused, dead_code)]\nfn f() {}"), [("unfinished", 1)]);
    assert_eq!(broken(MODULE, "#![allow(dead_code)]"), [("unfinished", 1)]);
    assert_eq!(broken(MODULE, "#[allow(missing_docs)]\nlet s = \"todo!()\"; x.ignore(); f(a, b);"), []);
}

#[test]
fn unsafe_blocks_argue() {
    let far = "// SAFETY: one.\nlet a = 1;\nlet b = 2;\n";
    assert_eq!(broken(EDGE, &format!("{far}unsafe {{ f() }}")), []);
    assert_eq!(broken(EDGE, &format!("{far}let c = 3;\nunsafe {{ f() }}")), [("safety-comment", 5)]);
    assert_eq!(broken(EDGE, "// SAFETY: one,\n// two,\n// three,\n// four,\n// five.\nunsafe { f() }"), []);
    assert_eq!(broken(EDGE, "unsafe impl Send for X {}"), [("safety-comment", 1)]);
    assert_eq!(broken(EDGE, "let s = \"SAFETY\";\nunsafe { f() }"), [("safety-comment", 2)]);
    assert_eq!(broken(EDGE, "unsafe fn f() {}"), []);
}

#[test]
fn a_sleeping_test_says_why() {
    let sleep = "fn t() {\n    thread::sleep(a);\n}\n";
    assert_eq!(broken(TEST, sleep), [("sleep-in-test", 2)]);
    assert_eq!(broken("crates/vm/src/space/tests.rs", sleep), [("sleep-in-test", 2)]);
    assert_eq!(broken(MODULE, sleep), []);
    assert_eq!(
        broken(MODULE, &format!("{sleep}#[cfg(test)]\nmod tests {{\n{sleep}}}")),
        [("sleep-in-test", 7)]
    );
    assert_eq!(broken(TEST, "fn t() {\n    // waits: the clock has no event.\n    thread::sleep(a);\n}"), []);
    assert_eq!(broken(TEST, "fn t() {\n    sleep(a); // waits: a slow pager.\n}"), []);
    assert_eq!(broken(TEST, "fn t() {\n    sleep(a); // waits:\n}"), [("sleep-in-test", 2)]);
    assert_eq!(broken(TEST, "fn sleep() { clock.sleep(a) }"), []);
}

#[test]
fn public_functions_take_no_bool() {
    assert_eq!(broken(MODULE, "pub fn f(a: u8, on: bool) {}"), [("bool-parameter", 1)]);
    assert_eq!(broken("crates/memobj/src/a.rs", "fn f() {\n g(State::Dirty) }"), [("page-state", 2)]);
    assert_eq!(broken("crates/memobj/src/a/tests.rs", "fn f() { g(State::Dirty) }"), []);
    assert_eq!(broken(MODULE, "fn f() { g(State::Dirty) }"), []);
    assert_eq!(broken("crates/run/src/a.rs", "fn f() { g(State::Stopped) }"), []);
    assert_eq!(broken(MODULE, "fn f(on: bool) {}\npub fn g(f: impl Fn(bool) -> bool) -> bool { true }"), []);
}

#[test]
fn parts_have_their_methods_in_one_place() {
    let elsewhere = "crates/memobj/src/mapping/pin.rs";
    for text in ["impl ObjectParts {}", "impl super::ObjectParts {}", "impl Writes { fn f() {} }"] {
        assert_eq!(broken(elsewhere, text), [("one-impl", 1)], "{text}");
    }
    assert_eq!(broken("crates/memobj/src/parts.rs", "impl ObjectParts {}"), []);
    assert_eq!(broken("crates/memobj/src/write/sync.rs", "impl Writes {}"), []);
    let others =
        ["impl Drop for ObjectParts {}", "impl<'a> Door<'a> {}", "fn f(g: impl Fn(&ObjectParts)) {}"];
    others.iter().for_each(|text| assert_eq!(broken(elsewhere, text), [], "{text}"));
}

#[test]
fn machine_paths_are_refused_everywhere() {
    for path in super::rules::MACHINE_PATHS {
        assert_eq!(broken("README.md", &format!("\nsee {path}x")), [("machine-path", 2)]);
        assert_eq!(broken("README.md", &format!("src{path}x, https://example.org{path}x")), []);
    }
}

#[test]
fn unfinished_merges_are_refused_everywhere() {
    let mark = |sign: &str| format!("text\n{} side\n", sign.repeat(7));
    assert_eq!(broken("README.md", &mark("<")), [("merge-mark", 2)]);
    assert_eq!(broken("docs/a.md", &mark(">")), [("merge-mark", 2)]);
    assert_eq!(broken("README.md", &mark("=")), []);
}

#[test]
fn exemptions_are_used_and_argued() {
    let exemption = |reason| Exemption { rule: "crate-doc", path: LIBRARY, item: "", reason };
    let found = || findings(LIBRARY, "#![forbid(unsafe_code)]");
    let rules = |findings: Vec<Finding>| findings.iter().map(|f| f.message.clone()).collect::<Vec<_>>();
    assert_eq!(rules(apply_exemptions(found(), &[exemption("generated")])), Vec::<String>::new());
    assert!(rules(apply_exemptions(found(), &[exemption(" ")]))[0].contains("gives no reason"));
    assert!(rules(apply_exemptions(vec![], &[exemption("generated")]))[0].contains("not needed any more"));
    assert_eq!(apply_exemptions(found(), &[]).len(), 1);
}

fn tree(files: &[(&str, &str)]) -> Vec<TreeFile> {
    let file = |(path, text): &(&str, &str)| TreeFile { path: path.to_string(), text: text.to_string() };
    files.iter().map(file).collect()
}

/// The circles of a crate with a root and `files`: their modules, and what is told.
fn circles(root: &str, files: &[(&str, &str)]) -> Vec<(String, String)> {
    let root = ("crates/core/src/lib.rs", root);
    let files: Vec<_> = files.iter().chain([&root]).copied().collect();
    let mut findings = Vec::new();
    circles::use_circle(&tree(&files), &mut findings);
    findings.into_iter().map(|finding| (finding.item, finding.message)).collect()
}

#[test]
fn a_circle_of_modules_is_found_with_its_places() {
    let files = [
        ("crates/core/src/a.rs", "\nuse crate::{b::B, std};"),
        ("crates/core/src/b/mod.rs", "mod deep;"),
        ("crates/core/src/b/deep.rs", "fn f() {\n mod inner { use super::super::super::c::C; } }"),
        ("crates/core/src/c.rs", "fn f() -> crate::Exported {}"),
        ("crates/core/src/d.rs", "use crate::a; use crate::c;"),
    ];
    let found = circles("mod a; pub use a::{Exported, Other as Another};", &files);
    assert_eq!(found.len(), 1);
    let (item, message) = &found[0];
    assert_eq!(item, "a b c");
    for step in
        ["a uses b at crates/core/src/a.rs:2", "b uses c at crates/core/src/b/deep.rs:2", "c uses a at "]
    {
        assert!(message.contains(step), "{message}");
    }
}

#[test]
fn modules_in_order_are_no_circle() {
    let files = [
        ("crates/core/src/a.rs", "use crate::b; // crate::c"),
        ("crates/core/src/b.rs", "use super::c; use crate::b::x;"),
        ("crates/core/src/c.rs", "pub(in super::super) fn f() { \"crate::a\" }"),
        ("crates/linux/src/c.rs", "use crate::a; use memobj_core::a;"),
    ];
    assert_eq!(circles("", &files), []);
}

#[test]
fn tests_are_in_no_circle() {
    let files = [
        ("crates/core/src/a.rs", "use crate::b;\n#[cfg(test)]\nmod helpers;"),
        ("crates/core/src/a/helpers.rs", "use crate::c;"),
        ("crates/core/src/b.rs", "#[cfg(test)]\nmod tests { use crate::a; }\n#[cfg(test)]\nuse crate::a;"),
        ("crates/core/src/b/tests.rs", "use crate::a;"),
        ("crates/core/src/c.rs", "use crate::a;"),
        ("crates/core/tests/a.rs", "use crate::b;"),
    ];
    assert_eq!(circles("", &files), []);
    let not_only_tests = ("crates/core/src/b.rs", "#[cfg(not(test))]\nuse crate::a;");
    assert_eq!(circles("", &[files[0], not_only_tests]).len(), 1);
}

#[test]
fn types_of_inner_crates_stay_out_of_the_interface() {
    let face = "crates/memobj/src/face.rs";
    let uses = "use memobj_linux::area::{self, Area, GlanceWords as Words};\nuse memobj_core::address::{PageIndex, VirtAddr};\n";
    let rule = |text: &str| {
        let found = findings(face, &format!("{uses}{text}"));
        found.iter().map(|finding| (finding.rule, finding.item.clone())).collect::<Vec<_>>()
    };
    let one = |name: &str| vec![("public-types", name.to_string())];
    assert_eq!(rule("pub use memobj_linux::volatile::VolatileWords;"), one("VolatileWords"));
    assert_eq!(rule("pub use memobj_core::{prot::Prot, page_word::PageWord};"), one("PageWord"));
    assert_eq!(rule("pub fn f(&self, look: impl Fn(&Words<'_>) -> u64) -> u64 {}"), one("Words"));
    assert_eq!(rule("pub fn f() -> Option<area::Home> {}"), one("area"));
    assert_eq!(rule("pub fn f(word: memobj_core::page_word::PageWord) {}"), one("memobj_core"));
    assert_eq!(
        rule("pub struct S {\n    area: Area,\n    pub page: PageIndex,\n    pub at: VirtAddr,\n}"),
        one("PageIndex")
    );
    assert_eq!(rule("pub struct S(pub Area, u8);"), one("Area"));
    assert_eq!(rule("pub enum E {\n    A { page: PageIndex },\n    B,\n}"), one("PageIndex"));
    for fine in [
        "pub(crate) fn f(area: &Area) -> PageIndex {}",
        "pub struct S {\n    area: Area,\n}",
        "pub struct S(Area);",
        "pub fn f(area: u64) -> VirtAddr { let area: Area = g(); }",
        "pub use memobj_core::address::VirtAddr;",
        "pub use memobj_vm::space::Segment;",
        "pub trait T {\n    fn f(&self) -> u64;\n}",
    ] {
        assert_eq!(rule(fine), [], "{fine}");
    }
    assert!(
        findings("crates/sim/src/lib.rs", "//! x\n#![forbid(unsafe_code)]\npub use memobj_linux::area;")
            .is_empty()
    );
}

/// The broken rules of a tree, with their paths, lines and messages.
fn broken_tree(files: &[(&str, &str)]) -> Vec<(&'static str, String, usize, String)> {
    let file = |&(path, text): &(&str, &str)| TreeFile { path: path.to_string(), text: text.to_string() };
    let tree: Vec<_> = files.iter().map(file).collect();
    let told = |finding: Finding| (finding.rule, finding.path, finding.line, finding.message);
    survey(&tree).findings.into_iter().map(told).collect()
}

#[test]
fn links_lead_somewhere() {
    let guide =
        "# A `guide`, twice\n\n## Part\n## Part\n[here](#a-guide-twice) [up](../README.md) [root](..)\n";
    let readme = "[x](docs/guide.md#part-1) [folder](docs/) [web](https://x.y/z#w)\n`[code](gone.md)`\n\
                  ```\n[code](gone.md)\n# Part\n```\n";
    assert_eq!(broken_tree(&[("README.md", readme), ("docs/guide.md", guide)]), []);

    let broken = "# X\n[a](gone.md) [b](#y)\n[c](guide.md#part-2) `x` [d](../../README.md)\n";
    let found = broken_tree(&[("README.md", readme), ("docs/guide.md", guide), ("docs/new/x.md", broken)]);
    let found: Vec<_> =
        found.iter().map(|(rule, _, line, message)| (*rule, *line, message.as_str())).collect();
    let expected = [
        ("link", 2, "gone.md: there is no docs/new/gone.md"),
        ("link", 2, "docs/new/x.md has no heading #y"),
        ("link", 3, "guide.md#part-2: there is no docs/new/guide.md"),
    ];
    assert_eq!(found, expected);
    let missed = broken_tree(&[("docs/guide.md", guide), ("README.md", "[c](docs/guide.md#part-2)")]);
    assert_eq!(missed[0].3, "docs/guide.md has no heading #part-2");
}

#[test]
fn each_decision_is_listed() {
    let index = ("docs/decisions/README.md", "# Decisions\n\n* [One](one.md)\n");
    let (one, two) = (("docs/decisions/one.md", "# One\n"), ("docs/decisions/two.md", "# Two\n"));
    assert_eq!(broken_tree(&[index, one]), []);
    let found = broken_tree(&[index, one, two]);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0, found[0].1.as_str()), ("decision-index", "docs/decisions/two.md"));
}

#[test]
fn documents_to_read_at_once_are_short() {
    let long = "x\n".repeat(61);
    let rules = |path: &str, text: &str| broken(path, text);
    assert_eq!(rules("crates/core/README.md", &long), [("document-length", 61)]);
    assert_eq!(rules("crates/core/README.md", &long[2..]), []);
    assert_eq!(rules("README.md", &long), []);
    assert_eq!(rules("ARCHITECTURE.md", &"x".repeat(20_481)), [("document-length", 1)]);
    assert_eq!(rules("ARCHITECTURE.md", &"x".repeat(20_480)), []);
}

#[test]
fn a_walk_names_functions_that_exist() {
    let code = (
        "crates/core/src/lib.rs",
        "//! x\n#![forbid(unsafe_code)]\n/// `fn gone`\nfn there() { \"fn gone()\" }\n",
    );
    let step = |place: &str| format!("# Fault\n\n1. `{place}` says what.\n\nNo step: `crates/x.rs: f`.\n");
    let walk = |text: &str| -> Vec<_> {
        broken_tree(&[code, (WALK, text)])
            .into_iter()
            .map(|(rule, _, line, message)| (rule, line, message))
            .collect()
    };
    assert_eq!(walk(&step("crates/core/src/lib.rs: there")), []);
    let gone = "crates/core/src/lib.rs has no function gone".to_string();
    assert_eq!(walk(&step("crates/core/src/lib.rs: gone")), [("walk", 3, gone)]);
    let no_file = "there is no crates/core/src/x.rs".to_string();
    assert_eq!(walk(&step("crates/core/src/x.rs: there")), [("walk", 3, no_file)]);
    assert_eq!(walk(&step("there")).len(), 1);
    let long =
        step("crates/core/src/lib.rs: there").repeat(2) + &"15. `crates/core/src/lib.rs: there`\n".repeat(15);
    assert_eq!(walk(&long).len(), 1);
}
