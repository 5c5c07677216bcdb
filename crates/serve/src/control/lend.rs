//! Files whose frames are lent to clients: one object for each file and kind of mapping, kept warm between borrowers.
//!
//! ```text
//!   lent      a client borrows it, or did a while ago: its frames stay within the budget of the cache
//!   leased    nobody can change the file before the server gives its lease back; a writer ends the object first
//!   watched   where there is no lease: the file's version is compared each time the object is borrowed. A file that was
//!             changed moments ago is lent, and not kept: a second change could look like the first
//! ```
//!
//! A borrower holds the file still for itself while it maps frames (`memobj run` does). The lease of the server is for the
//! time between: frames that were filled before are those of the file as it is now.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use memobj::pagers::{self, Pager};
use memobj::{Cache, FailurePolicy, FrameSize, FrameVisibility, LentFrames, ObjectOptions};
use memobj_linux::file::FileVersion;
use memobj_linux::lease::{self, BreakNews, BreakReader, News};

use super::locked;
use super::quota::{Counter, OF_OBJECT, Share};
use super::refusal::{Kind, Refusal};

/// How often it is looked which files nobody borrows any more.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a file stays open that nobody borrows.
const IDLE_TIME: Duration = Duration::from_secs(3600);
/// How many files stay open that nobody borrows. The oldest go first.
const MOST_IDLE: usize = 1024;
/// A file that was changed less than this before it was opened is not kept, if it has no lease.
const YOUNG: Duration = Duration::from_secs(2);

/// To whom frames are lent. Who borrows frames is trusted by all who borrow the same: `docs/serve.md` says with what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lend {
    /// To no client.
    #[default]
    Nobody,
    /// To the user of the server, and root.
    Owner,
    /// To all clients that may connect.
    Allowed,
}

impl Lend {
    /// Whether a client of this user may borrow.
    pub(super) fn to(self, user: u32) -> bool {
        match self {
            Self::Nobody => false,
            Self::Owner => user == 0 || user == rustix::process::geteuid().as_raw(),
            Self::Allowed => true,
        }
    }
}

/// Makes the pager that supplies a lent file of the pager of the file, which has this path.
#[derive(Clone)]
pub struct LentPager(Arc<WrapPager>);

type WrapPager = dyn Fn(&Path, Box<dyn Pager>) -> Box<dyn Pager> + Send + Sync;

impl LentPager {
    /// By this function.
    pub fn new(wrap: impl Fn(&Path, Box<dyn Pager>) -> Box<dyn Pager> + Send + Sync + 'static) -> Self {
        Self(Arc::new(wrap))
    }
}

impl Default for LentPager {
    /// The pager of the file.
    fn default() -> Self {
        Self::new(|_, pager| pager)
    }
}

impl fmt::Debug for LentPager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentPager").finish_non_exhaustive()
    }
}

/// What a borrower does with the frames. A file that is mapped in both ways has two files of frames, so that the borrower
/// can tell by the frames which it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Sharing {
    Private,
    Shared,
}

/// A file, by device and number, and how it is mapped.
type Key = (u64, u64, Sharing);

/// A file whose frames are lent.
#[derive(Debug)]
pub(super) struct LentFile {
    pub(super) lent: LentFrames,
    file: Arc<pagers::File>,
    version: FileVersion,
    keep: Keep,
    /// Counts sessions that borrow it.
    borrowers: AtomicU64,
    idle_since: Mutex<Option<Instant>>,
    _descriptors: Share,
}

/// What tells that the frames are those of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keep {
    /// A lease.
    Leased,
    /// The version of the file.
    Watched,
    /// Nothing: the file is too young.
    No,
}

impl LentFile {
    /// Whether its frames, whenever they were filled, have the bytes of the file as it is now.
    fn is_current(&self) -> bool {
        match self.keep {
            Keep::Leased => lease::is_held(&*self.file),
            Keep::Watched => {
                FileVersion::of(&*self.file).is_ok_and(|version| version.is_same_bytes(&self.version))
            }
            Keep::No => false,
        }
    }

