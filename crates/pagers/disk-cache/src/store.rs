//! Blocks in the directory: read, write, remove.
//!
//! Blocks are not synced to the disk. After a power loss a file can be short, empty or full of zeros: its checksum tells,
//! and it is a miss. After kill -9 the kernel still has all that was written.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fstat, futimens};
use rustix::io::Errno;

use crate::directory::{Directory, REMOVED, is_file, size};
use crate::format::{self, file_bytes};
use crate::identity::BlockId;
use crate::read::read_whole;
use crate::usage::{Temporary, Usage};

/// A block that is read is marked as used at most so often.
const MARK_EVERY: Duration = Duration::from_secs(60);

/// What became of reading a block.
#[derive(Debug)]
pub(crate) enum Looked {
    /// All its bytes are right.
    Hit,
    /// It is not there.
    Absent,
    /// Its file is not what was written.
    Damaged,
    /// The file system failed.
    Failed(io::Error),
}

/// What became of writing one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Written {
    /// It is there, and was not before.
    Kept,
    /// Another process was faster.
    ThereAlready,
    /// It does not fit.
    NoRoom,
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) directory: Arc<Directory>,
    pub(crate) usage: Usage,
    pub(crate) budget: u64,
    /// Names below [`REMOVED`] begin with it and go on with `next`.
    mark: u64,
    next: AtomicU64,
}

impl Store {
    pub(crate) fn new(directory: Arc<Directory>, usage: Usage, budget: u64) -> Self {
        let next = AtomicU64::new(0);
        let mark = usage.mark();
        Self { directory, usage, budget, mark, next }
    }

    /// Fills `into`, which is as long as the block. What it holds after anything but [`Looked::Hit`] means nothing.
    pub(crate) fn read(&self, id: &BlockId, into: &mut [u8]) -> Looked {
        match self.try_read(id, into) {
            Ok(looked) => looked,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Looked::Absent,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Looked::Damaged,
            // A symbolic link.
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Looked::Damaged,
            Err(error) => Looked::Failed(error),
        }
    }

    fn try_read(&self, id: &BlockId, into: &mut [u8]) -> io::Result<Looked> {
        let file = self.directory.open_file(&id.path)?;
        let stat = fstat(&file)?;
        if !is_file(&stat) || size(&stat) != file_bytes(id.length) {
            return Ok(Looked::Damaged);
        }
        let footer = read_whole(&file, into)?;
        if !format::is_right(id, into, &footer) {
            return Ok(Looked::Damaged);
        }
        if is_mark_due(&stat) {
            // Not marked, it is evicted earlier: no more.
            let _ = futimens(&file, &USED_NOW);
        }
        Ok(Looked::Hit)
    }

    /// Takes a file from its place, if it is there still; it counts until it is deleted. Says whether this call did.
    pub(crate) fn remove(&self, id: &BlockId) -> io::Result<bool> {
        self.move_away(&id.path)
    }

    /// The same for all blocks of a folder.
    pub(crate) fn remove_folder(&self, folder: &str) -> io::Result<bool> {
        self.move_away(folder)
    }

    fn move_away(&self, path: &str) -> io::Result<bool> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match self.directory.rename(path, &format!("{REMOVED}/{:016x}-{number}", self.mark)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a block, if it fits.
    pub(crate) fn keep(&self, id: &BlockId, data: &[u8]) -> io::Result<Written> {
        if self.directory.stat(&id.path).is_ok() {
            return Ok(Written::ThereAlready);
        }
        let charge = format::charge(file_bytes(id.length));
        let Some(temporary) = self.usage.reserve(charge, self.budget)? else {
            return Ok(Written::NoRoom);
        };
        match self.publish(id, data, &temporary) {
            // A kill before this line leaves two names. Whoever finds them removes the temporary one.
            Ok(()) => self.directory.unlink(&temporary.name).map(|()| Written::Kept),
            Err(error) => {
                self.usage.give_back(temporary)?;
                match error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(Written::ThereAlready),
                    _ => Err(error),
                }
            }
        }
    }

    fn publish(&self, id: &BlockId, data: &[u8], temporary: &Temporary) -> io::Result<()> {
        temporary.file.write_all_at(data, 0)?;
        temporary.file.write_all_at(&format::footer(id, data), id.length)?;
        match self.directory.link(&temporary.name, &id.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (folder, _) = id.path.rsplit_once('/').unwrap_or((&id.path, ""));
                if let Some((first, _)) = folder.split_once('/') {
                    self.directory.make_folder(first)?;
                }
                self.directory.make_folder(folder)?;
                self.directory.link(&temporary.name, &id.path)
            }
            linked => linked,
        }
    }
}

const USED_NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
};

/// Whether the file's time is more than [`MARK_EVERY`] from now, if in the future.
fn is_mark_due(stat: &Stat) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let used_at = u64::try_from(stat.st_mtime).unwrap_or(0);
    now.abs_diff(used_at) > MARK_EVERY.as_secs()
}
