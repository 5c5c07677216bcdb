//! The rules, one function each, named as findings print them.

use super::Finding;
use super::files::TreeFile;
use super::functions::{Function, matching};
use super::public_types::public_types;
use super::source::{SourceText, Token};

/// Files aim under this many lines; more is counted, not refused.
pub(super) const AIM_FILE_LINES: usize = 400;
/// Functions aim under this many lines; more is counted, not refused.
pub(super) const AIM_FUNCTION_LINES: usize = 30;
const LIMIT_FILE_LINES: usize = 800;
const LIMIT_FUNCTION_LINES: usize = 70;

/// The crates that may use unsafe code,
const EDGE_CRATES: [&str; 2] = ["crates/linux/", "crates/tracer/"];
/// and those that take pointers from other languages, for that only.
const FOREIGN_CRATES: [&str; 1] = ["crates/capi/"];
/// How far above an unsafe block its argument may end.
const SAFETY_DISTANCE_LINES: usize = 3;
/// Where the tree of one machine shows. Written in two parts, or this file would break its own rule.
pub(super) const MACHINE_PATHS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
/// Words in a comment that mark unfinished work, written in two parts as above.
const UNFINISHED_WORDS: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

/// The states of a page.
const PAGE_STATES: [&str; 8] =
    ["Absent", "Filling", "Clean", "Failed", "Evicting", "Dirty", "WritingBack", "Changing"];

/// Where the parts of a cache and of an object have their methods: a file, or a folder with a file for each verb.
const PARTS: [(&str, &str); 16] = [
    ("Buffers", "crates/memobj/src/buffers.rs"),
    ("CacheShared", "crates/memobj/src/parts/shared.rs"),
    ("Cleaner", "crates/memobj/src/write/cleaner.rs"),
    ("Errors", "crates/memobj/src/pages/errors.rs"),
    ("Fill", "crates/memobj/src/pages/fill.rs"),
    ("ObjectParts", "crates/memobj/src/parts.rs"),
    ("Health", "crates/memobj/src/health.rs"),
    ("Machine", "crates/memobj/src/machine.rs"),
    ("Pattern", "crates/memobj/src/pages/pattern.rs"),
    ("Pins", "crates/memobj/src/pins/reads.rs"),
    ("Requests", "crates/memobj/src/parts/request.rs"),
    ("FrameAllocator", "crates/memobj/src/allocator.rs"),
    ("Reporter", "crates/memobj/src/reporter.rs"),
    ("Unwritten", "crates/memobj/src/allocator/unwritten.rs"),
    ("Waits", "crates/memobj/src/pins/waits.rs"),
    ("Writes", "crates/memobj/src/write/"),
];

/// A Rust file as the rules see it.
pub(super) struct Context<'a> {
    pub(super) path: &'a str,
    pub(super) source: &'a SourceText,
    pub(super) tokens: &'a [Token<'a>],
    pub(super) functions: &'a [Function<'a>],
}

/// A rule looks at one file and adds what it finds.
type Rule = fn(&Context<'_>, &mut Vec<Finding>);

/// Every rule for Rust files. `machine_path` and `merge_mark` are for all files.
pub(super) const RUST_RULES: [Rule; 12] = [
    file_length,
    function_length,
    unsafe_outside_edge,
    forbid_unsafe,
    unfinished,
    safety_comment,
    sleep_in_test,
    bool_parameter,
    crate_doc,
    page_state,
    one_impl,
    public_types,
];

impl Context<'_> {
    pub(super) fn finding(&self, rule: &'static str, line: usize, item: &str, message: String) -> Finding {
        Finding { rule, path: self.path.to_string(), line, item: item.to_string(), message }
    }

    /// The texts of `count` tokens from `at` on, shorter at the end of the file.
    fn texts(&self, at: usize, count: usize) -> Vec<&str> {
        self.tokens.iter().skip(at).take(count).map(|token| token.text).collect()
    }

    fn is_crate_root(&self) -> bool {
        self.path.ends_with("src/lib.rs")
            || self.path.ends_with("src/main.rs")
            || self.path.contains("/src/bin/")
    }

    fn in_edge_crate(&self) -> bool {
        let mut edges = EDGE_CRATES.iter().chain(&FOREIGN_CRATES);
        edges.any(|folder| self.path.starts_with(folder))
    }
}

fn file_length(context: &Context<'_>, findings: &mut Vec<Finding>) {
    let lines = context.source.line_count();
    if lines > LIMIT_FILE_LINES {
        let message = format!("{lines} lines; the limit is {LIMIT_FILE_LINES}");
        findings.push(context.finding("file-length", lines, "", message));
    }
}

