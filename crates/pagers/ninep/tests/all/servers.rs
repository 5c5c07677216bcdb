//! Real servers, on loopback. One that is not installed is said to be skipped.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use memobj_sim::fixture::wait_until;

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Listen {
    Port(u16),
    Socket(PathBuf),
}

impl Listen {
    /// A port that was free a moment ago, and that no other test of this process has. It is below those that the kernel
    /// gives to clients: a server that is started anew finds it free, and no client connects to itself.
    pub(crate) fn free_port() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        const PORTS: std::ops::Range<u32> = 10_000..32_000;
        for _ in PORTS {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) + 17 * std::process::id();
            let port = u16::try_from(PORTS.start + next % (PORTS.end - PORTS.start)).unwrap();
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Self::Port(port);
            }
        }
        panic!("no port is free");
    }

    fn answers(&self) -> bool {
        match self {
            Self::Port(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok(),
            Self::Socket(path) => UnixStream::connect(path).is_ok(),
        }
    }
}

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// 9P2000.L.
    Diod,
    /// 9P2000, of Python.
    Py9p,
    /// 9P2000.u.
    Py9pUnix,
}

/// A server of a folder. It is killed with its handle.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) listen: Listen,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

fn diod() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder: PathBuf| folder.join("diod")).find(|path| path.is_file())
}

/// A Python that has py9p: that of `MEMOBJ_PYTHON`, or the first.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("MEMOBJ_PYTHON").map(PathBuf::from);
    let pythons = named.into_iter().chain(["python3", "python2", "python"].map(PathBuf::from));
    pythons.into_iter().find(|python| {
        let has = Command::new(python).args(["-c", "from py9p import py9p"]).stderr(Stdio::null()).status();
        has.is_ok_and(|status| status.success())
    })
}

impl Server {
    /// Starts one on a free port; `None`, and says so, if it is not installed.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let mut folder = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let mut server = Self { kind, listen: Listen::free_port(), folder, child: None };
            if server.command().is_none() {
                println!("skipped: {kind:?} is not installed");
                return None;
            }
            if server.run() {
                return Some(server);
            }
            // Somebody else got the port meanwhile.
            folder = server.folder_out();
        }
        panic!("{kind:?} does not start on any port");
    }

    /// Starts diod on a Unix socket.
    pub(crate) fn start_on_socket() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let listen = Listen::Socket(folder.path().join("socket"));
        let mut server = Self { kind: Kind::Diod, listen, folder, child: None };
        if server.command().is_none() {
            println!("skipped: diod is not installed");
            return None;
        }
        assert!(server.run(), "diod does not start on a socket");
        Some(server)
    }

    fn folder_out(mut self) -> tempfile::TempDir {
        self.kill();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    fn command(&self) -> Option<Command> {
        match self.kind {
            Kind::Diod => {
                let mut command = Command::new(diod()?);
                let listen = match &self.listen {
                    Listen::Port(port) => format!("127.0.0.1:{port}"),
                    Listen::Socket(path) => path.display().to_string(),
                };
                command.args(["-f", "-n", "-c", "/dev/null", "-l", &listen, "-e"]).arg(self.folder.path());
                Some(command)
            }
            Kind::Py9p | Kind::Py9pUnix => {
                let Listen::Port(port) = self.listen else { return None };
                let mut command = Command::new(python()?);
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/server_of_python.py");
                let dialect = if self.kind == Kind::Py9p { "9P2000" } else { "9P2000.u" };
                command.arg(script).arg(port.to_string()).arg(self.folder.path()).arg(dialect);
                Some(command)
            }
        }
    }

    /// Runs it and waits until it answers; `false` if it ends instead.
    pub(crate) fn run(&mut self) -> bool {
        let mut command = self.command().unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(self.log()).unwrap());
        let mut child = command.spawn().unwrap();
        let mut is_there = false;
        wait_until("the server answers", || {
            is_there = self.listen.answers();
            is_there || child.try_wait().unwrap().is_some()
        });
        // Another server may have got the port.
        is_there &= child.try_wait().unwrap().is_none();
        self.child = Some(child);
        is_there
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops or continues it: SIGSTOP, SIGCONT.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// A file of the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a file.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.url(name)
    }

    /// The URL of a file, with `?` at the end.
    pub(crate) fn url(&self, name: &str) -> String {
        let tree = if self.kind == Kind::Diod { self.folder.path().to_str().unwrap() } else { "" };
        match &self.listen {
            Listen::Port(port) => format!("9p://127.0.0.1:{port}/{name}?aname={tree}"),
            Listen::Socket(path) => format!("9p+unix://{}?path=/{name}&aname={tree}", path.display()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
