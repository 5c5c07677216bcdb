//! The cache: one budget, shared by all its objects.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use memobj_core::budget::Budget;
use memobj_core::reclaim::Clock;
use memobj_sys::capability::memory_bytes;
use memobj_sys::fork::Owner;
use memobj_sys::huge_folder::HugeFolder;
use memobj_sys::pool::FramePool;
use memobj_sys::region::{ChunkPool, LARGE, SMALL};
use memobj_sys::ring::Mechanism;
use memobj_sys::slots::SlotTable;
use memobj_sys::uffd::{Announce, Userfaultfd};
use memobj_sys::wake::Doorbell;

use crate::batch::BatchRing;
use crate::driver::{self, Lanes, Request};
use crate::error::{CacheError, OpenError};
use crate::event::{Event, Events, Sender};
use crate::locks::{Rank, RankedMutex};
use crate::metrics::{Counters, Metrics, PagerCalls};
use crate::object::MemoryObject;
use crate::options::{CacheOptions, ObjectOptions, Reads, Writing};
use crate::pagers::{self, Pager};
use crate::store::FrameStore;
use crate::threads::{Disposal, Ended};
use crate::workers::Workers;
use crate::write::Cleaner;

/// An x86 instruction can touch several pages, and several threads run; below this nothing would ever finish.
const LEAST_FRAMES: u64 = 16;
/// Pages that signal handlers can be reading at once; more threads wait for one another.
const BOUNCE_PAGES: usize = 64;
const REQUESTS: usize = 4096;
const MOST_EVENTS: usize = 65_536;
const MOST_WORKERS: usize = 1024;

/// A hard budget of memory, and everything that works within it.
///
/// Cheap to clone; the last handle (caches, objects and mappings count) returns threads, descriptors and memory.
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<CacheInner>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let budget = &self.inner.shared.budget;
        f.debug_struct("Cache")
            .field("budget_bytes", &budget.limit())
            .field("frame_bytes", &budget.used())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct CacheInner {
    pub(crate) shared: Arc<CacheShared>,
    driver: RankedMutex<Option<JoinHandle<()>>>,
}

/// What the threads of a cache share.
#[derive(Debug)]
pub(crate) struct CacheShared {
    pub(crate) options: CacheOptions,
    pub(crate) budget: Arc<Budget>,
    pub(crate) pin_budget: Arc<Budget>,
    /// Bounds what is pinned for writing: it cannot be cleaned.
    pub(crate) mut_pin_budget: Arc<Budget>,
    /// Bytes of pages with changes that their pagers do not have.
    pub(crate) unwritten: Arc<AtomicU64>,
    pub(crate) cleaner: Cleaner,
    pub(crate) members: SlotTable<FrameStore>,
    /// Slot and block that the reclaim hand looks at next.
    pub(crate) hand: AtomicU64,
    pub(crate) sweeps: AtomicU32,
    /// What ages of pages are measured by.
    pub(crate) clock: Clock,
    pub(crate) bounce: Arc<ChunkPool>,
    pub(crate) requests: ArrayQueue<Request>,
    pub(crate) bell: Doorbell,
    pub(crate) counters: Counters,
    pub(crate) owner: Owner,
    pub(crate) workers: Workers,
    pub(crate) lanes: Lanes,
    pub(crate) rings: RankedMutex<Vec<BatchRing>>,
    pub(crate) closing: AtomicBool,
    pub(crate) ended: Ended,
    pub(crate) disposal: Arc<Disposal>,
    /// Faults that a thread of this cache reads; `None` where the kernel gives no userfaultfd.
    pub(crate) queued: Result<Arc<Userfaultfd>, io::Error>,
    signalled: OnceLock<Arc<Userfaultfd>>,
    pool: OnceLock<Option<Arc<FramePool>>>,
    huge_folder: OnceLock<Option<Arc<HugeFolder>>>,
    events: Sender,
}

impl Cache {
    /// A cache of at most `budget_bytes` bytes of frames. Starts one thread; the first mapping whose faults are read
    /// by threads starts one more for each processor on machines that have two to four.
    pub fn new(options: CacheOptions) -> Result<Self, CacheError> {
        check_budget(options.budget_bytes)?;
        let shared = Arc::new(CacheShared::new(options)?);
        let driver = driver::start(&shared).map_err(system("start the reader thread"))?;
        Ok(Self {
            inner: Arc::new(CacheInner { shared, driver: RankedMutex::new(Rank::Threads, Some(driver)) }),
        })
    }

