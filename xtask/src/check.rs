//! `cargo xtask check`: the steps every change must pass.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::cargo::{add_flag, cargo, target_directory};
use crate::tidy;

/// What a step says when it fails.
type StepResult = Result<(), String>;

type Step = fn() -> StepResult;

const STEPS: [(&str, Step); 6] = [
    ("format", || status(&mut cargo(&["fmt", "--all", "--check"]))),
    ("clippy", || status(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))),
    ("test", || status(&mut cargo(&["test", "--workspace"]))),
    ("loom", loom),
    ("doc", || status(&mut doc_command())),
    ("tidy", tidy::check),
];

/// Runs the steps in order, up to the first that fails.
pub(crate) fn run() -> ExitCode {
    let begin = Instant::now();
    for (name, step) in STEPS {
        println!("== {name}");
        let step_begin = Instant::now();
        let result = step();
        let seconds = step_begin.elapsed().as_secs_f64();
        if let Err(problem) = result {
            println!("== {name} failed after {seconds:.1} s: {problem}");
            return ExitCode::FAILURE;
        }
        println!("== {name} passed in {seconds:.1} s");
    }
    println!("== check passed in {:.1} s", begin.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

/// `cargo xtask doc`: builds the documentation with warnings denied.
pub(crate) fn doc() -> ExitCode {
    crate::cargo::exit_code(&mut doc_command())
}

fn doc_command() -> Command {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    add_flag(&mut command, "RUSTDOCFLAGS", "-D warnings");
    command
}

/// Model-checks the page word. A run that finds no test to run is a failure: the filter went stale.
fn loom() -> StepResult {
    let mut command = cargo(&["test", "-p", "memobj-core", "--release", "--lib", "loom"]);
    add_flag(&mut command, "RUSTFLAGS", "--cfg loom");
    command.env("CARGO_TARGET_DIR", target_directory().join("loom"));
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let output = child.stdout.take().expect("standard output is piped");
    let mut tests = 0;
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{line}");
        tests += usize::from(line.starts_with("test ") && line.ends_with(" ok"));
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match (status.success(), tests) {
        (false, _) => Err(status.to_string()),
        (true, 0) => Err("no loom test ran".to_string()),
        (true, _) => Ok(()),
    }
}

fn status(command: &mut Command) -> StepResult {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
