//! Room under the budget of a cache, and how it is made: by taking frames back.

mod hand;
mod unwritten;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use memobj_core::address::PageRange;
use memobj_core::budget::Budget;
use memobj_core::pages::Tables;
use memobj_core::pin_budget::PinBudget;
use memobj_core::reclaim::Clock;
use memobj_linux::area::{Area, Victims};
use memobj_linux::pool::{Frame, FramePool, Take};
use memobj_linux::region::{LARGE, SMALL};
use memobj_linux::slots::SlotTable;

use crate::reporter::Reporter;
use hand::Hand;
pub(crate) use unwritten::Unwritten;

/// An x86 instruction can touch several pages, and several threads run; below this nothing would ever finish.
pub(crate) const LEAST_FRAMES: u64 = 16;
/// Bytes of words and page tables that a cache may have, beside an eighth of its budget: those of 2048 blocks.
const LEAST_TABLES: u64 = 16 << 20;

/// Sweeps in which the reclaim choice decides; after them everything goes that can.
const SWEEPS_BY_CHOICE: u32 = 4;

/// Blocks that may keep their tables because the choice spares a page of them, before the next has to go. A look at one
/// costs as much as a system call.
const TABLES_BY_CHOICE: u32 = 1;
/// Blocks in a row that kept their tables, after which nobody looks for more.
const MOST_TABLES_IN_VAIN: u32 = 64;

/// Rounds without any victim after which a waiter sleeps between rounds.
const SPIN_ROUNDS: u32 = 16;

/// How long to wait for room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// Until there is some.
    Endless,
    /// A moment: for the driver, which would wait for frames that its own reads hold.
    Short,
}

/// The budgets of a cache, the areas whose frames count, and the hands that choose what goes. Everybody who needs a frame
/// asks here; of objects it knows the areas only.
#[derive(Debug)]
pub(crate) struct FrameAllocator {
    pub(crate) budget: Arc<Budget>,
    pub(crate) pins: Arc<PinBudget>,
    /// Bounds what is pinned for writing: it cannot be cleaned.
    pub(crate) mut_pins: Arc<Budget>,
    /// Counts what pages cost beside their frames.
    pub(crate) tables: Arc<Tables>,
    /// What ages of pages are measured by.
    pub(crate) ages: Clock,
    pub(crate) unwritten: Unwritten,
    /// Whose frames are taken back. Handles add and remove them.
    pub(crate) members: SlotTable<Area>,
    hand: Hand,
    table_hand: Hand,
    pool: OnceLock<Option<Arc<FramePool>>>,
    reporter: Arc<Reporter>,
}

impl FrameAllocator {
    pub(crate) fn new(limit: u64, unwritten: Unwritten, reporter: &Arc<Reporter>) -> Self {
        // What pins may not have keeps faults going.
        let kept_free = (limit / 8).max((LEAST_FRAMES * SMALL as u64).min(limit / 4));
        Self {
            budget: Arc::new(Budget::new(limit)),
            pins: Arc::new(PinBudget::new(limit - kept_free)),
            mut_pins: Arc::new(Budget::new(limit / 4)),
            tables: Arc::new(Tables::new(limit / 8 + LEAST_TABLES)),
            ages: Clock::new(limit),
            unwritten,
            members: SlotTable::new(),
            hand: Hand::default(),
            table_hand: Hand::default(),
            pool: OnceLock::new(),
            reporter: Arc::clone(reporter),
        }
    }

    /// Wakes all who sleep on a page, or until something is written.
    pub(crate) fn wake_all(&self) {
        for slot in 0..self.members.end() {
            self.members.with(slot, |area| area.wake(PageRange { start: 0, end: area.pages() }));
        }
        self.unwritten.made_progress();
    }

    /// Sweeps of the hand so far.
    pub(crate) fn sweeps(&self) -> u32 {
        self.hand.sweeps.load(Ordering::Relaxed)
    }

    /// Whether large frames would leave enough of the budget.
    pub(crate) fn is_large_enough(&self) -> bool {
        self.budget.limit() >= LEAST_FRAMES * LARGE as u64
    }

    /// The pool of large frames, if this machine can have one. The budget is [large enough](Self::is_large_enough).
    pub(crate) fn pool(&self) -> Option<&Arc<FramePool>> {
        let make = || FramePool::new(Arc::clone(&self.budget)).ok();
        self.pool.get_or_init(make).as_ref()
    }

    /// The pool, if it was needed before. Safe in a signal handler.
    pub(crate) fn existing_pool(&self) -> Option<&Arc<FramePool>> {
        self.pool.get()?.as_ref()
    }

