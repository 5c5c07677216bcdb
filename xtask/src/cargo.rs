//! Running cargo in the workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The directory of the workspace's manifest.
pub(crate) fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().expect("xtask is a directory of the workspace").to_path_buf()
}

/// The cargo that started us, in the workspace, with `arguments`.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Where this run's build output goes.
pub(crate) fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Sets the variable of compiler flags `name` to what it was plus `flag`.
pub(crate) fn add_flag(command: &mut Command, name: &str, flag: &str) {
    let flags = match std::env::var(name) {
        Ok(flags) if !flags.is_empty() => format!("{flags} {flag}"),
        _ => flag.to_string(),
    };
    command.env(name, flags);
}

/// Runs `command` to its end and passes on its exit status.
pub(crate) fn exit_code(command: &mut Command) -> ExitCode {
    match command.status() {
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("xtask: run {:?}: {error}", command.get_program());
            ExitCode::FAILURE
        }
    }
}
