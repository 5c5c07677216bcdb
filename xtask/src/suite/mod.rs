//! All tests of the workspace, each in a process of its own, a few at a time; and what became of them.
//!
//! cargo builds the test binaries and says where they are. Each test is then run as `binary name --exact`: so a crash
//! or a hang is that test's alone, a limit or a handler that it sets is as well, and its seconds can be measured.

mod artifact;
mod one;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::cargo::{add_flag, cargo, target_directory};
use crate::quiet::{StepResult, quietly};
use artifact::binaries;
use one::{Outcome, Test};
pub(crate) use summary::Summary;

/// What has been built, and waits to be run.
#[derive(Debug, Default)]
pub(crate) struct Suite {
    tests: Vec<Test>,
}

impl Suite {
    /// Builds every test of the workspace, and those of the core under the model checker.
    pub(crate) fn build() -> Result<Self, String> {
        let mut suite = Self::default();
        suite.add(&mut cargo(&["test", "--workspace", "--no-run"]), "")?;
        let before = suite.tests.len();
        suite.add(&mut loom_command(), "loom")?;
        match suite.tests.len() - before {
            // The filter went stale.
            0 => Err("there is no loom test".to_string()),
            _ => Ok(suite),
        }
    }

    /// Adds the tests that `command` builds and whose name contains `filter`.
    fn add(&mut self, command: &mut Command, filter: &str) -> StepResult {
        let messages = quietly(command.arg("--message-format=json-render-diagnostics"))?;
        for binary in binaries(&messages) {
            let listed = quietly(binary.command().args(["--list", "--format", "terse"]))?;
            let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
            let names = names.filter(|name| name.contains(filter));
            self.tests.extend(names.map(|name| Test::new(&binary, name)));
        }
        Ok(())
    }

    /// Runs all of them, and the examples in the documentation.
    pub(crate) fn run(mut self) -> Summary {
        // What takes long begins first, so that no processor is idle at the end.
        self.tests.sort_by_key(|test| !test.is_long());
        let outputs = target_directory().join("xtask").join("outputs");
        let _ = std::fs::remove_dir_all(&outputs);
        if let Err(error) = std::fs::create_dir_all(&outputs) {
            return Summary::of_problem(format!("make {}: {error}", outputs.display()));
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let total = self.tests.len();
        let progress = Progress { summary: Mutex::default(), total, begin: Instant::now() };
        progress.run(self.tests, processors, &outputs);
        let mut summary = progress.summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.add_all(one::documentation(&outputs));
        summary
    }
}

/// Builds the model checks of the core. Their own folder keeps the flag from rebuilding all else.
fn loom_command() -> Command {
    let mut command = cargo(&["test", "--package", "memobj-core", "--lib", "--no-run"]);
    for package in ["loom", "generator"] {
        command.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=3"));
    }
    add_flag(&mut command, "RUSTFLAGS", "--cfg loom");
    command.env("CARGO_TARGET_DIR", target_directory().join("loom"));
    command
}

/// Tests that are under way, and what has become of those that have ended.
#[derive(Debug)]
struct Progress {
    summary: Mutex<Summary>,
    total: usize,
    begin: Instant,
}

impl Progress {
    fn run(&self, tests: Vec<Test>, at_once: usize, outputs: &Path) {
        let queue = Mutex::new(VecDeque::from(tests));
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(test) = next() {
                        self.ended(test.run(outputs));
                    }
                });
            }
        });
    }

    /// Takes note of a test's end. A failure is shown at once.
    fn ended(&self, outcome: Outcome) {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &outcome.problem {
            println!("-- {}: {problem}\n{}", outcome.name, outcome.output.trim_end());
        }
        summary.add(outcome);
        if std::io::stdout().is_terminal() {
            let seconds = self.begin.elapsed().as_secs();
            print!("\r{} of {} tests after {seconds} s ", summary.count(), self.total);
            let _ = std::io::Write::flush(&mut std::io::stdout());
        }
    }
}
