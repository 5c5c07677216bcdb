//! A local file.

use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memobj_linux::file::{
    FileVersion, cached_pages, is_hole, is_local, is_named, names, open_direct, open_direct_writable,
    read_full, read_once, set_length, sync_data, try_lock, unlock, write_full,
};
use memobj_linux::ring::ReadFile;

use super::log_file::ForeignLog;
use super::told_length::told_length;
use super::{BlockingPager, Local, by_calls};
use crate::error::{ErrorKind, OpenError, SupplyError};
use crate::options::CacheUse;

/// What a file was opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OpenMode {
    Read,
    /// Whoever changes the file changes what is supplied.
    Follow,
    /// Its lock is ours: changes of its version are our own.
    ReadWrite,
}

/// How often the lock of a file is tried again.
const TRY_LOCK_EVERY: Duration = Duration::from_millis(10);

/// After how many reads the page cache is asked again what it holds.
const ASK_EVERY: u32 = 4096;

/// A pager over one version of a regular file or block device. Clones are the same open file.
///
/// The version (device, inode, size, times of last modification and last change) is taken when the file is opened
/// and compared after each read. A change of names alone (a link made or removed) is not a new version; a rename, a
/// new owner or new permissions cannot be told from a modification time that was set back, and count as one. Once it differs, no page is supplied any more: every request fails as
/// [`Stale`](ErrorKind::Stale), so that two versions are never mixed. Pages that are resident stay readable.
/// Not seen: a store through another program's shared mapping, until the kernel stamps the file; and on Linux
/// before 6.13 a change within the clock tick of the opening.
#[derive(Clone)]
pub struct File(Arc<Opened>);

/// What the clones of a [`File`] share.
struct Opened {
    buffered: ReadFile,
    direct: Option<ReadFile>,
    probe: std::fs::File,
    version: FileVersion,
    length: AtomicU64,
    access: OpenMode,
    cache_use: CacheUse,
    goes_direct: AtomicBool,
    reads: AtomicU32,
    stale: AtomicBool,
    /// Whether nobody but this machine is asked about the file.
    is_local: bool,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("length", &self.0.length.load(Ordering::Relaxed))
            .field("access", &self.0.access)
            .field("cache_use", &self.0.cache_use)
            .finish_non_exhaustive()
    }
}

