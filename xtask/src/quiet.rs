//! Commands whose output is shown only when they fail.

use std::process::{Command, Stdio};

/// What a step says when it fails.
pub(crate) type StepResult = Result<(), String>;

/// Runs `command` and returns its standard output. If it fails, prints all that it said.
pub(crate) fn quietly(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    print!("{}", String::from_utf8_lossy(&output.stderr));
    // Messages for programs begin so, and are no help to a reader.
    text.lines().filter(|line| !line.starts_with('{')).for_each(|line| println!("{line}"));
    Err(output.status.to_string())
}
