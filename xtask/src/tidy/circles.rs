//! The rule `use-circle`: the top-level modules of a crate use each other without a circle.
//!
//! A module is a file or a folder right under `src`. The crate root only re-exports: what other modules take from it counts
//! as taken from the module that it re-exports. Test code does not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Finding;
use super::files::TreeFile;
use super::functions::{body_end, matching};
use super::source::{SourceText, Token};

/// A place where a module uses another.
#[derive(Debug, Clone)]
struct Place {
    path: String,
    line: usize,
}

/// The modules of a crate, and which uses which: the first place where it does.
#[derive(Debug, Default)]
struct Modules {
    root: String,
    /// What the root re-exports, by name, and from which module.
    exports: BTreeMap<String, String>,
    uses: BTreeMap<String, BTreeMap<String, Place>>,
}

/// One finding for each group of modules that can be reached from each other. Its item is the names of these modules: an
/// exemption that names them holds for no others.
pub(super) fn use_circle(tree: &[TreeFile], findings: &mut Vec<Finding>) {
    for (folder, files) in crates(tree) {
        let modules = modules(&folder, &files);
        for group in modules.groups() {
            let edges = modules.shortest_circle(&group);
            let steps = edges.iter().map(|(from, to)| {
                let Place { path, line } = &modules.uses[from][to];
                format!("\n    {from} uses {to} at {path}:{line}")
            });
            let (item, steps) = (group.join(" "), steps.collect::<String>());
            let message = format!("the modules {item} use each other in a circle, one of which is:{steps}");
            findings.push(Finding { rule: "use-circle", path: modules.root.clone(), line: 1, item, message });
        }
    }
}

/// The files of each crate, by its `src` folder.
fn crates(tree: &[TreeFile]) -> BTreeMap<String, Vec<&TreeFile>> {
    let mut crates = BTreeMap::<_, Vec<_>>::new();
    for file in tree.iter().filter(|file| file.path.ends_with(".rs")) {
        let Some((before, _)) = file.path.split_once("/src/") else { continue };
        crates.entry(format!("{before}/src/")).or_default().push(file);
    }
    crates
}

fn modules(folder: &str, files: &[&TreeFile]) -> Modules {
    let mut modules = Modules { root: format!("{folder}lib.rs"), ..Modules::default() };
    let sources: Vec<_> = files.iter().map(|file| (file, SourceText::parse(&file.text))).collect();
    let mut tests = BTreeSet::new();
    for (file, source) in &sources {
        let module = module_of(folder, &file.path);
        let code = Code::of(&source.tokens());
        tests.extend(code.test_modules.iter().map(|name| [&module[..], std::slice::from_ref(name)].concat()));
        if module.is_empty() {
            modules.root = file.path.clone();
            modules.exports = exports(&code.tokens);
        }
    }
    for (file, source) in &sources {
        let module = module_of(folder, &file.path);
        let is_test = file.path.ends_with("tests.rs")
            || file.path.contains("/tests/")
            || tests.iter().any(|test| module.starts_with(test));
        if is_test || module.first().is_none_or(|module| module == "bin") {
            continue;
        }
        for (target, line) in Code::of(&source.tokens()).used(module.len()) {
            let target = modules.exports.get(&target).cloned().unwrap_or(target);
            let place = Place { path: file.path.clone(), line };
            modules.uses.entry(module[0].clone()).or_default().entry(target).or_insert(place);
        }
    }
    let room_of = |file: &&TreeFile| module_of(folder, &file.path).into_iter().next();
    let known: BTreeSet<String> = files.iter().filter_map(room_of).collect();
    for (module, uses) in &mut modules.uses {
        uses.retain(|target, _| target != module && known.contains(target));
    }
    modules
}

/// The names of the modules down to a file; none for the crate root.
fn module_of(folder: &str, path: &str) -> Vec<String> {
    let inside = path.strip_prefix(folder).and_then(|path| path.strip_suffix(".rs")).unwrap_or_default();
    let mut names: Vec<_> = inside.split('/').map(str::to_string).collect();
    names.pop_if(|last| matches!(last.as_str(), "mod" | "lib" | "main"));
    names
}

/// The tokens of a file that are not for tests.
struct Code<'a> {
    tokens: Vec<Token<'a>>,
    /// The modules in files of their own that are only for tests.
    test_modules: Vec<String>,
}

