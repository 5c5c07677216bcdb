//! A server's process, its files, and their URLs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use memobj_sim::fixture::wait_until;

use crate::listen::Listen;
use crate::program::{BUCKET, Kind};

/// A server of a folder. It is killed with its handle.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    listen: Listen,
    folder: tempfile::TempDir,
    /// What it prints, outside of what it serves.
    log: tempfile::NamedTempFile,
    child: Option<Child>,
}

impl Server {
    /// Starts one on a free port; `None`, and says so, if it is not installed.
    ///
    /// # Panics
    ///
    /// If it is installed, and starts on no port.
    pub fn start(kind: Kind) -> Option<Self> {
        for _ in 0..20 {
            // Somebody else can get the port meanwhile.
            if let Some(server) = Self::start_at(kind, Listen::free_port(), folder())? {
                return Some(server);
            }
        }
        panic!("{} does not start on any port", kind.name());
    }

    /// Starts diod on a Unix socket; `None`, and says so, if it is not installed.
    ///
    /// # Panics
    ///
    /// If it is installed, and does not start.
    pub fn start_on_socket() -> Option<Self> {
        let folder = folder();
        let listen = Listen::Socket(folder.path().join("socket"));
        let server = Self::start_at(Kind::Diod, listen, folder)?;
        Some(server.expect("diod starts on a socket"))
    }

    /// The outer `None`: it is not installed. The inner: it has ended.
    fn start_at(kind: Kind, listen: Listen, folder: tempfile::TempDir) -> Option<Option<Self>> {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut server = Self { kind, listen, folder, log, child: None };
        let Some(command) = server.command() else {
            println!("skipped: {} is not installed", kind.name());
            return None;
        };
        kind.prepare(server.folder.path());
        Some(server.run_command(command).then_some(server).inspect(Self::make_bucket))
    }

    fn command(&self) -> Option<Command> {
        self.kind.command(&self.listen, self.folder.path())
    }

    /// Runs it, again after [`Server::kill`], and waits until it answers; `false` if it ends instead.
    pub fn run(&mut self) -> bool {
        let command = self.command().expect("it was installed");
        self.run_command(command)
    }

    fn run_command(&mut self, mut command: Command) -> bool {
        let log = File::options().append(true).open(self.log.path()).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
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

    /// Which server.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of its process.
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The port where it listens.
    ///
    /// # Panics
    ///
    /// If it listens at a socket.
    pub fn port(&self) -> u16 {
        self.listen.port()
    }

    /// What it has printed to standard error.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills it, and runs it again.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "{}", self.output());
    }

    /// Stops or continues it: `-STOP`, `-CONT`.
    pub fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// The folder that it serves.
    pub fn root(&self) -> PathBuf {
        match self.kind {
            Kind::Nginx => self.folder.path().join("root"),
            Kind::S3sFs | Kind::Moto => self.folder.path().join(BUCKET),
            _ => self.folder.path().to_owned(),
        }
    }

    /// A file of the folder that it serves.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// Makes a file in the folder that it serves; its URL.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.url(name)
    }

    /// The URL of a file or an object. Those of 9P have a query at their end, which others can be added to with `&`.
    pub fn url(&self, name: &str) -> String {
        let port = match self.listen {
            Listen::Port(port) => port,
            Listen::Socket(_) => 0,
        };
        self.url_at(port, name)
    }

    /// The same, on a way to it that begins at this port. Those of stores are the same: their clients are told of the port by
    /// [`Server::environment_at`].
    pub fn url_at(&self, port: u16, name: &str) -> String {
        let tree = if self.kind == Kind::Diod { self.folder.path().to_str().unwrap() } else { "" };
        match (&self.listen, self.kind) {
            (_, Kind::Moto | Kind::S3sFs) => format!("s3://{BUCKET}/{name}"),
            (Listen::Port(_), Kind::Nginx) => format!("http://127.0.0.1:{port}/{name}"),
            (Listen::Port(_), _) => format!("9p://127.0.0.1:{port}/{name}?aname={tree}"),
            (Listen::Socket(path), _) => format!("9p+unix://{}?path=/{name}&aname={tree}", path.display()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder that servers may read that give up being root.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    folder
}
