//! What the threads of a cache share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use memobj_core::budget::Budget;
use memobj_core::pages::Tables;
use memobj_core::pin_budget::PinBudget;
use memobj_core::reclaim::Clock;
use memobj_sys::area::FillClaim;
use memobj_sys::capability::memory_bytes;
use memobj_sys::fork::Owner;
use memobj_sys::huge_folder::HugeFolder;
use memobj_sys::pool::FramePool;
use memobj_sys::region::{ChunkPool, LARGE, SMALL};
use memobj_sys::ring::Mechanism;
use memobj_sys::slots::SlotTable;
use memobj_sys::uffd::{Announce, Userfaultfd};
use memobj_sys::wake::Doorbell;

use super::cleaner::Cleaner;
use super::ended::Ended;
use super::{Asked, BatchRing, FrameStore, Request};
use crate::error::CacheError;
use crate::event::{Event, Sender};
use crate::locks::{Rank, RankedMutex};
use crate::metrics::Counters;
use crate::options::{CacheOptions, Reads};
use crate::threads::Disposal;

/// An x86 instruction can touch several pages, and several threads run; below this nothing would ever finish.
const LEAST_FRAMES: u64 = 16;
/// Bytes of words and page tables that a cache may have, beside an eighth of its budget: those of 2048 blocks.
const LEAST_TABLES: u64 = 16 << 20;
/// Pages that signal handlers can be reading at once; more threads wait for one another.
const BOUNCE_PAGES: usize = 64;
const REQUESTS: usize = 4096;
const MOST_EVENTS: usize = 65_536;

/// Threads that call pagers.
pub(crate) trait CallPagers: std::fmt::Debug + Send + Sync {
    /// Calls the pager of `store` for the pages of `claim`, soon.
    fn submit(&self, store: Arc<FrameStore>, claim: FillClaim, asked: Asked);
    /// Whether so much is queued that guesses and advance wishes should wait.
    fn is_busy(&self) -> bool;
    /// Waits until less is queued; for callers that can ask for any number of pages.
    fn wait_for_room(&self);
}

/// What the threads of a cache share.
#[derive(Debug)]
pub(crate) struct CacheShared {
    pub(crate) options: CacheOptions,
    pub(crate) budget: Arc<Budget>,
    pub(crate) pin_budget: Arc<PinBudget>,
    /// Counts what pages cost beside their frames.
    pub(crate) tables: Arc<Tables>,
    /// Bounds what is pinned for writing: it cannot be cleaned.
    pub(crate) mut_pin_budget: Arc<Budget>,
    /// Bytes of pages with changes that their pagers do not have.
    pub(crate) unwritten: Arc<AtomicU64>,
    pub(crate) cleaner: Cleaner,
    pub(crate) members: SlotTable<FrameStore>,
    /// Slot and block that the reclaim hand looks at next.
    pub(crate) hand: AtomicU64,
    pub(crate) sweeps: AtomicU32,
    /// Slot and block whose tables are looked at next.
    pub(crate) table_hand: AtomicU64,
    /// What ages of pages are measured by.
    pub(crate) clock: Clock,
    pub(crate) bounce: Arc<ChunkPool>,
    pub(crate) requests: ArrayQueue<Request>,
    pub(crate) bell: Doorbell,
    pub(crate) counters: Counters,
    pub(crate) owner: Owner,
    pub(crate) workers: Arc<dyn CallPagers>,
    pub(crate) rings: RankedMutex<Vec<BatchRing>>,
    pub(crate) closing: AtomicBool,
    pub(crate) ended: Ended,
    pub(crate) disposal: Arc<Disposal>,
    /// Faults that a thread of this cache reads; `None` where the kernel gives no userfaultfd.
    pub(crate) queued: Result<Arc<Userfaultfd>, io::Error>,
    signalled: OnceLock<Arc<Userfaultfd>>,
    pool: OnceLock<Option<Arc<FramePool>>>,
    huge_folder: OnceLock<Option<Arc<HugeFolder>>>,
    pub(crate) events: Sender,
}

pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> CacheError {
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

    pub(crate) fn new(options: CacheOptions, workers: Arc<dyn CallPagers>) -> Result<Self, CacheError> {
        check_budget(options.budget_bytes)?;
        let limit = options.budget_bytes;
        // What pins may not have keeps faults going.
        let kept_free = (limit / 8).max((LEAST_FRAMES * SMALL as u64).min(limit / 4));
        Ok(Self {
            budget: Arc::new(Budget::new(limit)),
            pin_budget: Arc::new(PinBudget::new(limit - kept_free)),
            mut_pin_budget: Arc::new(Budget::new(limit / 4)),
            tables: Arc::new(Tables::new(limit / 8 + LEAST_TABLES)),
            unwritten: Arc::default(),
            cleaner: Cleaner::new().map_err(system("create an eventfd"))?,
            members: SlotTable::new(),
            hand: AtomicU64::new(0),
            sweeps: AtomicU32::new(0),
            table_hand: AtomicU64::new(0),
            clock: Clock::new(limit),
            bounce: ChunkPool::new(BOUNCE_PAGES, SMALL).map_err(system("allocate pages for faults"))?,
            requests: ArrayQueue::new(REQUESTS),
            bell: Doorbell::new().map_err(system("create an eventfd"))?,
            counters: Counters::default(),
            owner: Owner::new().map_err(system("mark the process"))?,
            workers,
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
