//! A local file that is committed to: in front of it the log, which has what is newer.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use memobj_core::address::PageIndex;
use memobj_core::commit_log::{
    self, AppendError, Checkpoint, CommitInFlight, CommitLog, Finish, Kind, Options, Progress, ReadError,
    RepairError,
};
use memobj_sys::file;
use memobj_sys::ring::ReadFile;

use super::storage::{FileStorage, Role};
use super::{File, Pager};
use crate::error::{ErrorKind, OpenError, SupplyError};

const PAGE: u64 = 4096;
/// How far the log's segments grow in turn.
const CHUNK_BLOCKS: u32 = 1024;
/// From so many bytes of records on they are copied in place.
const CHECKPOINT_BYTES: u64 = 16 << 20;
const SUFFIX: &str = ".memobj-log";

type Log = CommitLog<Arc<FileStorage>>;

/// See the module.
///
/// Locks: `turn` orders all that appends or begins or ends a checkpoint; `log` is held for as long as the index is
/// looked at or changed, and during reads. `turn` comes first.
#[derive(Debug)]
pub(crate) struct Logged {
    /// Has the lock.
    file: File,
    data: Arc<FileStorage>,
    records: Arc<FileStorage>,
    log: RwLock<Log>,
    turn: Mutex<()>,
    path: PathBuf,
    /// Bytes, with changes that are not committed.
    length: AtomicU64,
    checkpointing: AtomicBool,
    /// A running checkpoint is to stop.
    ending: AtomicBool,
    ended: AtomicBool,
    /// Pages whose newest bytes are in the log, not committed.
    spilled: Mutex<BTreeSet<u64>>,
}

/// A commit that is under way.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    logged: &'a Logged,
    flight: CommitInFlight<Arc<FileStorage>>,
    _turn: MutexGuard<'a, ()>,
}

impl Commit<'_> {
    /// Makes it durable, by one write and one sync.
    pub(crate) fn finish(mut self) -> Result<(), SupplyError> {
        self.flight.write(&self.logged.records);
        self.logged.write().finish_commit(self.flight).map_err(append_error)?;
        self.logged.spilled().clear();
        Ok(())
    }
}

/// Where the log of the file at `path` is.
pub(crate) fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

impl Logged {
    /// Opens `path` and its log; puts in place what an earlier process committed and could not copy any more.
    pub(crate) fn open(path: &Path, lock_timeout: Duration) -> Result<Self, OpenError> {
        let refused = |source| OpenError::File { path: path.to_owned(), source };
        let path = &std::fs::canonicalize(path).map_err(refused)?;
        let file = File::open_writable(path, lock_timeout)?;
        if file.has_other_names().map_err(refused)? {
            let why = "it has several names, and its log could be looked for beside one of them only";
            return Err(OpenError::NotWritable { object: path.display().to_string(), why });
        }
        let data = Arc::new(file.storage());
        let identity = file::identity(&*data).map_err(refused)?;
        let log_path = log_path(path);
        let (log, records) = open_log(&log_path, &data, identity)
            .map_err(|source| OpenError::Log { path: log_path.clone(), source })?;
        let length = log.committed_length();
        Ok(Self {
            file,
            data,
            records,
            log: RwLock::new(log),
            turn: Mutex::default(),
            path: log_path,
            length: AtomicU64::new(length),
            checkpointing: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            spilled: Mutex::default(),
        })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Log> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to commit `pages`, whose bytes `image` fills in, with all that was spilled, and the length. When it
    /// returns all images are taken and nothing had to be waited for but room.
    pub(crate) fn begin_commit(
        &self,
        pages: &[PageIndex],
        image: impl FnMut(PageIndex, &mut [u8]),
    ) -> Result<Commit<'_>, SupplyError> {
        let turn = self.turn();
        self.mend()?;
        let flight = self.write().begin_commit(pages, self.length(), image).map_err(append_error)?;
        Ok(Commit { logged: self, flight, _turn: turn })
    }

    /// After a failure the log has to be made sound first.
    fn mend(&self) -> Result<(), SupplyError> {
        if !self.read().needs_repair() {
            return Ok(());
        }
        // No step of a checkpoint may run meanwhile.
        self.ending.store(true, Ordering::Release);
        while self.checkpointing.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        self.ending.store(false, Ordering::Release);
        self.write().repair().map_err(repair_error)
    }