fn function_length(context: &Context<'_>, findings: &mut Vec<Finding>) {
    for function in context.functions {
        let lines = function.lines();
        if lines > LIMIT_FUNCTION_LINES {
            let message = format!("{} has {lines} lines; the limit is {LIMIT_FUNCTION_LINES}", function.name);
            findings.push(context.finding("function-length", function.first_line, function.name, message));
        }
    }
}

fn unsafe_outside_edge(context: &Context<'_>, findings: &mut Vec<Finding>) {
    if context.in_edge_crate() {
        return;
    }
    for token in context.tokens.iter().filter(|token| token.text == "unsafe") {
        let message = format!("unsafe code belongs in {}", EDGE_CRATES.join(" and "));
        findings.push(context.finding("unsafe-outside-edge", token.line, "unsafe", message));
    }
}

fn forbid_unsafe(context: &Context<'_>, findings: &mut Vec<Finding>) {
    if context.in_edge_crate() || !context.is_crate_root() {
        return;
    }
    let attribute = ["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
    let forbids = (0..context.tokens.len()).any(|at| context.texts(at, attribute.len()) == attribute);
    if !forbids {
        let message = "the crate root does not say #![forbid(unsafe_code)]".to_string();
        findings.push(context.finding("forbid-unsafe", 1, "", message));
    }
}

fn unfinished(context: &Context<'_>, findings: &mut Vec<Finding>) {
    let mut add = |line, item: &str| {
        findings.push(context.finding("unfinished", line, item, format!("{item} marks unfinished work")));
    };
    for (at, token) in context.tokens.iter().enumerate() {
        match context.texts(at, 3)[..] {
            [name @ ("todo" | "unimplemented"), "!", ..] => add(token.line, name),
            ["#", "[", "ignore"] => add(token.line, "ignore"),
            [_, "(", _] if allows_dead_code(context.tokens, at) => add(token.line, "dead_code"),
            _ => {}
        }
    }
    for (index, comment) in context.source.comment_lines().iter().enumerate() {
        let mut words = comment.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(word) = words.find(|word| UNFINISHED_WORDS.contains(word)) {
            add(index + 1, word);
        }
    }
}

/// Whether the attribute at `at` lets code rot: the list after `allow` or `expect` names it.
fn allows_dead_code(tokens: &[Token<'_>], at: usize) -> bool {
    let list = matching(tokens, at + 1).map(|close| &tokens[at + 1..close]).unwrap_or_default();
    matches!(tokens[at].text, "allow" | "expect") && list.iter().any(|token| token.text == "dead_code")
}

fn safety_comment(context: &Context<'_>, findings: &mut Vec<Finding>) {
    let comments = context.source.comment_lines();
    let code = context.source.code_lines();
    for (at, token) in context.tokens.iter().enumerate() {
        let is_block = matches!(context.texts(at, 2)[..], ["unsafe", "{" | "impl"]);
        if is_block && !has_safety_comment(&comments, &code, token.line) {
            let message = format!("no SAFETY comment within {SAFETY_DISTANCE_LINES} lines above");
            findings.push(context.finding("safety-comment", token.line, "unsafe", message));
        }
    }
}

/// Whether a comment on `line` or ending at most three lines above it argues safety, however long it is.
fn has_safety_comment(comments: &[&str], code: &[&str], line: usize) -> bool {
    let argues = |index: usize| comments.get(index).is_some_and(|comment| comment.contains("SAFETY"));
    let only_comment =
        |index: usize| code[index].trim().is_empty() && !comments.get(index).unwrap_or(&"").trim().is_empty();
    let nearest = (line - 1).saturating_sub(SAFETY_DISTANCE_LINES);
    if (nearest..line).any(argues) {
        return true;
    }
    let in_block = (nearest..line - 1).filter(|&index| only_comment(index));
    in_block.into_iter().any(|end| (0..=end).rev().take_while(|&index| only_comment(index)).any(argues))
}

fn sleep_in_test(context: &Context<'_>, findings: &mut Vec<Finding>) {
    let comments = context.source.comment_lines();
    let explained = |line: usize| {
        let around = &comments[line.saturating_sub(2)..line.min(comments.len())];
        let reason =
            |comment: &&str| comment.split_once("waits:").map(|(_, reason)| reason.trim().to_string());
        around.iter().filter_map(reason).any(|reason| !reason.is_empty())
    };
    let tests = test_lines(context);
    for at in 1..context.tokens.len() {
        let line = context.tokens[at].line;
        let is_call = matches!(context.texts(at, 2)[..], ["sleep", "("]);
        let is_free_function = !matches!(context.tokens[at - 1].text, "fn" | ".");
        let in_test = tests.iter().any(|span| span.contains(&line));
        if is_call && is_free_function && in_test && !explained(line) {
            let message = "a test that sleeps says why in a comment: `// waits: reason`".to_string();
            findings.push(context.finding("sleep-in-test", line, "sleep", message));
        }
    }
}

/// Whether the file at `path` is tests and nothing else.
pub(super) fn is_test_path(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}

/// The lines that are test code: a whole file by its name, or the modules for tests in it.
fn test_lines(context: &Context<'_>) -> Vec<std::ops::RangeInclusive<usize>> {
    if is_test_path(context.path) {
        return vec![1..=usize::MAX];
    }
    let attribute = ["cfg", "(", "test", ")", "]", "mod"];
    let starts = (0..context.tokens.len()).filter(|&at| context.texts(at, attribute.len()) == attribute);
    let modules = starts.filter_map(|at| {
        let open = at + attribute.len() + 1;
        let close = (context.tokens.get(open)?.text == "{").then(|| matching(context.tokens, open))??;
        Some(context.tokens[at].line..=context.tokens[close].line)
    });
    modules.collect()
}

fn bool_parameter(context: &Context<'_>, findings: &mut Vec<Finding>) {
    for function in context.functions.iter().filter(|function| function.public) {
        for parameter in &function.bool_parameters {
            let message =
                format!("{}: parameter {parameter} is a bool; use an enum or options", function.name);
            findings.push(context.finding("bool-parameter", function.first_line, function.name, message));
        }
    }
}

fn crate_doc(context: &Context<'_>, findings: &mut Vec<Finding>) {
    let documented =
        || context.source.comment_lines().iter().any(|line| line.trim_start().starts_with("//!"));
    if context.is_crate_root() && !documented() {
        let message = "the crate root has no //! documentation".to_string();
        findings.push(context.finding("crate-doc", 1, "", message));
    }
}

/// Only core matches on the states of pages; all others ask it what to do (`decide`), or for a property of the word.
fn page_state(context: &Context<'_>, findings: &mut Vec<Finding>) {
    let is_code = context.path.starts_with("crates/") && context.path.contains("/src/");
    let is_test = is_test_path(context.path);
    // The simulator checks what core does.
    let may_match =
        ["crates/core/", "crates/vm/", "crates/sim/"].iter().any(|folder| context.path.starts_with(folder));
    if !is_code || is_test || may_match {
        return;
    }
    for (index, token) in context.tokens.iter().enumerate().filter(|(_, token)| token.text == "State") {
        let is_one = |name: &&str| PAGE_STATES.contains(name);
        if let [_, ":", ":", name] = context.texts(index, 4)[..]
            && is_one(&name)
        {
            let message = format!("State::{name} outside of core; use decide, or a property of the word");
            findings.push(context.finding("page-state", token.line, "", message));
        }
    }
}

/// A part has its methods in one place.
fn one_impl(context: &Context<'_>, findings: &mut Vec<Finding>) {
    let in_engine = context.path.starts_with("crates/memobj/src/");
    for (at, token) in
        context.tokens.iter().enumerate().filter(|(_, token)| in_engine && token.text == "impl")
    {
        let body = context.tokens[at..].iter().take_while(|token| token.text != "{");
        let header: Vec<_> = body.skip(1).map(|token| token.text).collect();
        let part = |(part, _): &&(&str, &str)| header.last() == Some(part) && !header.contains(&"for");
        if let Some((part, place)) = PARTS.iter().find(part)
            && !context.path.starts_with(place)
        {
            let message = format!("{part} has its methods in {place}");
            findings.push(context.finding("one-impl", token.line, part, message));
        }
    }
}

/// No file names a directory of the machine it was written on.
pub(super) fn machine_path(file: &TreeFile, findings: &mut Vec<Finding>) {
    for (index, line) in file.text.lines().enumerate() {
        for path in MACHINE_PATHS.iter().filter(|path| names_absolute(line, path)) {
            findings.push(Finding {
                rule: "machine-path",
                path: file.path.clone(),
                line: index + 1,
                item: path.to_string(),
                message: format!("{path} is a path of one machine"),
            });
        }
    }
}

/// No file has the marks of a merge that was not finished.
pub(super) fn merge_mark(file: &TreeFile, findings: &mut Vec<Finding>) {
    let is_mark =
        |line: &str| ["<", ">"].iter().any(|sign| line.starts_with(&format!("{} ", sign.repeat(7))));
    for (index, _) in file.text.lines().enumerate().filter(|(_, line)| is_mark(line)) {
        findings.push(Finding {
            rule: "merge-mark",
            path: file.path.clone(),
            line: index + 1,
            item: String::new(),
            message: "a merge was not finished here".into(),
        });
    }
}

/// Whether `line` has `path` not as the inner part of a longer path or address.
fn names_absolute(line: &str, path: &str) -> bool {
    let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-./~)}>$".contains(c));
    line.match_indices(path).any(|(at, _)| begins(at))
}
