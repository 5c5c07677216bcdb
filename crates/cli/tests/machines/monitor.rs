//! Monitors: the program of monitor.c, compiled when it is first asked for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// The program; `None`, and the reason printed, if it cannot be compiled.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(compile).as_deref()
}

fn compile() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines/monitor.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("monitor");
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("monitor-{}", std::process::id()));
    let mut command = Command::new("cc");
    command.args(["-O1", "-g", "-Wall", "-Werror", "-pthread", "-o"]).arg(&fresh).arg(&source);
    match command.output() {
        Err(error) => {
            println!("skipped: cc: {error}");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            std::fs::rename(&fresh, &program).expect("a place for the program");
            Some(program)
        }
    }
}

/// A monitor that runs.
pub struct Monitor(Child);

/// How a monitor has ended.
#[derive(Debug)]
pub struct MonitorEnd(pub Output);

impl MonitorEnd {
    /// Panics unless each page was right.
    pub fn was_right(&self) {
        assert!(self.0.status.success(), "{self:?}");
    }

    /// What it said of errors.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

impl Monitor {
    /// Starts one. `None`, and the reason printed, if there is none here.
    pub fn start(socket: &Path, memory: &Path, options: &[&str]) -> Option<Self> {
        let child = Command::new(program()?)
            .arg(socket)
            .arg(memory)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Some(Self(child.expect("a monitor")))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.0.kill().expect("it is killed");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("its status").is_some()
    }

    /// Waits until it has ended.
    pub fn wait(self) -> MonitorEnd {
        MonitorEnd(self.0.wait_with_output().expect("its output"))
    }
}

/// Runs one to its end.
pub fn run(socket: &Path, memory: &Path, options: &[&str]) -> Option<MonitorEnd> {
    Monitor::start(socket, memory, options).map(Monitor::wait)
}
