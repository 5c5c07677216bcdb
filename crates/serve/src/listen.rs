//! Sockets with names, at which clients and monitors connect.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long another server may take to begin beside this one.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
const TRY_LOCK_EVERY: Duration = Duration::from_millis(5);

/// Who can connect to a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenTo {
    /// Its owner, and root.
    Owner,
    /// All: who connects is looked at.
    All,
}

impl OpenTo {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::All => 0o666,
        }
    }
}

/// A socket with a name, which is removed when this is dropped.
#[derive(Debug)]
pub struct Listening {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Device and number of the name.
    identity: (u64, u64),
}

impl Listening {
    /// Listens at `path`. A name that a server has left behind is replaced.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if somebody listens there, `AlreadyExists` if something else has the name.
    pub fn bind(path: &Path, open_to: OpenTo) -> io::Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Of two servers that begin at once, one looks after the other has bound the name.
        let folder = std::fs::File::open(folder)?;
        lock(&folder)?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        let metadata = std::fs::symlink_metadata(path)?;
        let listening = Self { listener, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(open_to.mode()))?;
        listening.listener.set_nonblocking(true)?;
        Ok(listening)
    }

    /// The socket itself. The name is there as long as this is not dropped.
    ///
    /// # Errors
    ///
    /// That there is no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

fn lock(folder: &std::fs::File) -> io::Result<()> {
    let give_up = Instant::now() + LOCK_LIMIT;
    loop {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                std::thread::sleep(TRY_LOCK_EVERY);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something else than a socket has this name",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // Whether somebody listens is not to be told: the name stays.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let metadata = std::fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity) {
            // It fails if somebody else has removed it meanwhile.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