impl File {
    /// Opens `path` for reading, with [`CacheUse::Auto`]. What was committed to the file and lies in its commit log is put
    /// in place first, for which the file must be writable.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, CacheUse::Auto)
    }

    /// Opens `path` for reading.
    pub fn open_with(path: impl AsRef<Path>, cache_use: CacheUse) -> Result<Self, OpenError> {
        super::recover(path.as_ref(), ForeignLog::Refuse)?;
        Self::open_as(path.as_ref(), cache_use, OpenMode::Read)
    }

    /// As [`open`](Self::open), beside a log that belongs to a stranger, if `foreign_log` says so: what such a log holds
    /// is left out, and it stays where it is.
    pub fn open_beside(path: impl AsRef<Path>, foreign_log: ForeignLog) -> Result<Self, OpenError> {
        super::recover(path.as_ref(), foreign_log)?;
        Self::open_as(path.as_ref(), CacheUse::Auto, OpenMode::Read)
    }

    /// Opens the file that `file` is open at once more, for reading, whatever its name is by now. Takes /proc, and the right
    /// to read the file.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open). If a commit log lies beside the file, whoever it belongs to, `ForeignLog`: nothing is put in
    /// place, since somebody else can choose what lies there.
    pub fn open_descriptor(file: &std::fs::File) -> Result<Self, OpenError> {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        match super::log_file::log_beside(Path::new(&path)) {
            Some(path) => Err(OpenError::ForeignLog { path }),
            None => Self::open_as(Path::new(&path), CacheUse::Auto, OpenMode::Read),
        }
    }

    /// Supplies what the open `file`, a regular one, has at the moment of each supply, as the kernel's own mappings do:
    /// a changed file is not [`Stale`](ErrorKind::Stale), and pages that were supplied before and after a change can
    /// have bytes of two versions. Reads go through the host's page cache.
    pub fn follow(file: std::fs::File) -> std::io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self(Arc::new(Opened {
            version: FileVersion::of(&file)?,
            is_local: is_local(&file),
            probe: file.try_clone()?,
            buffered: ReadFile::new(file),
            direct: None,
            length: AtomicU64::new(length),
            access: OpenMode::Follow,
            cache_use: CacheUse::Buffered,
            goes_direct: AtomicBool::new(false),
            reads: AtomicU32::new(0),
            stale: AtomicBool::new(false),
        })))
    }

    /// Opens `path` for reading and writing, and locks it (flock(2)): only one process, and one pager, can have a
    /// file open for writing. Waits for the lock for at most `lock_timeout`.
    ///
    /// The lock holds off other users of this library and of flock; whoever writes to the file without asking is
    /// not noticed, other than with a pager that only reads.
    pub fn open_writable(path: impl AsRef<Path>, lock_timeout: Duration) -> Result<Self, OpenError> {
        super::open_in_place(path.as_ref(), lock_timeout, CacheUse::Auto)
    }

    /// As [`open_writable`](Self::open_writable), without a look at the commit log.
    pub(super) fn open_locked(
        path: &Path,
        lock_timeout: Duration,
        cache_use: CacheUse,
    ) -> Result<Self, OpenError> {
        let pager = Self::open_as(path, cache_use, OpenMode::ReadWrite)?;
        let give_up = Instant::now().checked_add(lock_timeout);
        let refused = |source| OpenError::File { path: path.to_owned(), source };
        while !try_lock(&pager.0.probe).map_err(refused)? {
            if give_up.is_some_and(|at| Instant::now() >= at) {
                return Err(OpenError::Locked { path: path.to_owned() });
            }
            std::thread::sleep(TRY_LOCK_EVERY);
        }
        // Whoever had the lock before can have changed the length.
        let length = pager.0.probe.metadata().map_err(refused)?.len();
        if pager.0.version.size() != 0 || length != 0 {
            pager.0.length.store(length.max(pager.block_length()), Ordering::Relaxed);
        }
        Ok(pager)
    }

    /// A file without a name, which nobody else has.
    #[cfg(feature = "spaces")]
    pub(crate) fn of_unnamed(file: &std::fs::File) -> std::io::Result<Self> {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        Self::open_as(Path::new(&path), CacheUse::Auto, OpenMode::Read).map_err(|error| match error {
            OpenError::File { source, .. } => source,
            other => std::io::Error::other(other),
        })
    }

    fn open_as(path: &Path, cache_use: CacheUse, access: OpenMode) -> Result<Self, OpenError> {
        let refused = |source| OpenError::File { path: path.to_owned(), source };
        // Without O_NONBLOCK the opening of a FIFO waits for a writer.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let writes = access == OpenMode::ReadWrite;
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(writes).custom_flags(flags).open(path).map_err(refused)?;
        let metadata = file.metadata().map_err(refused)?;
        let kind = metadata.file_type();
        let length = if kind.is_file() {
            let told = told_length(&file).map_err(refused)?;
            told.ok_or_else(|| OpenError::LengthUntold { path: path.to_owned() })?
        } else if kind.is_block_device() {
            rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|error| refused(error.into()))?
        } else {
            return Err(OpenError::NotAFile { path: path.to_owned(), what: kind_name(kind) });
        };
        let version = FileVersion::of(&file).map_err(refused)?;
        let direct = match cache_use {
            CacheUse::Buffered => None,
            CacheUse::Auto | CacheUse::Direct if writes => open_direct_writable(path, &file),
            CacheUse::Auto | CacheUse::Direct => open_direct(path, &file),
        };
        let probe = file.try_clone().map_err(refused)?;
        let pager = Self(Arc::new(Opened {
            is_local: is_local(&file),
            buffered: ReadFile::new(file),
            goes_direct: AtomicBool::new(direct.is_some()),
            direct: direct.map(ReadFile::new),
            probe,
            version,
            length: AtomicU64::new(length),
            access,
            cache_use,
            reads: AtomicU32::new(0),
            stale: AtomicBool::new(false),
        }));
        pager.choose();
        Ok(pager)
    }

    /// Asks the host's page cache and decides how to read from now on.
    fn choose(&self) {
        if self.0.direct.is_none() || self.0.cache_use != CacheUse::Auto {
            return;
        }
        let pages = self.length().div_ceil(4096).max(1);
        let mostly_cached = cached_pages(&self.0.probe).is_some_and(|cached| cached >= pages - pages / 4);
        self.0.goes_direct.store(!mostly_cached, Ordering::Relaxed);
    }

    /// The descriptor to read from now. Counts as one read. Not for signal handlers.
    pub(crate) fn descriptor(&self) -> &ReadFile {
        if self.0.reads.fetch_add(1, Ordering::Relaxed) % ASK_EVERY == ASK_EVERY - 1 {
            self.choose();
        }
        self.current()
    }

    fn current(&self) -> &ReadFile {
        match &self.0.direct {
            Some(direct) if self.0.goes_direct.load(Ordering::Relaxed) => direct,
            _ => &self.0.buffered,
        }
    }

    /// Of a block device, whose length the system does not tell as a file's.
    fn block_length(&self) -> u64 {
        let is_device = self.0.probe.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
        if is_device { self.length() } else { 0 }
    }

    /// The descriptor for writes of whole 4 KiB pages: around the page cache where that goes, so that no page is
    /// in memory twice.
    pub(crate) fn write_descriptor(&self) -> &ReadFile {
        self.0.direct.as_ref().unwrap_or(&self.0.buffered)
    }

    /// What keeps the file from having a log beside the name `path`.
    pub(crate) fn cannot_have_a_log(&self, path: &Path) -> std::io::Result<Option<&'static str>> {
        Ok(match names(&self.0.probe)? {
            _ if !self.0.probe.metadata()?.is_file() => Some("only regular files can be committed to"),
            _ if !is_named(&self.0.probe, path) => Some("it was removed or replaced meanwhile"),
            1 => None,
            _ => Some("it has several names, and its log could be looked for beside one of them only"),
        })
    }

    /// Takes over the length that the file has now.
    pub(crate) fn look_at_length(&self) -> std::io::Result<()> {
        let length = self.0.probe.metadata()?.len().max(self.block_length());
        self.0.length.store(length, Ordering::Release);
        Ok(())
    }

    /// As the commit log wants it.
    pub(crate) fn storage(&self) -> super::storage::FileStorage {
        let role = super::storage::Role::Data;
        super::storage::FileStorage::new(self.0.buffered.clone(), self.0.direct.clone(), role)
    }

    /// Whether `bytes` are zeros that the file has already, as a hole.
    pub(crate) fn has_as_hole(&self, range: &std::ops::Range<u64>, bytes: &[u8]) -> bool {
        is_zero(bytes) && is_hole(&self.0.probe, range.clone())
    }

    /// Whether questions about the file are answered without anybody else: then the threads that serve all may ask them. A
    /// file that is followed is asked nothing.
    pub(crate) fn answers_at_once(&self) -> bool {
        self.0.is_local || self.0.access == OpenMode::Follow
    }

    /// Whether the file is still the version that was opened. Safe in a signal handler.
    pub(crate) fn is_current(&self) -> bool {
        if self.0.access != OpenMode::Read {
            return true;
        }
        if self.0.stale.load(Ordering::Relaxed) {
            return false;
        }
        let Ok(now) = FileVersion::of(&self.0.probe) else { return false };
        let same = now.is_same_bytes(&self.0.version);
        if !same {
            self.0.stale.store(true, Ordering::Relaxed);
        }
        same
    }

    /// Reads a whole 4 KiB page, or its part before the end of the file, and checks the version.
    /// Any doubt is `false`; the caller asks `supply`, which tells the reason. Safe in a signal handler.
    pub(crate) fn read_page(&self, page: &mut [u8], offset: u64) -> bool {
        let Some(left) = self.length().checked_sub(offset) else { return false };
        let wanted = left.min(page.len() as u64) as usize;
        let got = read_once(self.current().as_fd(), page, offset);
        got.is_ok_and(|got| got >= wanted) && self.is_current()
    }

    fn stale() -> SupplyError {
        SupplyError::new(ErrorKind::Stale)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let chunks = bytes.chunks_exact(16);
    chunks.remainder().iter().all(|byte| *byte == 0) && chunks.into_iter().all(|chunk| chunk == [0; 16])
}

