//! The house rules as a test: reads every file of the working tree that git would track.
//!
//! A rule has a short name that reviews can cite. A file may be exempt from a rule only by an entry in
//! `exemptions.rs` that gives the reason; an entry that is no longer needed fails like a broken rule.

mod circles;
mod documents;
mod exemptions;
mod files;
mod functions;
mod public_types;
mod rules;
mod source;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;

use crate::cargo::root;
use exemptions::{EXEMPTIONS, Exemption};
use files::TreeFile;
use source::SourceText;

/// One broken rule at one place.
#[derive(Debug, PartialEq)]
struct Finding {
    rule: &'static str,
    path: String,
    line: usize,
    /// What the finding is about: a function or an identifier; empty for a whole file.
    item: String,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.path, self.line, self.rule, self.message)
    }
}

/// What the whole tree gave: broken rules, and how many files and functions are over the aims.
#[derive(Debug, Default)]
struct Survey {
    findings: Vec<Finding>,
    files: usize,
    long_files: usize,
    long_functions: usize,
}

/// `cargo xtask tidy`.
pub(crate) fn run() -> ExitCode {
    match check() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: tidy: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Surveys the tree, prints every finding and returns how many there were as an error.
pub(crate) fn check() -> Result<(), String> {
    let tree = files::read(&root())?;
    let mut survey = survey(&tree);
    let findings = apply_exemptions(std::mem::take(&mut survey.findings), EXEMPTIONS);
    for finding in &findings {
        println!("{finding}");
    }
    println!(
        "tidy: {} files; {} over {} lines, {} functions over {} lines (aims, not limits); {} exemptions",
        survey.files,
        survey.long_files,
        rules::AIM_FILE_LINES,
        survey.long_functions,
        rules::AIM_FUNCTION_LINES,
        EXEMPTIONS.len(),
    );
    match findings.len() {
        0 => Ok(()),
        1 => Err("1 finding".to_string()),
        count => Err(format!("{count} findings")),
    }
}

fn survey(tree: &[TreeFile]) -> Survey {
    let mut survey = Survey { files: tree.len(), ..Survey::default() };
    for file in tree {
        rules::machine_path(file, &mut survey.findings);
        rules::merge_mark(file, &mut survey.findings);
        documents::document_length(file, &mut survey.findings);
        if file.path.ends_with(".rs") {
            survey_rust(file, &mut survey);
        }
    }
    circles::use_circle(tree, &mut survey.findings);
    documents::link(tree, &mut survey.findings);
    documents::decision_index(tree, &mut survey.findings);
    walk::walk(tree, &mut survey.findings);
    survey
}

fn survey_rust(file: &TreeFile, survey: &mut Survey) {
    let source = SourceText::parse(&file.text);
    let tokens = source.tokens();
    let functions = functions::find(&tokens);
    let over_aim = |lines: &usize| *lines > rules::AIM_FUNCTION_LINES;
    survey.long_files += usize::from(source.line_count() > rules::AIM_FILE_LINES);
    survey.long_functions += functions.iter().map(functions::Function::lines).filter(over_aim).count();

    let context =
        rules::Context { path: &file.path, source: &source, tokens: &tokens, functions: &functions };
    for rule in rules::RUST_RULES {
        rule(&context, &mut survey.findings);
    }
}

/// Drops the exempt findings and adds one for every exemption that has no reason or no use.
fn apply_exemptions(findings: Vec<Finding>, exemptions: &[Exemption]) -> Vec<Finding> {
    let mut used = BTreeSet::new();
    let mut kept = Vec::new();
    for finding in findings {
        let covers =
            |e: &Exemption| e.rule == finding.rule && e.path == finding.path && e.item == finding.item;
        match exemptions.iter().position(covers) {
            Some(index) => drop(used.insert(index)),
            None => kept.push(finding),
        }
    }
    for (index, exemption) in exemptions.iter().enumerate() {
        let problem = match (used.contains(&index), exemption.reason.trim().is_empty()) {
            (false, _) => "is not needed any more; remove it",
            (true, true) => "gives no reason",
            (true, false) => continue,
        };
        kept.push(Finding {
            rule: "exemption",
            path: exemption.path.to_string(),
            line: 1,
            item: exemption.item.to_string(),
            message: format!("the exemption from {} for {:?} {problem}", exemption.rule, exemption.item),
        });
    }
    kept
}
