//! Runs that end within a time limit.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than any program of these tests takes.
pub const LIMIT: Duration = Duration::from_secs(300);

/// How a program has ended, and what it said.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// Exit status or signal.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl End {
    /// The exit status; panics if a signal has ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("killed: {self:?}"))
    }

    /// The signal that has ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Panics unless it has exited with 0 and without a word on standard error.
    pub fn succeeded(self, what: &str) -> Self {
        assert!(self.status.success() && self.err.is_empty(), "{what}: {self:#?}");
        self
    }
}

/// A program that runs beside the test. Its output goes to files, so that what it leaves behind holds nobody up.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
    out: File,
    err: File,
    since: Instant,
    /// Of an environment variable that all its processes have.
    mark: String,
}

impl Running {
    /// Starts it, with nothing to read, in a process group of its own.
    pub fn start(mut command: Command) -> Self {
        let file = || tempfile::tempfile().expect("a temporary file");
        let (out, err) = (file(), file());
        let share = |file: &File| Stdio::from(file.try_clone().expect("a descriptor"));
        let mark = mark();
        command.env(MARK, &mark);
        let child =
            command.process_group(0).stdin(Stdio::null()).stdout(share(&out)).stderr(share(&err)).spawn();
        Self {
            child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")),
            out,
            err,
            since: Instant::now(),
            mark,
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has said until now, on standard output and standard error.
    pub fn said(&mut self) -> (String, String) {
        (whole(&mut self.out), whole(&mut self.err))
    }

    /// Waits until it has said `text` on standard output.
    pub fn hear(&mut self, text: &str) {
        while !self.said().0.contains(text) {
            assert!(self.since.elapsed() < LIMIT, "does not say {text:?}: {:?}", self.said());
            // waits: polls what it has said.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end; kills it and panics when that does not come.
    pub fn end(mut self) -> End {
        let status = self.wait();
        let (out, err) = self.said();
        self.nothing_is_left();
        End { status, out, err }
    }

    /// Waits until none of its processes is left, those that have supervised it among them.
    pub fn nothing_is_left(&self) {
        let since = Instant::now();
        while let Some(left) = somebody_with(&self.mark) {
            assert!(since.elapsed() < LIMIT, "is left: {left}");
            // waits: polls for the end of processes that are not this one's.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// As [`end`](Self::end), and lets what it has left behind go on until this is dropped.
    pub fn wait(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().expect("a child to wait for") {
                return status;
            }
            if self.since.elapsed() > LIMIT {
                panic!("still runs after {LIMIT:?}: {:?}", self.said());
            }
            // waits: polls for the end.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What it has left behind as well, or a test that fails would leave processes that nobody ends.
        if let Some(group) = rustix::process::Pid::from_raw(self.pid()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of the variable by which the processes of a run are known.
const MARK: &str = "MEMOBJ_TEST_RUN";

fn mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A process that was started with this mark.
fn somebody_with(mark: &str) -> Option<String> {
    let wanted = format!("{MARK}={mark}");
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes.map(|process| process.path()).find_map(|process| {
        let variables = std::fs::read(process.join("environ")).ok()?;
        let has_it = variables.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes());
        let command = || std::fs::read(process.join("cmdline")).unwrap_or_default();
        has_it.then(|| format!("{}: {}", process.display(), String::from_utf8_lossy(&command())))
    })
}

fn whole(file: &mut File) -> String {
    // The programs' own place in the file is this one's, too: read without moving it.
    let mut bytes = Vec::new();
    let mut again =
        File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).expect("the file");
    again.rewind().and_then(|()| again.read_to_end(&mut bytes)).expect("what it said");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs it to its end.
pub fn run(command: Command) -> End {
    Running::start(command).end()
}
