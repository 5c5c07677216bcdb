//! The rule `walk`: each step of the walk through the code names a function that exists.

use super::Finding;
use super::documents::prose;
use super::files::TreeFile;
use super::functions;
use super::source::SourceText;

/// The document that follows a fault, a pin, a store and a commit through the code.
pub(super) const WALK: &str = "docs/decisions/walk.md";
/// A walk that is longer does not stay in mind.
const MOST_STEPS: usize = 15;

/// A numbered line of [`WALK`] is a step. It names a place, `path/to/file.rs: function`, as a span of code.
pub(super) fn walk(tree: &[TreeFile], findings: &mut Vec<Finding>) {
    let Some(document) = tree.iter().find(|file| file.path == WALK) else { return };
    let mut steps = 0;
    for (line, text) in prose(&document.text) {
        if text.starts_with('#') {
            steps = 0;
        }
        if !is_step(text) {
            continue;
        }
        steps += 1;
        let problem = match place(text) {
            _ if steps > MOST_STEPS => Some(format!("more than {MOST_STEPS} steps under one heading")),
            None => Some("a step names no place `path/to/file.rs: function`".to_string()),
            Some((path, name)) => problem(tree, path, name),
        };
        findings.extend(problem.map(|message| Finding {
            rule: "walk",
            path: WALK.to_string(),
            line,
            item: String::new(),
            message,
        }));
    }
}

/// Whether a line begins with a number and a dot, as the items of a list do.
fn is_step(line: &str) -> bool {
    line.split_once(". ")
        .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The first span of code that names a place.
fn place(line: &str) -> Option<(&str, &str)> {
    let mut spans = line.split('`').skip(1).step_by(2);
    spans.find_map(|span| span.split_once(": ").filter(|(path, _)| path.ends_with(".rs")))
}

/// What is wrong with a step that names the function `name` in the file `path`.
fn problem(tree: &[TreeFile], path: &str, name: &str) -> Option<String> {
    let Some(file) = tree.iter().find(|file| file.path == path) else {
        return Some(format!("there is no {path}"));
    };
    let source = SourceText::parse(&file.text);
    let is_there = functions::find(&source.tokens()).iter().any(|function| function.name == name);
    (!is_there).then(|| format!("{path} has no function {name}"))
}
