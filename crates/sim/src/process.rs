//! Tests that need a process of their own, and what a process uses.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

const MARK: &str = "MEMOBJ_TEST_CHILD";

/// The part that this process has in test `name`, if it is a child that [`child`] started.
pub fn part(name: &str) -> Option<String> {
    let mark = std::env::var(MARK).ok()?;
    Some(mark.strip_prefix(name)?.strip_prefix('/')?.to_owned())
}

/// Runs test `name` of the caller's file again, alone in a process, in which [`part`] answers `part`.
#[track_caller]
pub fn child(name: &str, part: &str) -> Output {
    command(name, part).output().unwrap()
}

/// As [`child`], but does not wait for its end. It is killed if this is dropped first.
#[track_caller]
pub fn start(name: &str, part: &str) -> Started {
    Started(command(name, part).spawn().unwrap())
}

/// A child that runs beside the test.
#[derive(Debug)]
pub struct Started(Child);

impl Started {
    /// Kills it, by SIGKILL, and waits for its end.
    pub fn kill(&mut self) -> ExitStatus {
        self.0.kill().unwrap();
        self.0.wait().unwrap()
    }

    /// Waits for its end; panics if it hangs: if that takes ten times `seconds`.
    pub fn wait(&mut self, seconds: u64) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            let limit = Duration::from_secs(10 * seconds);
            assert!(start.elapsed() < limit, "the child still runs after {limit:?}");
            // waits: polls for the child's end.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn command(name: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&full_name(name), "--exact", "--nocapture", "--test-threads=1"]);
    // One arena of the C library for all threads, or which of them grows would depend on chance.
    command.env(MARK, format!("{name}/{part}")).env("MALLOC_ARENA_MAX", "1");
    command
}

/// Runs `body` alone in a process, so that what it counts is its own.
#[track_caller]
pub fn alone(name: &str, body: impl FnOnce()) {
    if part(name).is_some() {
        return body();
    }
    let output = child(name, "alone");
    show(&output);
    assert!(output.status.success(), "{name}, alone: {}", output.status);
}

/// The name of test `name` of the caller's file, as the harness has it: in a binary of several files, with that of its
/// module.
#[track_caller]
pub fn full_name(name: &str) -> String {
    let ours = tests_of_caller();
    let found = ours.iter().find(|test| *test == name || test.ends_with(&format!("::{name}")));
    found.unwrap_or_else(|| panic!("no test {name} among {ours:?}")).clone()
}

/// The tests of the caller's file; of a file that is a binary, all of them.
#[track_caller]
fn tests_of_caller() -> Vec<String> {
    let file = Path::new(std::panic::Location::caller().file());
    let module = format!("{}::", file.file_stem().unwrap_or_default().to_string_lossy());
    let output =
        Command::new(std::env::current_exe().unwrap()).args(["--list", "--format", "terse"]).output();
    let listed = String::from_utf8(output.unwrap().stdout).unwrap();
    let all: Vec<String> =
        listed.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect();
    let of_module: Vec<String> = all.iter().filter(|test| test.starts_with(&module)).cloned().collect();
    if of_module.is_empty() { all } else { of_module }
}

/// Adds what has the harness run the tests of the caller's file, but those with `left_out` in their name. Reasons to skip
/// are printed.
#[track_caller]
fn rerun(command: &mut Command, left_out: &[&str]) {
    let is_in = |test: &String| !left_out.iter().any(|part| test.contains(part));
    command.args(tests_of_caller().into_iter().filter(is_in)).args(["--exact", "--show-output"]);
}

/// Prints what a child printed.
pub fn show(output: &Output) {
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}

/// Set in runs in which objects that are written have shared frames.
pub const SHARED: &str = "MEMOBJ_TEST_SHARED";

/// Runs all tests of the caller's file but `name`, and those that do so for other users, with [shared](SHARED) frames.
#[track_caller]
pub fn rerun_shared(name: &str) {
    if std::env::var_os(SHARED).is_some() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    rerun(&mut command, &[name, "as_an_ordinary_user"]);
    let output = command.env(SHARED, "1").output().unwrap();
    show(&output);
    assert!(output.status.success(), "with shared frames: {}", output.status);
}

/// Runs all tests of the caller's file but `name` as a user without any privilege.
#[track_caller]
pub fn rerun_as_ordinary_user(name: &str) {
    if std::fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data)).unwrap() != 0 {
        return println!("skipped: this process is an ordinary user already");
    }
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for path in [folder.path(), &binary] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let Some(mut command) = without_privilege(&binary) else {
        return println!("skipped: setpriv(1) does not start programs as an ordinary user here");
    };
    rerun(&mut command, &[name]);
    let output = command.arg("--test-threads=2").output().unwrap();
    show(&output);
    assert!(output.status.success(), "as an ordinary user: {}", output.status);
}

fn without_privilege(binary: &Path) -> Option<Command> {
    let setpriv = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all"]);
        command.arg(program).current_dir("/");
        command
    };
    let lists = setpriv(binary).arg("--list").output().ok()?;
    lists.status.success().then(|| setpriv(binary))
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Open files.
    pub descriptors: usize,
    /// Threads, the caller's included.
    pub threads: usize,
    /// Lines of /proc/self/maps.
    pub mappings: usize,
    /// Resident, of every kind.
    pub resident_bytes: u64,
    /// Resident and private: without frames of frame files, which count once for each of their mappings.
    pub anonymous_bytes: u64,
    /// Addresses in use.
    pub virtual_bytes: u64,
}

impl Usage {
    /// Of the calling process, now.
    pub fn now() -> Self {
        let count = |path| std::fs::read_dir(path).unwrap().count();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            mappings: std::fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
            resident_bytes: field("VmRSS:"),
            anonymous_bytes: field("RssAnon:"),
            virtual_bytes: field("VmSize:"),
        }
    }
}

/// Lets this process have `count` descriptors; why not, if it may not.
///
/// # Errors
///
/// The words for a test that is skipped.
pub fn need_descriptors(count: u64) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < count) {
        return Err(format!("{count} descriptors are needed, and {:?} are allowed", limit.maximum));
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| format!("the limit of descriptors: {error}"))
}