    /// Reserves `bytes` for small frames, evicting until they fit. Safe in a signal handler: takes no lock.
    ///
    /// Always ends: pins never hold the whole budget, and every other owner of a frame lets go by itself; but for
    /// an object that was unmapped meanwhile, whose frames the hand does not find any more. Therefore it is
    /// `false`, with nothing reserved, once `unmapped` is true, or `patience` is over.
    pub(crate) fn reserve(&self, bytes: u64, patience: Patience, unmapped: &AtomicBool) -> bool {
        if self.tables.are_too_many() {
            self.give_back_tables();
        }
        let mut idle = 0;
        while !self.budget.try_reserve(bytes) {
            if unmapped.load(Ordering::Acquire) {
                return false;
            }
            let trimmed = self.existing_pool().is_some_and(|pool| pool.trim());
            if trimmed || self.reclaim_some() {
                idle = 0;
                continue;
            }
            if self.unwritten.bytes() > 0 {
                self.unwritten.hurry();
            }
            idle += 1;
            if patience == Patience::Short && idle > SPIN_ROUNDS {
                return false;
            }
            pause(idle);
        }
        true
    }

    /// A frame of 2 MiB, evicting until there is one. `None` once `unmapped` is true, as with
    /// [`reserve`](Self::reserve). Not for signal handlers.
    pub(crate) fn take_frame(&self, pool: &Arc<FramePool>, unmapped: &AtomicBool) -> Option<Frame> {
        let mut idle = 0;
        loop {
            match pool.take() {
                Take::Frame(frame) => return Some(frame),
                Take::OverBudget | Take::NoMemory(_) if unmapped.load(Ordering::Acquire) => return None,
                Take::OverBudget | Take::NoMemory(_) if self.reclaim_some() => idle = 0,
                Take::OverBudget | Take::NoMemory(_) => {
                    idle += 1;
                    pause(idle);
                }
            }
        }
    }

    /// A frame of 2 MiB if there is one without waiting for others.
    pub(crate) fn try_take_frame(&self, pool: &Arc<FramePool>) -> Option<Frame> {
        for _ in 0..4 {
            if let Take::Frame(frame) = pool.take() {
                return Some(frame);
            }
            if !self.reclaim_some() {
                return None;
            }
        }
        None
    }

    /// Takes back all frames of `pages` of `area` that can go.
    pub(crate) fn evict(&self, area: &Arc<Area>, pages: PageRange) {
        let evicted = area.evict_all(pages, self.ages.now());
        self.reporter.counters.evicted_pages.add(evicted.pages);
    }

    /// Moves the hand until a block gives up a page; `false` when a whole sweep found none that may go.
    fn reclaim_some(&self) -> bool {
        let start = self.sweeps();
        loop {
            let sweeps = self.sweeps().wrapping_sub(start);
            if sweeps > SWEEPS_BY_CHOICE + 1 {
                return false;
            }
            // Pins and pages in flight can hold so much that the choice spares all the rest.
            let victims = if sweeps < SWEEPS_BY_CHOICE { Victims::Chosen } else { Victims::All };
            let next = self.hand.advance(&self.members, Area::next_resident_block);
            let Some((slot, block)) = next else { return false };
            let now = self.ages.now();
            let evicted = self.members.with(slot, |area| area.evict_block(block, now, victims));
            if let Some(evicted) = evicted.filter(|evicted| evicted.pages > 0) {
                self.reporter.counters.evicted_pages.add(evicted.pages);
                return true;
            }
        }
    }

    /// Has blocks give their words and page tables back until there are not too many, or none was found that can. Their
    /// pages are evicted for it: at first those that the choice gives up, then all that may go. Safe in a signal handler.
    fn give_back_tables(&self) {
        let mut in_vain = 0;
        while self.tables.are_too_many() && in_vain < MOST_TABLES_IN_VAIN {
            let victims = if in_vain < TABLES_BY_CHOICE { Victims::Chosen } else { Victims::All };
            let next = self.table_hand.advance(&self.members, Area::next_tabled_block);
            let Some((slot, block)) = next else { return };
            let now = self.ages.now();
            let given = self.members.with(slot, |area| {
                let (evicted, is_empty) = area.empty_block(block, now, victims);
                self.reporter.counters.evicted_pages.add(evicted.pages);
                is_empty
            });
            in_vain = if given == Some(true) { 0 } else { in_vain + 1 };
        }
    }
}

/// Every frame is being filled, evicted or pinned at this moment: lets the others go on.
fn pause(idle: u32) {
    if idle < SPIN_ROUNDS {
        std::thread::yield_now();
    } else {
        std::thread::sleep(Duration::from_micros(200));
    }
}
