//! A directory of files to run the command in.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Longer than any of these runs may take; the status of `timeout` is then 124.
const TIME_LIMIT: &str = "600";

/// A temporary directory, the command's working directory.
pub struct TestFolder(tempfile::TempDir);

impl TestFolder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Creates a file of bytes without a period that divides a page, and returns them.
    pub fn file(&self, name: &str, length: usize) -> Vec<u8> {
        let mut state = length as u64 ^ 0x9e37_79b9_7f4a_7c15;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..length).map(|_| next()).collect();
        fs::write(self.path().join(name), &bytes).expect("a file in the temporary directory");
        bytes
    }

    /// The command, not started, under a time limit.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", TIME_LIMIT, env!("CARGO_BIN_EXE_memobj")]).args(arguments);
        command.current_dir(self.path());
        command
    }

    /// Runs the command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().expect("timeout(1) runs"))
    }
}

/// What a run gave.
pub struct Ran(pub Output);

impl Ran {
    /// The exit status.
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap_or_else(|| panic!("killed: {:?}", self.0))
    }

    /// Standard output, which must be text.
    pub fn out(&self) -> &str {
        std::str::from_utf8(&self.0.stdout).expect("text")
    }

    /// Standard error, which must be text.
    pub fn err(&self) -> &str {
        std::str::from_utf8(&self.0.stderr).expect("text")
    }
}
