//! Rules for documents: `link`, that links inside the tree lead somewhere; `decision-index`, that each decision is listed;
//! `document-length`, that documents stay short.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::files::TreeFile;

/// ARCHITECTURE.md is read in one sitting: bytes.
const LIMIT_ARCHITECTURE_BYTES: usize = 20 << 10;
/// The README of a crate is one screen: lines.
const LIMIT_README_LINES: usize = 60;
/// The index of decisions, in the folder that has a file for each.
const DECISIONS_INDEX: &str = "docs/decisions/README.md";
/// Where crates are, by the first folder of their path.
const CRATE_FOLDERS: [&str; 3] = ["crates/", "bench/", "xtask/"];

/// Every link of a document to a file of the tree, or to a heading of one, has its target there. Links of the web are not
/// followed; code is not looked at.
pub(super) fn link(tree: &[TreeFile], findings: &mut Vec<Finding>) {
    let documents = tree.iter().filter(|file| file.path.ends_with(".md"));
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        documents.clone().map(|file| (file.path.as_str(), anchors(&file.text))).collect();
    let exists = |path: &str| {
        path.is_empty() || tree.iter().any(|file| file.path == path || is_in_folder(&file.path, path))
    };
    for document in documents {
        for (line, target) in targets(&document.text) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { document.path.clone() } else { resolve(&document.path, path) };
            let has_anchor = || anchors.get(path.as_str()).is_none_or(|headings| headings.contains(anchor));
            let problem = match exists(&path) {
                false => format!("{target}: there is no {path}"),
                true if !anchor.is_empty() && !has_anchor() => format!("{path} has no heading #{anchor}"),
                true => continue,
            };
            findings.push(finding("link", document, line, target, problem));
        }
    }
}

/// Each decision has its line in the index.
pub(super) fn decision_index(tree: &[TreeFile], findings: &mut Vec<Finding>) {
    let Some(index) = tree.iter().find(|file| file.path == DECISIONS_INDEX) else { return };
    let listed: BTreeSet<String> =
        targets(&index.text).iter().map(|(_, target)| resolve(&index.path, target)).collect();
    let folder = DECISIONS_INDEX.trim_end_matches("README.md");
    for file in tree.iter().filter(|file| file.path.starts_with(folder) && file.path != DECISIONS_INDEX) {
        if !listed.contains(&file.path) {
            let message = format!("{DECISIONS_INDEX} has no line for it");
            findings.push(finding("decision-index", file, 1, "", message));
        }
    }
}

/// Documents that are to be read at once stay short.
pub(super) fn document_length(file: &TreeFile, findings: &mut Vec<Finding>) {
    let is_crate_readme =
        file.path.ends_with("/README.md") && CRATE_FOLDERS.iter().any(|folder| file.path.starts_with(folder));
    let (bytes, lines) = (file.text.len(), file.text.lines().count());
    if file.path == "ARCHITECTURE.md" && bytes > LIMIT_ARCHITECTURE_BYTES {
        let message = format!(
            "{bytes} bytes; the limit is {LIMIT_ARCHITECTURE_BYTES}: details go to a crate or a guide"
        );
        findings.push(finding("document-length", file, 1, "", message));
    } else if is_crate_readme && lines > LIMIT_README_LINES {
        let message =
            format!("{lines} lines; the limit is {LIMIT_README_LINES}: details go to the crate's docs");
        findings.push(finding("document-length", file, lines, "", message));
    }
}

fn finding(rule: &'static str, file: &TreeFile, line: usize, item: &str, message: String) -> Finding {
    Finding { rule, path: file.path.clone(), line, item: item.to_string(), message }
}

/// The lines of a document that are not in a block of code, numbered from 1.
pub(super) fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((index + 1, line))
    })
}

/// The targets of the links of a document, with their lines; those of the web left out.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut targets = Vec::new();
    for (number, line) in prose(text) {
        for (at, mark) in line.match_indices("](") {
            let rest = &line[at + mark.len()..];
            let in_span = line[..at].matches('`').count() % 2 == 1;
            if let Some((target, _)) = rest.split_once(')')
                && !in_span
                && !target.contains("://")
            {
                targets.push((number, target));
            }
        }
    }
    targets
}

/// The names by which links reach the headings of a document, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let names = std::iter::once(name.clone()).chain((1..).map(|count| format!("{name}-{count}")));
        let free = names.into_iter().find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// The path of `target`, a link in the document at `from`, from the workspace's root.
fn resolve(from: &str, target: &str) -> String {
    let mut steps: Vec<&str> = from.split('/').collect();
    steps.pop();
    for step in target.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            name => steps.push(name),
        }
    }
    steps.join("/")
}

fn is_in_folder(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}