fn kind_name(kind: std::fs::FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() => "a character device",
        () => "this kind of file",
    }
}

impl BlockingPager for File {
    fn length(&self) -> u64 {
        self.0.length.load(Ordering::Acquire)
    }

    fn is_writable(&self) -> bool {
        self.0.access == OpenMode::ReadWrite
    }

    fn write_back(&self, range: std::ops::Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        if self.0.access != OpenMode::ReadWrite {
            return Err(SupplyError::new(ErrorKind::Denied));
        }
        // Through the page cache: any length works.
        write_full(&self.0.buffered, bytes, range.start)?;
        Ok(())
    }

    fn sync(&self) -> Result<(), SupplyError> {
        sync_data(&self.0.buffered)?;
        if self.0.access == OpenMode::ReadWrite && names(&self.0.probe)? == 0 {
            let removed = std::io::Error::new(std::io::ErrorKind::NotFound, "the file has no name any more");
            return Err(SupplyError::because(ErrorKind::Stale, removed));
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> Result<(), SupplyError> {
        if self.0.access != OpenMode::ReadWrite {
            return Err(SupplyError::new(ErrorKind::Denied));
        }
        // The length of a device is what it is.
        match self.block_length() {
            0 => set_length(&self.0.probe, length)?,
            device if length == device => {}
            device if length > device => return Err(SupplyError::new(ErrorKind::NoSpace)),
            _ => return Err(SupplyError::new(ErrorKind::Denied)),
        }
        self.0.length.store(length, Ordering::Release);
        Ok(())
    }

    fn supply(&self, range: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        if !self.is_current() {
            return Err(Self::stale());
        }
        // Through the page cache: any length and alignment works, and an error is the device's own.
        let got = read_full(&self.0.buffered, buffer, range.start)?;
        if !self.is_current() {
            return Err(Self::stale());
        }
        Ok(got)
    }

    fn detach(&self) {
        // Nothing is written any more; the next opener need not wait for the last reference to go.
        if self.0.access == OpenMode::ReadWrite {
            unlock(&self.0.probe);
        }
    }
}

by_calls!([] File, |file, description| {
    let description = description.local(Local::File(file.clone()));
    match file.0.access {
        OpenMode::Read => description.version(file.0.version.to_string()),
        // Its bytes change: which file it is.
        OpenMode::ReadWrite => description.version(file.0.version.identity()),
        OpenMode::Follow => description,
    }
});

impl AsFd for File {
    /// For system calls that do not depend on how it is read.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.probe.as_fd()
    }
}
