//! Checks, benchmarks and house rules of the workspace: `cargo xtask <command>`.
//!
//! This is the only entry point. Continuous integration calls the same commands as a contributor.
#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod check;
mod quiet;
mod stress;
mod suite;
mod tidy;

use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "\
Checks, benchmarks and house rules of the memobj workspace.

Usage: cargo xtask <command> [arguments]

  check    everything a change must pass, in this order, stopping at the first failure: format, tidy, clippy with
           warnings denied, tests (model checks and examples of the documentation too), documentation. Says in the
           end how many tests passed, failed and skipped something, why, and which were slowest
  test     the tests only, with their summary; with arguments, those of `cargo test --workspace` that they choose
  doc      the documentation only, warnings denied
  tidy     the house rules only: file and function lengths, where unsafe code may be, and so on;
           CONTRIBUTING.md lists them by name
  bench    a benchmark, `read`, `write`, `run`, `network` or `space`; arguments go to the harness, whose `--help`
           explains patterns and contestants, e.g. `cargo xtask bench write --help`
  stress   the seeded stress run: [--seconds N] [--seed S]
  help     this text

Examples:
  cargo xtask check
  cargo xtask test -p memobj-core page_word
  cargo xtask bench read --size 1G --budget 256M --threads 1,2,4 --json result.json
  cargo xtask bench write --only commit --dir /path/on/the/disk
  cargo xtask bench run --only true,ls
  cargo xtask bench network --only sequential,scattered
  cargo xtask bench space
  cargo xtask stress --seconds 60 --seed 1

Exit status: 0 passed, 1 failed, 2 usage. `bench` and `test` pass on the status of what they ran.";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    match command.as_str() {
        "check" => without_arguments(&rest, check::run),
        "tidy" => without_arguments(&rest, tidy::run),
        "doc" => without_arguments(&rest, check::doc),
        "test" if rest.is_empty() => check::test(),
        "test" => cargo::exit_code(cargo::cargo(&["test", "--workspace"]).args(rest)),
        "bench" => bench::run(&rest),
        "stress" if rest.iter().any(|argument| is_help(argument)) => help(),
        "stress" => stress::run(&rest),
        "help" | "--help" | "-h" => help(),
        "" => usage("a command is missing"),
        other => usage(&format!("no such command: {other}")),
    }
}

/// Runs `command`, or explains that it takes no arguments.
fn without_arguments(rest: &[String], command: fn() -> ExitCode) -> ExitCode {
    match rest.first().map(String::as_str) {
        None => command(),
        Some(argument) if is_help(argument) => help(),
        Some(argument) => usage(&format!("unexpected argument: {argument}")),
    }
}

fn is_help(argument: &str) -> bool {
    matches!(argument, "--help" | "-h")
}

/// Prints the help text. A reader that stops early is not a failure.
fn help() -> ExitCode {
    let _ = writeln!(std::io::stdout(), "{HELP}");
    ExitCode::SUCCESS
}

/// Reports wrong usage on standard error, with the help text.
fn usage(problem: &str) -> ExitCode {
    eprintln!("xtask: {problem}\n\n{HELP}");
    ExitCode::from(2)
}
