//! What stands for a machine: the monitor of the tests, compiled once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::options::MachineOptions;

const SOURCE: &str = include_str!("../../../crates/cli/tests/machines/monitor.c");

/// The monitor, and what it is to do.
pub struct Monitor {
    program: PathBuf,
    memory: PathBuf,
    options: Vec<String>,
}

impl Monitor {
    /// Compiles it in `folder`.
    pub fn new(folder: &Path, memory: &Path, options: &MachineOptions) -> Result<Self, String> {
        let (source, program) = (folder.join("monitor.c"), folder.join("monitor"));
        fs::write(&source, SOURCE).map_err(|error| format!("{}: {error}", source.display()))?;
        let mut command = Command::new("cc");
        command.args(["-O2", "-pthread", "-o"]).arg(&program).arg(&source);
        let output = command.output().map_err(|error| format!("cc: {error}"))?;
        if !output.status.success() {
            return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let words =
            [format!("part={}", options.part), format!("threads={}", options.threads), "load=1".into()];
        Ok(Self { program, memory: memory.to_owned(), options: words.into() })
    }

    /// Touches all, and returns the seconds that it took. `socket`: of the server, or `None` for the kernel's mapping.
    pub fn touch(&self, socket: Option<&Path>, more: &[&str]) -> Result<f64, String> {
        let mut command = Command::new(&self.program);
        command.arg(socket.unwrap_or(Path::new("none"))).arg(&self.memory).args(&self.options).args(more);
        if socket.is_none() {
            command.arg("plain=1");
        }
        let output = command.output().map_err(|error| format!("the monitor: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let seconds = text.split_once("seconds=").and_then(|(_, seconds)| seconds.trim().parse().ok());
        match seconds.filter(|_| output.status.success()) {
            Some(seconds) => Ok(seconds),
            None => {
                Err(format!("the monitor: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
            }
        }
    }
}
