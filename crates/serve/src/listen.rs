//! Sockets with names, at which clients and monitors connect.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

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

/// What is at a place where a server is to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nothing.
    Free,
    /// A socket at which nobody listens: a server that has died has left it.
    LeftBehind,
    /// Somebody listens there.
    InUse,
    /// Something that is no socket.
    SomethingElse,
}

/// Looks what is at `path`, and changes nothing: a server that listens there sees a connection that hangs up. Does not block.
///
/// # Errors
///
/// What the system says, for example that nobody may look there; `InvalidInput` if the path is too long for a socket.
pub fn place_of(path: &Path) -> io::Result<Place> {
    let address = SocketAddrUnix::new(path)?;
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Free),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Ok(Place::SomethingElse);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        // Who has as many waiting as there may be listens, too.
        Ok(()) | Err(Errno::AGAIN) => Ok(Place::InUse),
        Err(Errno::CONNREFUSED) => Ok(Place::LeftBehind),
        Err(Errno::NOENT) => Ok(Place::Free),
        Err(error) => Err(error.into()),
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match place_of(path)? {
        Place::Free => Ok(()),
        Place::LeftBehind => std::fs::remove_file(path),
        Place::InUse => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
        Place::SomethingElse => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket has this name"))
        }
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