    /// Whether it was opened of the same file that `new` has just been opened of. Does not wait for the file system.
    fn is_as_good_as(&self, new: &LentFile) -> bool {
        match self.keep {
            Keep::Leased => lease::is_held(&*self.file),
            Keep::Watched => new.version.is_same_bytes(&self.version),
            Keep::No => false,
        }
    }

    /// Whether its file has no name any more, as far as the kernel knows without asking anybody.
    fn is_removed(&self) -> bool {
        use rustix::fs::{AtFlags, StatxFlags, statx};
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        statx(&*self.file, "", flags, StatxFlags::NLINK).is_ok_and(|now| now.stx_nlink == 0)
    }

    /// Lets whoever waits to change the file go on.
    fn give_way(&self) {
        if self.keep == Keep::Leased {
            lease::give_back(&*self.file);
        }
    }
}

impl Drop for LentFile {
    fn drop(&mut self) {
        // Reads that are under way may keep the file open longer.
        self.give_way();
    }
}

/// One loan of a file, of one session.
#[derive(Debug)]
pub(super) struct Loan(Arc<LentFile>);

impl Loan {
    fn new(file: Arc<LentFile>) -> Self {
        if file.borrowers.fetch_add(1, Ordering::AcqRel) == 0 {
            // Pages that have failed for earlier borrowers are tried again.
            file.lent.retry(0..file.lent.len());
        }
        Self(file)
    }
}

impl std::ops::Deref for Loan {
    type Target = LentFile;

    fn deref(&self) -> &LentFile {
        &self.0
    }
}

impl AsFd for Loan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.lent.file()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.0.borrowers.fetch_sub(1, Ordering::AcqRel) == 1 {
            *locked(&self.0.idle_since) = Some(Instant::now());
        }
    }
}

/// What is lent now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LendCounts {
    /// Files that are lent, or stay open for the next borrower.
    pub(super) files: u64,
    /// Loans that were made.
    pub(super) loans: u64,
    /// Loans of files that were open already.
    pub(super) warm_loans: u64,
}

/// See the module.
pub(super) struct Lender {
    cache: Cache,
    policy: FailurePolicy,
    wrap: LentPager,
    descriptors: (Counter, u64),
    files: Mutex<BTreeMap<Key, Arc<LentFile>>>,
    guard: OnceLock<Option<Guard>>,
    loans: AtomicU64,
    warm_loans: AtomicU64,
    this: Weak<Self>,
}

