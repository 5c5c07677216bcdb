//! `cargo xtask stress`: the seeded stress run, as long as asked for.

use std::process::ExitCode;

use crate::cargo::{cargo, exit_code};
use crate::usage;

/// What the stress test is told through its environment. `None` leaves the test's own choice.
#[derive(Debug, Default, PartialEq)]
struct Options {
    seconds: Option<u64>,
    seed: Option<u64>,
}

/// Runs the stress tests of the simulator crate with its output shown.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(problem) => return usage(&problem),
    };
    let package = ["test", "--release", "--package", "memobj-sim"];
    let mut command = cargo(&package);
    command.args(["--test", "stress", "--test", "stress_writes"]);
    command.args(["--", "--nocapture"]);
    if let Some(seconds) = options.seconds {
        command.env("MEMOBJ_STRESS_SECONDS", seconds.to_string());
    }
    if let Some(seed) = options.seed {
        command.env("MEMOBJ_SEED", seed.to_string());
    }
    exit_code(&mut command)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let field = match argument.as_str() {
            "--seconds" => &mut options.seconds,
            "--seed" => &mut options.seed,
            other => return Err(format!("stress: unexpected argument: {other}")),
        };
        let value = arguments.next().ok_or_else(|| format!("stress: {argument} needs a number"))?;
        let number = value.parse().map_err(|_| format!("stress: {argument}: not a number: {value}"))?;
        *field = Some(number);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::{Options, parse};

    fn parsed(words: &[&str]) -> Result<Options, String> {
        parse(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_become_options_or_a_reason() {
        assert_eq!(parsed(&[]), Ok(Options::default()));
        let both = Options { seconds: Some(60), seed: Some(7) };
        assert_eq!(parsed(&["--seconds", "60", "--seed", "7"]), Ok(both));
        assert!(parsed(&["--seconds"]).unwrap_err().contains("needs a number"));
        assert!(parsed(&["--seed", "x"]).unwrap_err().contains("not a number: x"));
        assert!(parsed(&["--what"]).unwrap_err().contains("--what"));
    }
}