    /// Whether nothing was changed since the last commit, as far as the log knows.
    pub(crate) fn has_uncommitted(&self) -> bool {
        let log = self.read();
        log.logged_pages().1 > 0 || log.committed_length() != self.length()
    }

    fn spilled(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.spilled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what was spilled since the last commit, and goes back to its length. Returns the pages and the length.
    pub(crate) fn abandon(&self) -> (BTreeSet<u64>, u64) {
        let _turn = self.turn();
        let mut log = self.write();
        log.abandon();
        let length = log.committed_length();
        self.length.store(length, Ordering::Release);
        (std::mem::take(&mut *self.spilled()), length)
    }

    /// Whether the log is long enough to be copied in place, and nobody is at it.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        !self.checkpointing.load(Ordering::Acquire) && self.read().active_bytes() >= CHECKPOINT_BYTES
    }

    /// Copies what is committed in place, so that the log can be used anew. Commits go on meanwhile.
    pub(crate) fn checkpoint(&self) -> Result<(), SupplyError> {
        if self.checkpointing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let done = self.run_checkpoint();
        self.checkpointing.store(false, Ordering::Release);
        done
    }

    fn run_checkpoint(&self) -> Result<(), SupplyError> {
        let begun = {
            let _turn = self.turn();
            self.write().begin_checkpoint().map_err(to_error)?
        };
        let Some(mut plan) = begun else { return Ok(()) };
        let stepped = self.step_to_the_end(&mut plan);
        if !matches!(stepped, Ok(Finish::Released)) {
            let _turn = self.turn();
            self.write().cancel_checkpoint(plan);
        }
        stepped.map(|_| ())
    }

    fn step_to_the_end(&self, plan: &mut Checkpoint) -> Result<Finish, SupplyError> {
        loop {
            while plan.step(&self.records, &self.data).map_err(to_error)? == Progress::More {
                if self.ending.load(Ordering::Acquire) {
                    return Ok(Finish::Again);
                }
            }
            let _turn = self.turn();
            if self.write().finish_checkpoint(plan).map_err(to_error)? == Finish::Released {
                return Ok(Finish::Released);
            }
        }
    }

    /// Puts everything in place, and lets the next opener have the file. What cannot be put in place now is in the
    /// log, for that opener.
    fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.ending.store(true, Ordering::Release);
            let _ = self.settle();
            self.file.detach();
        }
    }

    /// Puts everything in place and removes the log, so that the file is whole by itself.
    fn settle(&self) -> Result<(), SupplyError> {
        while self.checkpointing.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        self.ending.store(false, Ordering::Release);
        self.abandon();
        self.mend()?;
        // A second round takes what was committed to the other segment during the first.
        for _ in 0..2 {
            self.checkpoint()?;
        }
        if self.read().logged_pages() != (0, 0) {
            return Ok(());
        }
        std::fs::remove_file(&self.path)?;
        if let Some(folder) = self.path.parent() {
            file::sync_folder(folder)?;
        }
        Ok(())
    }
}

/// Opens the log at `path`, or makes one: under another name first, since half of a log is none.
fn open_log(path: &Path, data: &Arc<FileStorage>, identity: [u8; 16]) -> io::Result<(Log, Arc<FileStorage>)> {
    let salt = u64::from_le_bytes(random_bytes()?);
    if path.exists() {
        let records = log_storage(path)?;
        let log = CommitLog::open(Arc::clone(&records), Arc::clone(data), identity, salt);
        return Ok((log.map_err(open_error)?, records));
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let _ = std::fs::remove_file(&fresh);
    let records = log_storage(&fresh)?;
    let options = Options { identity, salt, chunk_blocks: CHUNK_BLOCKS };
    let log =
        CommitLog::create(Arc::clone(&records), Arc::clone(data), options).map_err(|error| error.error)?;
    std::fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        file::sync_folder(folder)?;
    }
    Ok((log, records))
}