impl Lender {
    pub(super) fn new(
        cache: Cache,
        policy: FailurePolicy,
        wrap: LentPager,
        descriptors: (Counter, u64),
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            cache,
            policy,
            wrap,
            descriptors,
            files: Mutex::default(),
            guard: OnceLock::new(),
            loans: AtomicU64::new(0),
            warm_loans: AtomicU64::new(0),
            this: this.clone(),
        })
    }

    pub(super) fn counts(&self) -> LendCounts {
        LendCounts {
            files: self.files().len() as u64,
            loans: self.loans.load(Ordering::Relaxed),
            warm_loans: self.warm_loans.load(Ordering::Relaxed),
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<LentFile>>> {
        locked(&self.files)
    }

    /// Lends the frames of the file that `file`, which the client may read, is open of.
    pub(super) fn lend(&self, file: &impl AsFd, sharing: Sharing) -> Result<Loan, Refusal> {
        let stat =
            rustix::fs::fstat(file).map_err(|error| Refusal::system("look at a file", &error.into()))?;
        let key = (stat.st_dev, stat.st_ino, sharing);
        self.loans.fetch_add(1, Ordering::Relaxed);
        if let Some(known) = self.current(key) {
            self.warm_loans.fetch_add(1, Ordering::Relaxed);
            return Ok(Loan::new(known));
        }
        let new = Arc::new(self.make(file)?);
        if new.keep == Keep::No {
            return Ok(Loan::new(new));
        }
        let mut files = self.files();
        // Somebody may have been faster.
        let known = files.get(&key).filter(|known| known.is_as_good_as(&new)).cloned();
        let before = if known.is_none() { files.insert(key, Arc::clone(&new)) } else { None };
        drop(files);
        drop(before);
        Ok(Loan::new(known.unwrap_or(new)))
    }

    /// What is known of the file, if that is the file as it is now.
    fn current(&self, key: Key) -> Option<Arc<LentFile>> {
        let known = self.files().get(&key).cloned()?;
        // A question to the file system of the file, which may take its time.
        if known.is_current() {
            return Some(known);
        }
        let mut files = self.files();
        let is_same = files.get(&key).is_some_and(|now| Arc::ptr_eq(now, &known));
        let changed = if is_same { files.remove(&key) } else { None };
        drop(files);
        drop(changed);
        None
    }

    fn make(&self, file: &impl AsFd) -> Result<LentFile, Refusal> {
        let descriptors = self.take_descriptors()?;
        let failed = |error: io::Error| Refusal::system("open a file", &error);
        // Of its own: a lease belongs to an open file description.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()));
        let opened = File::open(&path).map_err(failed)?;
        let name = std::fs::read_link(&path).unwrap_or(path);
        let is_leased = self.reader().is_some_and(|reader| lease::take(&opened, reader).is_ok());
        // Asked for now: with a lease it does not change from here on.
        let version = FileVersion::of(&opened).map_err(failed)?;
        let keep = match is_leased {
            true => Keep::Leased,
            false if is_young(&opened) => Keep::No,
            false => Keep::Watched,
        };
        let source = Arc::new(pagers::File::follow(opened).map_err(failed)?);
        let lent = self.lent(&name, Arc::clone(&source))?;
        let (borrowers, idle_since) = (AtomicU64::new(0), Mutex::new(None));
        Ok(LentFile { lent, file: source, version, keep, borrowers, idle_since, _descriptors: descriptors })
    }

    fn lent(&self, path: &Path, source: Arc<pagers::File>) -> Result<LentFrames, Refusal> {
        let options = ObjectOptions::new()
            .frames(FrameSize::Small)
            .visibility(FrameVisibility::Shared)
            .policy(self.policy);
        let name = object_name(path);
        let pager = (self.wrap.0)(path, Box::new(source));
        let refused = |error: &dyn std::error::Error| Refusal::new(Kind::Open, error.to_string());
        let object = self.cache.object(&name, pager, options).map_err(|error| refused(&error))?;
        object.lend_frames().map_err(|error| refused(&error))
    }

    /// What an object takes. Files that nobody borrows make room.
    fn take_descriptors(&self) -> Result<Share, Refusal> {
        let (counter, most) = &self.descriptors;
        loop {
            if let Some(share) = counter.take(OF_OBJECT, *most) {
                return Ok(share);
            }
            if !self.close_idle(|idle| idle.iter().min_by_key(|(_, since)| *since).into_iter().collect()) {
                return Err(Refusal::quota("descriptors", *most));
            }
        }
    }

    /// Closes those of the idle files that `choose` chooses. Returns whether there were any.
    fn close_idle(&self, choose: impl FnOnce(&[(Key, Instant)]) -> Vec<&(Key, Instant)>) -> bool {
        let mut files = self.files();
        let idle: Vec<(Key, Instant)> = files
            .iter()
            // Nobody else can come by it while the table is locked.
            .filter(|(_, file)| Arc::strong_count(file) == 1)
            .filter_map(|(key, file)| Some((*key, (*locked(&file.idle_since))?)))
            .collect();
        let chosen = choose(&idle);
        let closed: Vec<_> = chosen.iter().filter_map(|(key, _)| files.remove(key)).collect();
        drop(files);
        !closed.is_empty()
    }

    /// Closes what nobody has borrowed for long, what is too many, and what has no name any more.
    fn sweep(&self) {
        let removed: Vec<Key> =
            self.files().iter().filter(|(_, file)| file.is_removed()).map(|(key, _)| *key).collect();
        self.close_idle(|idle| {
            let mut by_age: Vec<&(Key, Instant)> = idle.iter().collect();
            by_age.sort_unstable_by_key(|(_, since)| *since);
            let too_many = by_age.len().saturating_sub(MOST_IDLE);
            let chosen = by_age.iter().enumerate().filter(|(at, (key, since))| {
                *at < too_many || since.elapsed() > IDLE_TIME || removed.contains(key)
            });
            chosen.map(|(_, file)| *file).collect()
        });
    }

    /// A lease is to be broken: nobody borrows what it was of any more, and the writer goes on.
    fn broken(&self, is_it: impl Fn(&LentFile) -> bool) {
        let mut files = self.files();
        let is_broken =
            |file: &LentFile| file.keep == Keep::Leased && is_it(file) && !lease::is_held(&*file.file);
        let keys: Vec<Key> = files.iter().filter(|(_, file)| is_broken(file)).map(|(key, _)| *key).collect();
        let broken: Vec<_> = keys.iter().filter_map(|key| files.remove(key)).collect();
        drop(files);
        broken.iter().for_each(|file| file.give_way());
    }

    /// A client is about to let the file of `loan` change.
    pub(super) fn forget(&self, loan: &Loan) {
        let mut files = self.files();
        let key = files.iter().find(|(_, file)| Arc::ptr_eq(file, &loan.0)).map(|(key, _)| *key);
        let forgotten = key.and_then(|key| files.remove(&key));
        drop(files);
        loan.give_way();
        drop(forgotten);
    }

    /// Where leases tell of themselves. `None`: no thread can be started.
    fn reader(&self) -> Option<BreakReader> {
        let started = self.guard.get_or_init(|| Guard::start(self.this.clone()));
        started.as_ref().map(|guard| guard.reader)
    }
}

/// The name of the object of a file: its path, with backslashes doubled, and bytes that are not UTF-8 as `\xff`, so that
/// whoever reads the name has the path.
pub fn object_name(path: &Path) -> String {
    let mut name = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        name.push_str(&chunk.valid().replace('\\', "\\\\"));
        chunk.invalid().iter().for_each(|byte| name.push_str(&format!("\\x{byte:02x}")));
    }
    name
}

