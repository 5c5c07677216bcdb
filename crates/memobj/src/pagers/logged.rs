//! A local file that is committed to: in front of it the log, which has what is newer.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memobj_core::address::PageIndex;
use memobj_linux::file;
use memobj_log::{
    AppendError, Checkpoint, CheckpointError, CommitInFlight, Finish, Kind, Progress, ReadError, RepairError,
    StepError,
};

use super::log_file::{Log, log_path, open_log};
use super::storage::FileStorage;
use super::{BlockingPager, File, by_calls};
use crate::error::{ErrorKind, OpenError, SupplyError, kind_of};
use crate::locks::{Guard, Rank, RankedMutex, RankedRwLock, ReadGuard, WriteGuard};
use crate::metrics::Timed;
use crate::options::CacheUse;

const PAGE: u64 = 4096;
/// From so many bytes of records on they are copied in place.
const CHECKPOINT_BYTES: u64 = 16 << 20;

/// See the module.
///
/// Locks, in this order: `copying` is held by whoever copies in place, repairs or ends; `turn` orders all that
/// appends or begins or ends a checkpoint, and is held during repair too; `log` is held for as long as the index is
/// looked at or changed, and during reads.
///
/// It does not end by itself when it is dropped: in a child of fork the log and its lock are the parent's.
#[derive(Debug)]
pub(crate) struct Logged {
    /// Has the lock.
    file: File,
    data: Arc<FileStorage>,
    records: Arc<FileStorage>,
    log: RankedRwLock<Log>,
    copying: RankedMutex<()>,
    turn: RankedMutex<()>,
    path: PathBuf,
    /// Bytes, with changes that are not committed.
    length: AtomicU64,
    /// So many wait for a running checkpoint to stop.
    stoppers: AtomicU32,
    /// Nothing is appended any more: the next opener may have the log. Changed with `copying` and `turn` held.
    ended: AtomicBool,
    /// Pages whose newest bytes are in the log, not committed.
    spilled: RankedMutex<BTreeSet<u64>>,
    /// The shortest length since the last commit: what lay behind it has other bytes than it had then.
    shortest: AtomicU64,
    /// Those that had something to copy.
    pub(crate) checkpoints: Timed,
}

/// A commit that is under way.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    logged: &'a Logged,
    flight: Option<CommitInFlight<Arc<FileStorage>>>,
    _turn: Guard<'a, ()>,
}

impl Commit<'_> {
    /// Makes it durable, by one write and one sync.
    pub(crate) fn finish(mut self) -> Result<(), SupplyError> {
        if let Some(flight) = &mut self.flight {
            flight.write(&self.logged.records);
        }
        self.give_back()?;
        self.logged.spilled().clear();
        self.logged.shortest.store(self.logged.read().committed_length(), Ordering::Release);
        Ok(())
    }

    fn give_back(&mut self) -> Result<(), SupplyError> {
        match self.flight.take() {
            Some(flight) => self.logged.write().finish_commit(flight).map_err(append_error),
            None => Ok(()),
        }
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        // Not finished, by a panic: the log takes it for one that failed.
        let _ = self.give_back();
    }
}

impl Logged {
    /// Opens `path` and its log; puts in place what an earlier process committed and could not copy any more.
    pub(crate) fn open(path: &Path, lock_timeout: Duration, cache_use: CacheUse) -> Result<Self, OpenError> {
        let refused = |source| OpenError::File { path: path.to_owned(), source };
        let path = &std::fs::canonicalize(path).map_err(refused)?;
        let file = File::open_locked(path, lock_timeout, cache_use)?;
        if let Some(why) = file.cannot_have_a_log(path).map_err(refused)? {
            return Err(OpenError::NotWritable { object: path.display().to_string(), why });
        }
        Self::of(file, path)
    }

    /// The log of `file`, which is locked and has the name `path`.
    pub(super) fn of(file: File, path: &Path) -> Result<Self, OpenError> {
        let data = Arc::new(file.storage());
        let path = log_path(path);
        let (log, records) =
            open_log(&path, &data).map_err(|source| OpenError::Log { path: path.clone(), source })?;
        let length = log.committed_length();
        Ok(Self {
            file,
            data,
            records,
            log: RankedRwLock::new(Rank::Log, log),
            copying: RankedMutex::new(Rank::Checkpoint, ()),
            turn: RankedMutex::new(Rank::LogTurn, ()),
            path,
            length: AtomicU64::new(length),
            stoppers: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            spilled: RankedMutex::new(Rank::Spilled, BTreeSet::new()),
            shortest: AtomicU64::new(length),
            checkpoints: Timed::default(),
        })
    }