impl<'a> Code<'a> {
    fn of(all: &[Token<'a>]) -> Self {
        let mut code = Self { tokens: Vec::new(), test_modules: Vec::new() };
        let mut at = 0;
        while at < all.len() {
            let Some(last) = test_item(all, at) else {
                code.tokens.push(all[at]);
                at += 1;
                continue;
            };
            if let [.., keyword, name, end] = &all[at..=last]
                && keyword.text == "mod"
                && end.text == ";"
            {
                code.test_modules.push(name.text.to_string());
            }
            at = last + 1;
        }
        code
    }

    /// The first names of paths from the crate root, in a file that is `depth` modules below it.
    fn used(&self, depth: usize) -> Vec<(String, usize)> {
        let mut used = Vec::new();
        let mut ends_of_modules: Vec<usize> = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            ends_of_modules.retain(|end| *end > at);
            if self.tokens[at].text == "mod" && self.text(at + 2) == "{" {
                ends_of_modules.extend(matching(&self.tokens, at + 2));
            }
            let (mut next, mut levels) = (at, 0);
            while self.text(next) == "super" && self.is_path(next + 1) {
                (next, levels) = (next + 3, levels + 1);
            }
            if self.text(at) == "crate" && self.is_path(at + 1) {
                next = at + 3;
            }
            let from_root = levels == 0 || levels == depth + ends_of_modules.len();
            if next > at && from_root {
                used.extend(self.first_names(next));
            }
            at = next.max(at + 1);
        }
        used
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn is_path(&self, at: usize) -> bool {
        self.text(at) == ":" && self.text(at + 1) == ":"
    }

    /// The name at `at`, or those with which the items of the list there begin.
    fn first_names(&self, at: usize) -> Vec<(String, usize)> {
        let named = |at: usize| (self.text(at).to_string(), self.tokens[at].line);
        match self.text(at) {
            "" => Vec::new(),
            "{" => {
                let end = matching(&self.tokens, at).unwrap_or(at);
                let mut depth = 0;
                let mut names = Vec::new();
                for item in at..end {
                    match self.text(item) {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if depth == 1 && (item == at || self.text(item) == ",") && item + 1 < end {
                        names.push(named(item + 1));
                    }
                }
                names
            }
            _ => vec![named(at)],
        }
    }
}

/// The last token of the item that begins at `at`, if it is only there in tests.
fn test_item(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let texts: Vec<_> = tokens.iter().skip(at).take(4).map(|token| token.text).collect();
    if texts != ["#", "[", "cfg", "("] {
        return None;
    }
    let close = matching(tokens, at + 1)?;
    let words: Vec<_> = tokens[at..close].iter().map(|token| token.text).collect();
    let is_test = words.contains(&"test") && !words.contains(&"not") && !words.contains(&"any");
    is_test.then(|| body_end(tokens, close + 1)).flatten()
}

/// What the crate root re-exports: each name, and the module that it comes from.
fn exports(tokens: &[Token<'_>]) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at].text == "use") {
        let end =
            tokens[at..].iter().position(|token| token.text == ";").map_or(tokens.len(), |end| at + end);
        let Some(module) = tokens.get(at + 1) else { continue };
        for name in (at + 2..end).filter(|name| {
            tokens.get(name + 1).is_some_and(|after| matches!(after.text, "," | "}" | ";"))
                && tokens[*name].text != "}"
        }) {
            exports.insert(tokens[name].text.to_string(), module.text.to_string());
        }
    }
    exports
}

impl Modules {
    /// The sets of at least two modules that can be reached from each other.
    fn groups(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<_, _> =
            self.uses.keys().map(|module| (module, self.reached_from(module))).collect();
        let mut groups = BTreeSet::new();
        for (module, from_here) in &reached {
            let back = |other: &&String| reached.get(other).is_some_and(|theirs| theirs.contains(*module));
            let group: Vec<String> = from_here.iter().filter(back).cloned().collect();
            if group.len() > 1 {
                groups.insert(group);
            }
        }
        groups.into_iter().collect()
    }

    /// All modules that `module` uses, others through which it uses, and itself if it is among these.
    fn reached_from(&self, module: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![module];
        while let Some(next) = open.pop() {
            for target in self.uses.get(next).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(target.clone()) {
                    open.push(target);
                }
            }
        }
        reached
    }

    /// The edges of one of the shortest circles among the modules of `group`.
    fn shortest_circle(&self, group: &[String]) -> Vec<(String, String)> {
        let circles = group.iter().filter_map(|start| self.circle_through(start));
        let shortest = circles.min_by_key(Vec::len).unwrap_or_default();
        let next = shortest.iter().cycle().skip(1);
        shortest.iter().cloned().zip(next.cloned()).collect()
    }

    /// The modules on one of the shortest ways from `start` back to it.
    fn circle_through(&self, start: &str) -> Option<Vec<String>> {
        let mut open = VecDeque::from([vec![start.to_string()]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = open.pop_front() {
            for target in self.uses.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
                if target == start {
                    return Some(way);
                }
                if seen.insert(target) {
                    open.push_back([&way[..], std::slice::from_ref(target)].concat());
                }
            }
        }
        None
    }
}