/// Whether a change after now could leave the file with the same version.
fn is_young(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = file.metadata() else { return true };
    let changed = Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec() as u32);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(YOUNG) <= changed
}

/// The thread that is told of leases, and closes what is idle.
struct Guard {
    reader: BreakReader,
    thread: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Guard {
    fn start(lender: Weak<Lender>) -> Option<Self> {
        let (tell, told) = mpsc::sync_channel(1);
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("memobj-lender".into()).spawn(move || {
            let news = BreakNews::listen();
            let _ = tell.send(news.reader());
            listen(&news, &lender, &ends);
        });
        let thread = Some(thread.ok()?);
        Some(Self { reader: told.recv().ok()?, thread, is_over })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.reader.wake();
        // The thread itself may be the last that had the lender.
        if let Some(thread) = self.thread.take().filter(|it| it.thread().id() != std::thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

fn listen(news: &BreakNews, lender: &Weak<Lender>, is_over: &AtomicBool) {
    let mut swept = Instant::now();
    while !is_over.load(Ordering::Acquire) {
        let came = news.next(LOOK_EVERY);
        let Some(lender) = lender.upgrade() else { return };
        match came {
            None | Some(News::Woken) => {}
            Some(News::Some) => lender.broken(|_| true),
            Some(News::Breaks(descriptor)) => {
                lender.broken(|file| file.file.as_fd().as_raw_fd() == descriptor)
            }
        }
        if swept.elapsed() >= LOOK_EVERY {
            swept = Instant::now();
            lender.sweep();
            // Whatever became of the signal.
            lender.broken(|_| true);
        }
    }
}
