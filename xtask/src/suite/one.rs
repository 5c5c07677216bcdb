//! One test: a process, its output, its seconds.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::artifact::Binary;
use crate::cargo::cargo;

/// How long a test may run. Only ends those that hang: the slowest takes half a minute on a machine with nothing else to do.
const LONGEST: Duration = Duration::from_secs(900);
/// Parts of the names of tests that take longest: those that run all others of their file again, and some more.
const LONG: [&str; 5] =
    ["ordinary_user", "with_shared_frames", "every_crash", "eviction", "under_one_budget"];

/// A test to run.
#[derive(Debug)]
pub(super) struct Test {
    binary: Binary,
    name: String,
}

/// What became of a test.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Binary and test.
    pub(super) name: String,
    pub(super) seconds: f64,
    /// What it printed.
    pub(super) output: String,
    /// Why it failed; `None` if it passed.
    pub(super) problem: Option<String>,
}

impl Test {
    pub(super) fn new(binary: &Binary, name: &str) -> Self {
        Self { binary: binary.clone(), name: name.to_owned() }
    }

    pub(super) fn is_long(&self) -> bool {
        LONG.iter().any(|part| self.name.contains(part))
    }

    pub(super) fn run(&self, outputs: &Path) -> Outcome {
        let mut command = self.binary.command();
        command.args([&self.name, "--exact", "--nocapture"]);
        let mut outcome = run(&mut command, outputs);
        outcome.name = format!("{} {}", self.binary.label, self.name);
        // A name that is not found is no failure to the harness.
        if outcome.problem.is_none() && !outcome.output.contains("\ntest result: ok. 1 passed") {
            outcome.problem = Some("it did not run".to_owned());
        }
        outcome
    }
}

/// The examples in the documentation, of all crates: one process, which has them run several at a time.
pub(super) fn documentation(outputs: &Path) -> Vec<Outcome> {
    let whole = run(&mut cargo(&["test", "--workspace", "--doc", "--quiet"]), outputs);
    let passed = whole.output.lines().filter_map(passed).sum();
    let mut all =
        vec![Outcome { name: "example of the documentation".to_owned(), ..Outcome::default() }; passed];
    if whole.problem.is_some() || passed == 0 {
        println!("{}", whole.output.trim_end());
        let problem = Some(whole.problem.unwrap_or_else(|| "there is none".to_owned()));
        all.push(Outcome { name: "examples of the documentation".to_owned(), problem, ..whole });
    } else if let Some(first) = all.first_mut() {
        first.name = format!("{passed} examples of the documentation, with their compilation");
        first.seconds = whole.seconds;
    }
    all
}

/// How many tests a line of a harness says have passed.
fn passed(line: &str) -> Option<usize> {
    line.strip_prefix("test result: ok. ")?.split_once(" passed")?.0.parse().ok()
}

/// Runs `command` to its end, or to the end of its time.
fn run(command: &mut Command, outputs: &Path) -> Outcome {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // A file, not a pipe: whoever inherits it and lives on keeps nobody waiting.
    let path = outputs.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    let begin = Instant::now();
    let ended = wait(command, &path, begin);
    let seconds = begin.elapsed().as_secs_f64();
    let output = std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let _ = std::fs::remove_file(&path);
    let problem = match ended {
        Ok(Some(status)) if status.success() => None,
        Ok(Some(status)) => Some(status.to_string()),
        Ok(None) => Some(format!("it still ran after {} s", LONGEST.as_secs())),
        Err(error) => Some(error.to_string()),
    };
    Outcome { name: String::new(), seconds, output: output.unwrap_or_default(), problem }
}

/// How `command` ended; `None` if it had to be killed.
fn wait(command: &mut Command, output: &Path, begin: Instant) -> std::io::Result<Option<ExitStatus>> {
    let file = File::options().create(true).append(true).open(output)?;
    command.stdin(std::process::Stdio::null()).stderr(file.try_clone()?).stdout(file);
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let ran = begin.elapsed();
        if ran > LONGEST {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep((ran / 16).clamp(Duration::from_millis(1), Duration::from_millis(20)));
    }
}
