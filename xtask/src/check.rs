//! `cargo xtask check`: the steps every change must pass.

use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::cargo::{add_flag, cargo};
use crate::quiet::{StepResult, quietly};
use crate::suite::{Suite, Summary};
use crate::tidy;

/// Runs the steps in order, up to the first that fails, and sums up.
pub(crate) fn run() -> ExitCode {
    sum_up("check", steps)
}

/// `cargo xtask test`: the tests alone.
pub(crate) fn test() -> ExitCode {
    sum_up("test", tests)
}

/// Runs `steps`, then says what became of the tests and of everything.
fn sum_up(name: &str, steps: fn(&mut Option<Summary>) -> StepResult) -> ExitCode {
    let begin = Instant::now();
    let mut summary = None;
    let result = steps(&mut summary);
    if let Some(summary) = summary {
        print!("\n{summary}");
    }
    let seconds = begin.elapsed().as_secs_f64();
    match &result {
        Ok(()) => println!("{name} passed in {seconds:.1} s"),
        Err(problem) => println!("{name} failed after {seconds:.1} s: {problem}"),
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Those that take a second come first. `summary` is what became of the tests, if it comes to them.
fn steps(summary: &mut Option<Summary>) -> StepResult {
    step("format", || quietly(&mut cargo(&["fmt", "--all", "--check"])))?;
    step("tidy", tidy::check)?;
    step("clippy", || {
        quietly(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    })?;
    step("features", features)?;
    tests(summary)?;
    step("doc", || quietly(doc_command().arg("--quiet")))?;
    Ok(())
}

/// The library without its features, and with each of those that are on by default.
fn features() -> StepResult {
    for features in ["", "images", "spaces"] {
        let only = ["clippy", "-p", "memobj", "--no-default-features", "--features", features, "--quiet"];
        quietly(cargo(&only).args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

fn tests(summary: &mut Option<Summary>) -> StepResult {
    let suite = step("build", Suite::build)?;
    step("test", || summary.insert(suite.run()).result())
}

/// Runs one step and says in one line how it went.
fn step<R>(name: &str, run: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    if std::io::stdout().is_terminal() {
        print!("{name}\r");
        let _ = std::io::stdout().flush();
    }
    let begin = Instant::now();
    let result = run();
    let seconds = begin.elapsed().as_secs_f64();
    match &result {
        Ok(_) => println!("{name:<8} passed in {seconds:.1} s"),
        Err(problem) => println!("{name} failed after {seconds:.1} s: {problem}"),
    }
    result.map_err(|problem| format!("{name}: {problem}"))
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
