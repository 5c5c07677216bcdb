//! What became of all tests.

use std::collections::BTreeMap;
use std::fmt;

use super::one::Outcome;

/// Tests that are named for their seconds.
const SLOWEST: usize = 10;
/// Tests that are named for one reason to skip.
const NAMED: usize = 3;

/// Counts, reasons and seconds. Its text is the end of `cargo xtask check`.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    passed: usize,
    failed: Vec<String>,
    /// Reasons to skip something, and the tests that gave them.
    skipped: BTreeMap<String, Vec<String>>,
    skipping: usize,
    seconds: Vec<(f64, String)>,
}

impl Summary {
    /// Nothing could be run.
    pub(super) fn of_problem(problem: String) -> Self {
        Self { failed: vec![problem], ..Self::default() }
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        match outcome.problem {
            Some(problem) => self.failed.push(format!("{}: {problem}", outcome.name)),
            None => self.passed += 1,
        }
        let reasons = reasons(&outcome.output);
        self.skipping += usize::from(!reasons.is_empty());
        for reason in reasons {
            self.skipped.entry(reason).or_default().push(outcome.name.clone());
        }
        self.seconds.push((outcome.seconds, outcome.name));
    }

    pub(super) fn add_all(&mut self, outcomes: Vec<Outcome>) {
        outcomes.into_iter().for_each(|outcome| self.add(outcome));
    }

    /// Tests that have ended.
    pub(super) fn count(&self) -> usize {
        self.passed + self.failed.len()
    }

    /// Why the tests as a whole failed.
    pub(crate) fn result(&self) -> Result<(), String> {
        match self.failed.len() {
            0 => Ok(()),
            failed => Err(format!("{failed} of {} tests", self.count())),
        }
    }
}

/// The reasons to skip in what a test printed, each once.
fn reasons(output: &str) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    for line in output.lines() {
        // The harness can have begun the line with the test's name.
        let line = line.split_once(" ... ").map_or(line, |(_, rest)| rest);
        if let Some(reason) = line.trim().strip_prefix("skipped: ")
            && !reasons.iter().any(|known| known == reason)
        {
            reasons.push(reason.to_owned());
        }
    }
    reasons
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipping) = (self.failed.len(), self.skipping);
        writeln!(f, "{} passed, {failed} failed; {skipping} of them skipped something", self.passed)?;
        for failure in &self.failed {
            writeln!(f, "  failed   {failure}")?;
        }
        for (reason, tests) in &self.skipped {
            let named = tests.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = match tests.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            writeln!(f, "  skipped  {reason}: {named}{more}")?;
        }
        let mut slowest = self.seconds.clone();
        slowest.sort_by(|one, other| other.0.total_cmp(&one.0));
        for (seconds, name) in slowest.iter().take(SLOWEST) {
            writeln!(f, "  {seconds:6.1} s {name}")?;
        }
        Ok(())
    }
}
