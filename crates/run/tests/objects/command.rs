//! Runs of the example, and what its objects have.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of these takes.
const LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked at what nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What Python programs begin with: the bytes of a synthetic object.
const PYTHON: &str = r"
import os, mmap, sys
def data(start, end, seed):
    first = start // 8 * 8
    def word(at):
        w = ((at // 8 + seed) * 0x9e3779b97f4a7c15) & ((1 << 64) - 1)
        return (w ^ (w >> 29)).to_bytes(8, 'little')
    return b''.join(word(at) for at in range(first, end, 8))[start - first:end - first]
";

/// How a run has ended, and what was said.
#[derive(Debug)]
pub struct End {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

impl End {
    fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics unless it has ended with 0 and said nothing but this on standard output.
    pub fn says(&self, out: &str) {
        assert!(self.code == Some(0) && self.out == out && self.err.is_empty(), "{self:#?}");
    }

    /// A number of the totals, which `--totals` prints.
    pub fn total(&self, name: &str) -> u64 {
        let start = self.err.find(&format!("{name}: ")).unwrap_or_else(|| panic!("{name}: {self:#?}"));
        let digits = self.err[start + name.len() + 2..].split(|letter: char| !letter.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{name}: {self:#?}"))
    }
}

/// The example.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a name");
    let folder = test.parent().and_then(|folder| folder.parent()).expect("target/debug/deps");
    let path = folder.join("examples/map_objects");
    assert!(path.exists(), "{}: build the examples first", path.display());
    path
}

/// The command, not started. `None`, and the reason printed, if there are no mapped objects here.
pub fn command(options: &[&str], words: &[&str]) -> Option<Command> {
    if !has_what_it_takes() {
        return None;
    }
    let mut command = Command::new(binary());
    command.args(options).arg("--").args(words).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

fn has_what_it_takes() -> bool {
    let tried = Command::new(binary()).args(["--", "true"]).output().expect("the example runs");
    if !tried.status.success() {
        println!("skipped: {}", String::from_utf8_lossy(&tried.stderr).trim_end());
        return false;
    }
    match memobj_run::objects_on_demand() {
        memobj_run::ObjectsOnDemand::Available => true,
        other => {
            println!("skipped: {other:?}");
            false
        }
    }
}

/// Runs a program to its end.
pub fn run(options: &[&str], words: &[&str]) -> Option<End> {
    Some(wait(command(options, words)?.spawn().expect("the example starts")))
}

/// Runs a Python program that knows the bytes of objects.
pub fn python(options: &[&str], program: &str) -> Option<End> {
    let there = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: there is no python3");
        return None;
    }
    run(options, &["python3", "-c", &format!("{PYTHON}{program}")])
}

/// Waits for the end. One that does not come kills the run.
pub fn wait(child: Child) -> End {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let pid = child.id() as i32;
    let killer = std::thread::spawn(move || {
        if told.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let pid = rustix::process::Pid::from_raw(pid).expect("a process");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("it can be waited for");
    drop(tell);
    killer.join().expect("the killer ends");
    End::of(output)
}

/// Waits until `holds`; panics if that takes too long.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        // waits: nobody tells of what other processes do.
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = |pid: u32| -> Option<u32> {
        let stat = stat(pid);
        let mut rest = stat.rsplit_once(") ")?.1.split(' ');
        (rest.next()? != "Z").then_some(())?;
        rest.next()?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

/// What the kernel calls the process.
pub fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The process called `name` among all that came from `pid`.
pub fn find(pid: u32, wanted: &str) -> Option<u32> {
    let below = children(pid);
    below
        .iter()
        .copied()
        .find(|pid| name(*pid) == wanted)
        .or_else(|| below.into_iter().find_map(|child| find(child, wanted)))
}

/// Where the process sleeps in the kernel.
pub fn sleeps_in(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default()
}
