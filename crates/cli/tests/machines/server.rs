//! The server under test, and its memory file.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A folder with a memory file.
pub struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    /// One whose memory file has so many MiB, an even number; no two of its pages are equal.
    pub fn new(mebibytes: usize) -> Self {
        let room =
            Self { folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder") };
        let mut bytes = vec![0u8; mebibytes << 20];
        for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        }
        std::fs::write(room.memory(), bytes).expect("a memory file");
        room
    }

    /// The memory file.
    pub fn memory(&self) -> PathBuf {
        self.path("memory")
    }

    /// Of something in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a server of the memory file. `None`, and the reason printed, if page faults are not reported here.
    pub fn serve(&self, options: &[&str]) -> Option<Server> {
        let memory = self.memory().display().to_string();
        self.serve_object(&memory, options)
    }

    /// The same of another object.
    pub fn serve_object(&self, object: &str, options: &[&str]) -> Option<Server> {
        if !memobj_linux::uffd::probe().is_ok_and(|features| features.kernel_faults) {
            println!("skipped: page faults inside system calls are not reported here");
            return None;
        }
        Some(Server::start(&self.path("socket"), object, options))
    }
}

#[derive(Default)]
struct Said {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

/// A server that runs; killed when it is dropped.
pub struct Server {
    child: Child,
    socket: PathBuf,
    said: Arc<Said>,
}

impl Server {
    fn start(socket: &Path, object: &str, options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_memobj"))
            .args(["serve", "--firecracker"])
            .arg(socket)
            .args(["--memory", object])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command");
        let said = Arc::new(Said::default());
        let (hears, errors) = (Arc::clone(&said), child.stderr.take().expect("its errors"));
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                hears.lines.lock().unwrap().0.push(line);
                hears.changed.notify_all();
            }
            hears.lines.lock().unwrap().1 = true;
            hears.changed.notify_all();
        });
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let got = output.read_line(&mut line);
        let server = Self { child, socket: socket.to_owned(), said };
        assert!(got.is_ok_and(|count| count > 0), "it has not begun: {:?}", server.lines());
        // What it says later is not waited for.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        server
    }

    /// Where monitors connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has said of errors and machines.
    pub fn lines(&self) -> Vec<String> {
        self.said.lines.lock().unwrap().0.clone()
    }

    /// Waits until it has said `count` lines with `part` in them; returns the last.
    pub fn says(&self, part: &str, count: usize) -> String {
        let until = Instant::now() + LIMIT;
        let mut lines = self.said.lines.lock().unwrap();
        loop {
            let found: Vec<_> = lines.0.iter().filter(|line| line.contains(part)).collect();
            if found.len() >= count {
                return found[found.len() - 1].clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !lines.1, "it has not said {part:?}: {:#?}", lines.0);
            lines = self.said.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Its process; that of the keeper, if it has one.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process that serves, a child of the keeper. `None`: there is none at the moment.
    pub fn kept_id(&self) -> Option<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.id());
        let children = std::fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().next()?.parse().ok()
    }

    /// Ends it as a service manager does, and waits until it has ended.
    pub fn end(mut self) -> (ExitStatus, Vec<String>) {
        signal(self.id(), "TERM");
        let status = self.child.wait().expect("its status");
        let until = Instant::now() + LIMIT;
        let mut lines = self.said.lines.lock().unwrap();
        while !lines.1 && Instant::now() < until {
            lines = self.said.changed.wait_timeout(lines, LIMIT).unwrap().0;
        }
        (status, lines.0.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(kept) = self.kept_id() {
            // Not to be started again: the keeper first.
            let _ = self.child.kill();
            signal(kept, "KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal, by name.
pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.is_ok(), "kill(1)");
}