fn log_storage(path: &Path) -> io::Result<Arc<FileStorage>> {
    let (buffered, direct) = file::open_beside(path)?;
    let direct = direct.map(ReadFile::new);
    Ok(Arc::new(FileStorage::new(ReadFile::new(buffered), direct, Role::Log)))
}

fn random_bytes() -> io::Result<[u8; 8]> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}

/// If a log lies beside the file at `path`, puts in place what it holds: whoever reads the file without the log would
/// read half of a commit, or none.
pub(crate) fn recover(path: &Path) -> Result<(), OpenError> {
    let Ok(whole) = std::fs::canonicalize(path) else { return Ok(()) };
    if !log_path(&whole).exists() {
        return Ok(());
    }
    let logged = Logged::open(&whole, Duration::ZERO)?;
    logged
        .settle()
        .map_err(|error| OpenError::Log { path: logged.path.clone(), source: io::Error::other(error) })
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.end();
    }
}

impl Pager for Logged {
    fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        let log = self.read();
        let pages = (range.start / PAGE..).map(PageIndex);
        let mut whole = [0; PAGE as usize];
        for (page, into) in pages.zip(buffer.chunks_mut(PAGE as usize)) {
            if into.len() == PAGE as usize {
                log.read_page(page, into).map_err(read_error)?;
            } else {
                log.read_page(page, &mut whole).map_err(read_error)?;
                into.copy_from_slice(&whole[..into.len()]);
            }
        }
        Ok(buffer.len())
    }

    fn is_writable(&self) -> bool {
        true
    }

    /// Puts the pages away in the log: they are committed with the next commit, or never.
    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        let _turn = self.turn();
        self.mend()?;
        let pages: Vec<PageIndex> = (range.start / PAGE..range.end.div_ceil(PAGE)).map(PageIndex).collect();
        let first = range.start / PAGE;
        let image = |page: PageIndex, into: &mut [u8]| {
            let at = ((page.0 - first) * PAGE) as usize;
            let part = &bytes[at..bytes.len().min(at + PAGE as usize)];
            into[..part.len()].copy_from_slice(part);
            into[part.len()..].fill(0);
        };
        self.spilled().extend(pages.iter().map(|page| page.0));
        self.write().append(&pages, Kind::Spill, image).map_err(append_error)
    }

    /// Nothing of it is durable before a commit, which the engine asks for by another way.
    fn sync(&self) -> Result<(), SupplyError> {
        Ok(())
    }

    /// Until the next commit the length is a wish like all other changes.
    fn set_length(&self, length: u64) -> Result<(), SupplyError> {
        let _turn = self.turn();
        self.mend()?;
        if length < self.length() {
            self.write().truncate(length).map_err(append_error)?;
        }
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    /// Blocks while what is committed is copied in place.
    fn detach(&self) {
        self.end();
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn append_error(error: AppendError<io::Error>) -> SupplyError {
    let kind = match &error {
        AppendError::Full => ErrorKind::NoSpace,
        AppendError::Refused(failure) | AppendError::Failed(failure) if is_full(&failure.error) => {
            ErrorKind::NoSpace
        }
        AppendError::Unread(ReadError::Lost { .. }) => ErrorKind::Integrity,
        _ => ErrorKind::Io,
    };
    SupplyError::because(kind, error)
}

fn read_error(error: ReadError<io::Error>) -> SupplyError {
    match error {
        ReadError::Lost { .. } => SupplyError::because(ErrorKind::Integrity, error),
        _ => SupplyError::because(ErrorKind::Io, error),
    }
}

fn repair_error(error: RepairError<io::Error>) -> SupplyError {
    match &error {
        RepairError::Lost { .. } => SupplyError::because(ErrorKind::Integrity, error),
        RepairError::Storage(failure) if is_full(&failure.error) => {
            SupplyError::because(ErrorKind::NoSpace, error)
        }
        _ => SupplyError::because(ErrorKind::Io, error),
    }
}

fn to_error(error: impl std::error::Error + Send + Sync + 'static) -> SupplyError {
    SupplyError::because(ErrorKind::Io, error)
}

fn open_error(error: commit_log::OpenError<io::Error>) -> io::Error {
    match error {
        commit_log::OpenError::Storage(failure) => failure.error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