    /// The right to append, to a log that is sound.
    fn sound(&self) -> Result<Guard<'_, ()>, SupplyError> {
        loop {
            let turn = self.turn();
            if self.ended.load(Ordering::Acquire) {
                return Err(SupplyError::new(ErrorKind::Detached));
            }
            if !self.read().needs_repair() {
                return Ok(turn);
            }
            // No step of a checkpoint may run during repair, and a checkpoint that ends needs the turn.
            if let Some(_alone) = self.try_alone() {
                self.write().repair().map_err(repair_error)?;
                return Ok(turn);
            }
            drop(turn);
            drop(self.alone());
        }
    }

    fn try_alone(&self) -> Option<Guard<'_, ()>> {
        self.copying.try_lock()
    }

    /// Stops a running checkpoint, and keeps others away.
    fn alone(&self) -> Guard<'_, ()> {
        self.stoppers.fetch_add(1, Ordering::AcqRel);
        let alone = self.copying.lock();
        self.stoppers.fetch_sub(1, Ordering::AcqRel);
        alone
    }

    fn must_stop(&self) -> bool {
        self.stoppers.load(Ordering::Acquire) > 0 && !self.ended.load(Ordering::Acquire)
    }

    fn turn(&self) -> Guard<'_, ()> {
        self.turn.lock()
    }

    fn read(&self) -> ReadGuard<'_, Log> {
        self.log.read()
    }

    fn write(&self) -> WriteGuard<'_, Log> {
        self.log.write()
    }

    /// Begins to commit `pages`, whose bytes `image` fills in, with all that was spilled, and the length. When it
    /// returns all images are taken and nothing had to be waited for but room.
    pub(crate) fn begin_commit(
        &self,
        pages: &[PageIndex],
        image: impl FnMut(PageIndex, &mut [u8]),
    ) -> Result<Commit<'_>, SupplyError> {
        let turn = self.sound()?;
        self.check_name()?;
        let begun = self.write().begin_commit(pages, self.length(), image);
        if begun.is_err() {
            // Some of them may be in the log.
            self.spilled().extend(pages.iter().map(|page| page.0));
        }
        Ok(Commit { logged: self, flight: Some(begun.map_err(append_error)?), _turn: turn })
    }

    /// Whether there is something to commit, as far as the log knows: changes, or a commit that failed and must be
    /// known not to have happened.
    pub(crate) fn has_uncommitted(&self) -> bool {
        let log = self.read();
        log.needs_repair() || log.logged_pages().1 > 0 || log.committed_length() != self.length()
    }

    fn spilled(&self) -> Guard<'_, BTreeSet<u64>> {
        self.spilled.lock()
    }

    /// Drops what was spilled since the last commit, and goes back to its length. Returns the pages and the length.
    pub(crate) fn abandon(&self) -> (BTreeSet<u64>, u64) {
        let _turn = self.turn();
        let mut log = self.write();
        log.abandon();
        let length = log.committed_length();
        self.length.store(length, Ordering::Release);
        self.shortest.store(length, Ordering::Release);
        (std::mem::take(&mut *self.spilled()), length)
    }

    /// Pages whose newest bytes may be in the log without being committed; and the first page from which on none
    /// need have the bytes that were committed.
    pub(crate) fn uncommitted(&self) -> (BTreeSet<u64>, u64) {
        let shortest = self.shortest.load(Ordering::Acquire);
        // A page that is cut in the middle has zeros behind the cut.
        let is_cut = shortest < self.read().committed_length();
        let page = if is_cut { shortest / PAGE } else { shortest.div_ceil(PAGE) };
        (self.spilled().clone(), page)
    }

    /// Whether the log is long enough to be copied in place, and nobody is at it.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.read().active_bytes() >= CHECKPOINT_BYTES && self.try_alone().is_some()
    }

    /// Copies what is committed in place, so that the log can be used anew. Commits go on meanwhile.
    pub(crate) fn checkpoint(&self) -> Result<(), SupplyError> {
        match self.try_alone() {
            Some(_alone) if !self.ended.load(Ordering::Acquire) => self.run_checkpoint().map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Copies all that is committed now in place, and returns when the file has it, durably. Waits for a checkpoint
    /// that is running, and then runs its own until a header in the log says that nothing is left to copy. Commits of
    /// others go on meanwhile.
    pub(crate) fn put_in_place(&self) -> Result<(), SupplyError> {
        let committed = {
            let _turn = self.sound()?;
            self.read().next_sequence()
        };
        loop {
            let alone = self.copying.lock();
            if self.ended.load(Ordering::Acquire) {
                return Err(SupplyError::new(ErrorKind::Detached));
            }
            {
                // A commit or a checkpoint of somebody else can have failed since.
                let _turn = self.turn();
                self.write().repair().map_err(repair_error)?;
            }
            // One round copies one segment. A round can also be stopped, by a thread that has to repair the log.
            if self.run_checkpoint()? == Finish::Released && self.read().has_settled(committed) {
                return self.check_name();
            }
            drop(alone);
            while self.stoppers.load(Ordering::Acquire) > 0 {
                std::thread::yield_now();
            }
        }
    }

    /// With `copying` held. `Released` if it came to the end, or there was nothing to copy.
    fn run_checkpoint(&self) -> Result<Finish, SupplyError> {
        let begun = {
            let _turn = self.turn();
            self.write().begin_checkpoint().map_err(checkpoint_error)?
        };
        let Some(mut plan) = begun else { return Ok(Finish::Released) };
        let begun = Instant::now();
        let stepped = self.step_to_the_end(&mut plan);
        self.checkpoints.add(begun.elapsed());
        if !matches!(stepped, Ok(Finish::Released)) {
            self.write().cancel_checkpoint(plan);
        }
        stepped
    }

    fn step_to_the_end(&self, plan: &mut Checkpoint) -> Result<Finish, SupplyError> {
        loop {
            while plan.step(&self.records, &self.data).map_err(step_error)? == Progress::More {
                if self.must_stop() {
                    return Ok(Finish::Again);
                }
            }
            let _turn = self.turn();
            if self.write().finish_checkpoint(plan).map_err(checkpoint_error)? == Finish::Released {
                return Ok(Finish::Released);
            }
        }
    }

    /// Whether somebody copies in place, or repairs.
    pub(crate) fn is_copying(&self) -> bool {
        self.try_alone().is_none()
    }

    /// `Stale` if the file has no name any more: nobody will find what is written to it.
    fn check_name(&self) -> Result<(), SupplyError> {
        if file::names(&*self.data)? > 0 {
            return Ok(());
        }
        let removed = io::Error::new(io::ErrorKind::NotFound, "the file has no name any more");
        Err(SupplyError::because(ErrorKind::Stale, removed))
    }

    /// Puts everything in place, and lets the next opener have the file. What cannot be put in place now is in the
    /// log, for that opener.
    pub(super) fn end(&self) -> Result<(), SupplyError> {
        let _alone = self.alone();
        {
            let _turn = self.turn();
            if self.ended.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
        }
        self.settle()
    }

    /// Puts everything in place and removes the log, so that the file is whole by itself. Nobody else appends any
    /// more, and nobody copies.
    fn settle(&self) -> Result<(), SupplyError> {
        self.abandon();
        self.write().repair().map_err(repair_error)?;
        // A second round takes what was committed to the other segment during the first.
        for _ in 0..2 {
            self.run_checkpoint()?;
        }
        // A log that stays is empty, and does no harm.
        if self.read().logged_pages() == (0, 0) && file::is_named(&*self.records, &self.path) {
            let _ = std::fs::remove_file(&self.path);
            if let Some(folder) = self.path.parent() {
                let _ = file::sync_folder(folder);
            }
        }
        Ok(())
    }
}

impl BlockingPager for Logged {
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
        let _turn = self.sound()?;
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

    /// Until the next commit the length can still be dropped, like all other changes.
    fn set_length(&self, length: u64) -> Result<(), SupplyError> {
        let _turn = self.sound()?;
        if length < self.length() {
            self.write().truncate(length).map_err(append_error)?;
            self.shortest.fetch_min(length, Ordering::AcqRel);
        }
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    /// Blocks while what is committed is copied in place.
    fn detach(&self) {
        let _ = self.end();
        self.file.detach();
    }
}

by_calls!(Logged);

fn is_full(error: &io::Error) -> bool {
    kind_of(error) == ErrorKind::NoSpace
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

/// What was committed could not be copied in place.
fn checkpoint_error(error: CheckpointError<io::Error>) -> SupplyError {
    let kind = match &error {
        CheckpointError::Full => ErrorKind::NoSpace,
        CheckpointError::Refused(failure) | CheckpointError::Failed(failure) if is_full(&failure.error) => {
            ErrorKind::NoSpace
        }
        CheckpointError::Unread(ReadError::Lost { .. }) => ErrorKind::Integrity,
        _ => ErrorKind::Io,
    };
    SupplyError::because(kind, error)
}

/// As above.
fn step_error(error: StepError<io::Error>) -> SupplyError {
    let kind = match &error {
        StepError::Storage(failure) if is_full(&failure.error) => ErrorKind::NoSpace,
        StepError::Lost { .. } => ErrorKind::Integrity,
        _ => ErrorKind::Io,
    };
    SupplyError::because(kind, error)
}

#[cfg(test)]
mod tests;