    /// Opens a local file as an object; for writing, if `options` say so.
    pub fn open_file(
        &self,
        path: impl AsRef<Path>,
        options: ObjectOptions,
    ) -> Result<MemoryObject, OpenError> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        match options.writing {
            Writing::ReadOnly => self.object(&name, pagers::File::open(path)?, options),
            Writing::InPlace => {
                self.object(&name, pagers::open_in_place(path, options.lock_timeout)?, options)
            }
            Writing::Atomic => {
                let log = Arc::new(pagers::Logged::open(path, options.lock_timeout)?);
                let pager = Box::new(Arc::clone(&log));
                Ok(MemoryObject::new(Arc::clone(&self.inner), &name, pager, options, Some(log)))
            }
        }
    }

    /// Makes an object of what `pager` supplies. `name` appears in errors.
    pub fn object(
        &self,
        name: &str,
        pager: impl Pager + 'static,
        options: ObjectOptions,
    ) -> Result<MemoryObject, OpenError> {
        let refused = |why| Err(OpenError::NotWritable { object: name.to_owned(), why });
        match options.writing {
            Writing::ReadOnly => {}
            _ if !pager.is_writable() => return refused("its pager takes no writes"),
            Writing::Atomic => return refused("only local files can be committed to"),
            Writing::InPlace => {}
        }
        Ok(MemoryObject::new(Arc::clone(&self.inner), name, Box::new(pager), options, None))
    }

    /// What the cache has done so far.
    pub fn metrics(&self) -> Metrics {
        let shared = &self.inner.shared;
        let counters = &shared.counters;
        Metrics {
            faults: counters.faults.get(),
            supplied_pages: counters.supplied_pages.get(),
            read_ahead_pages: counters.read_ahead_pages.get(),
            prefetched_pages: counters.prefetched_pages.get(),
            evicted_pages: counters.evicted_pages.get(),
            retries: counters.retries.get(),
            failed_pages: counters.failed_pages.get(),
            frame_bytes: shared.budget.used(),
            peak_frame_bytes: shared.budget.peak(),
            budget_bytes: shared.budget.limit(),
            pinned_bytes: shared.pin_budget.used(),
            read_bytes: counters.read_bytes.get(),
            dirty_bytes: shared.unwritten.load(Ordering::Relaxed),
            written_pages: counters.written_pages.get(),
            written_bytes: counters.written_bytes.get(),
            sweeps: shared.sweeps.load(Ordering::Relaxed).into(),
            dropped_events: counters.dropped_events.get(),
        }
    }

    /// Calls of pagers that are to supply pages, now. A call that failed and waits for its next try is none.
    pub fn pager_calls(&self) -> PagerCalls {
        self.inner.shared.workers.calls()
    }

    /// What happens in the background.
    pub fn events(&self) -> Events {
        self.inner.shared.events.receiver()
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> CacheError {
    move |source| CacheError::System { what, source }
}

fn check_budget(budget_bytes: u64) -> Result<(), CacheError> {
    let minimum_bytes = LEAST_FRAMES * SMALL as u64;
    if budget_bytes < minimum_bytes {
        return Err(CacheError::BudgetTooSmall { budget_bytes, minimum_bytes });
    }
    let memory_bytes = memory_bytes();
    if budget_bytes > memory_bytes {
        return Err(CacheError::BudgetExceedsMemory { budget_bytes, memory_bytes });
    }
    Ok(())
}

impl CacheShared {
    /// The time, by the clock of this cache. Safe in a signal handler.
    pub(crate) fn now(&self) -> Instant {
        self.options.clock.now()
    }

    fn new(options: CacheOptions) -> Result<Self, CacheError> {
        let limit = options.budget_bytes;
        // What pins may not have keeps faults going.
        let kept_free = (limit / 8).max((LEAST_FRAMES * SMALL as u64).min(limit / 4));
        Ok(Self {
            budget: Arc::new(Budget::new(limit)),
            pin_budget: Arc::new(Budget::new(limit - kept_free)),
            mut_pin_budget: Arc::new(Budget::new(limit / 4)),
            unwritten: Arc::default(),
            cleaner: Cleaner::new().map_err(system("create an eventfd"))?,
            members: SlotTable::new(),
            hand: AtomicU64::new(0),
            sweeps: AtomicU32::new(0),
            clock: Clock::new(limit),
            bounce: ChunkPool::new(BOUNCE_PAGES, SMALL).map_err(system("allocate pages for faults"))?,
            requests: ArrayQueue::new(REQUESTS),
            bell: Doorbell::new().map_err(system("create an eventfd"))?,
            counters: Counters::default(),
            owner: Owner::new().map_err(system("mark the process"))?,
            workers: Workers::new(options.workers.clamp(1, MOST_WORKERS), options.clock.clone()),
            lanes: Lanes::new(),
            rings: RankedMutex::new(Rank::Rings, Vec::new()),
            closing: AtomicBool::new(false),
            ended: Ended::default(),
            disposal: Arc::new(Disposal::new()),
            queued: Userfaultfd::open(Announce::Queued).map(Arc::new),
            signalled: OnceLock::new(),
            pool: OnceLock::new(),
            huge_folder: OnceLock::new(),
            events: Sender::new(options.event_capacity.min(MOST_EVENTS)),
            options,
        })
    }

    pub(crate) fn mechanism(&self) -> Mechanism {
        match self.options.reads {
            Reads::Auto => Mechanism::Auto,
            Reads::Threads => Mechanism::Threads,
        }
    }

    /// The userfaultfd for faults announced by `announce`.
    pub(crate) fn uffd(&self, announce: Announce) -> io::Result<Arc<Userfaultfd>> {
        if announce == Announce::Queued {
            return match &self.queued {
                Ok(uffd) => Ok(Arc::clone(uffd)),
                Err(error) => Err(error
                    .raw_os_error()
                    .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)),
            };
        }
        if let Some(uffd) = self.signalled.get() {
            return Ok(Arc::clone(uffd));
        }
        let new = Arc::new(Userfaultfd::open(Announce::Signalled)?);
        Ok(Arc::clone(self.signalled.get_or_init(|| new)))
    }

    /// The pool of large frames, if this machine and budget can have one.
    pub(crate) fn pool(&self) -> Option<&Arc<FramePool>> {
        let enough = self.budget.limit() >= LEAST_FRAMES * LARGE as u64;
        self.pool
            .get_or_init(|| enough.then(|| FramePool::new(Arc::clone(&self.budget)).ok()).flatten())
            .as_ref()
    }

    /// Where frame files of 2 MiB pages are made, if this machine and budget can have them.
    pub(crate) fn huge_folder(&self) -> Option<&Arc<HugeFolder>> {
        let enough = self.budget.limit() >= LEAST_FRAMES * LARGE as u64;
        let told = matches!(&self.queued, Ok(uffd) if uffd.features().minor_faults);
        let make = || (enough && told).then(|| HugeFolder::new().ok().map(Arc::new)).flatten();
        self.huge_folder.get_or_init(make).as_ref()
    }

    /// The pool, if it was needed before. Safe in a signal handler.
    pub(crate) fn existing_pool(&self) -> Option<&Arc<FramePool>> {
        self.pool.get()?.as_ref()
    }

    /// Hands a request to the driver. Safe in a signal handler.
    pub(crate) fn ask(&self, request: Request) {
        let mut request = request;
        while let Err(back) = self.requests.push(request) {
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            request = back;
            self.bell.ring();
            std::thread::yield_now();
        }
        self.bell.ring();
    }

    pub(crate) fn tell(&self, event: Event) {
        if !self.events.put(event) {
            self.counters.dropped_events.add(1);
        }
    }
}

impl Drop for CacheInner {
    fn drop(&mut self) {
        if !self.shared.owner.is_this_process() {
            // A child of fork: the threads, and the work they do, are the parent's.
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        self.shared.closing.store(true, Ordering::Release);
        self.shared.bell.ring();
        let driver = self.driver.lock().take();
        // A pager that owns handles of its own cache can be dropped last, by one of the cache's own threads.
        if let Some(driver) = driver.filter(|driver| driver.thread().id() != std::thread::current().id()) {
            let _ = driver.join();
        }
        self.shared.lanes.stop();
        self.shared.cleaner.stop();
        self.shared.workers.stop();
        self.shared.disposal.finish();
        self.shared.rings.lock().clear();
    }
}
