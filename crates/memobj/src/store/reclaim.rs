//! The hand: which block is looked at next, and the wait for room under the budget.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memobj_sys::area::Victims;
use memobj_sys::pool::{Frame, Take};

use super::{CacheShared, FrameStore};

const BLOCK_BITS: u32 = 44;
const BLOCK_MASK: u64 = (1 << BLOCK_BITS) - 1;

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

impl CacheShared {
    /// Reserves `bytes` for small frames, evicting until they fit. Safe in a signal handler: takes no lock.
    ///
    /// Always ends: pins never hold the whole budget, and every other owner of a frame lets go by itself; but for
    /// an object that was unmapped meanwhile, whose frames the hand does not find any more. Therefore it is
    /// `false`, with nothing reserved, once `unmapped` is true, or `patience` is over.
    pub(crate) fn reserve(&self, bytes: u64, patience: Patience, unmapped: &dyn Fn() -> bool) -> bool {
        if self.tables.are_too_many() {
            self.give_back_tables();
        }
        let mut idle = 0;
        while !self.budget.try_reserve(bytes) {
            if unmapped() {
                return false;
            }
            let trimmed = self.existing_pool().is_some_and(|pool| pool.trim());
            if trimmed || self.reclaim_some() {
                idle = 0;
                continue;
            }
            if self.unwritten.load(Ordering::Relaxed) > 0 {
                self.cleaner.hurry();
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
    pub(crate) fn take_frame(
        &self,
        pool: &std::sync::Arc<memobj_sys::pool::FramePool>,
        unmapped: &dyn Fn() -> bool,
    ) -> Option<Frame> {
        let mut idle = 0;
        loop {
            match pool.take() {
                Take::Frame(frame) => return Some(frame),
                Take::OverBudget | Take::NoMemory(_) if unmapped() => return None,
                Take::OverBudget | Take::NoMemory(_) if self.reclaim_some() => idle = 0,
                Take::OverBudget | Take::NoMemory(_) => {
                    idle += 1;
                    pause(idle);
                }
            }
        }
    }

    /// A frame of 2 MiB if there is one without waiting for others.
    pub(crate) fn try_take_frame(&self, pool: &std::sync::Arc<memobj_sys::pool::FramePool>) -> Option<Frame> {
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

    /// Moves the hand until a block gives up a page; `false` when a whole sweep found none that may go.
    pub(crate) fn reclaim_some(&self) -> bool {
        let start = self.sweeps.load(Ordering::Relaxed);
        loop {
            let sweeps = self.sweeps.load(Ordering::Relaxed).wrapping_sub(start);
            if sweeps > SWEEPS_BY_CHOICE + 1 {
                return false;
            }
            // Pins and pages in flight can hold so much that the choice spares all the rest.
            let victims = if sweeps < SWEEPS_BY_CHOICE { Victims::Chosen } else { Victims::All };
            let Some((slot, block)) = self.next_block() else { return false };
            let now = self.clock.now();
            let evicted = self.members.with(slot, |store| store.area.evict_block(block, now, victims));
            if let Some(evicted) = evicted.filter(|evicted| evicted.pages > 0) {
                self.counters.evicted_pages.add(evicted.pages);
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
            let Some((slot, block)) = self.next_tabled_block() else { return };
            let now = self.clock.now();
            let given = self.members.with(slot, |store| {
                let (evicted, is_empty) = store.area.empty_block(block, now, victims);
                self.counters.evicted_pages.add(evicted.pages);
                is_empty
            });
            in_vain = if given == Some(true) { 0 } else { in_vain + 1 };
        }
    }

    fn next_tabled_block(&self) -> Option<(usize, u64)> {
        self.advance_hand(&self.table_hand, |store, from| store.area.next_tabled_block(from), || {})
    }

    /// Advances the hand to the next block with resident pages; each block goes to one caller.
    fn next_block(&self) -> Option<(usize, u64)> {
        let count_sweep = || {
            self.sweeps.fetch_add(1, Ordering::Relaxed);
        };
        self.advance_hand(&self.hand, |store, from| store.area.next_resident_block(from), count_sweep)
    }

    /// Advances `hand` to the block that `next_of` finds; `None` after a whole sweep without any. Calls `wrapped` whenever
    /// the hand begins anew.
    fn advance_hand(
        &self,
        hand_at: &AtomicU64,
        next_of: impl Fn(&FrameStore, u64) -> Option<u64>,
        wrapped: impl Fn(),
    ) -> Option<(usize, u64)> {
        let mut wraps = 0;
        loop {
            let hand = hand_at.load(Ordering::Relaxed);
            let (slot, block) = ((hand >> BLOCK_BITS) as usize, hand & BLOCK_MASK);
            let found = self.members.with(slot, |store| next_of(store, block)).flatten();
            let next = match found {
                Some(found) => (slot as u64) << BLOCK_BITS | (found + 1),
                None if slot + 1 < self.members.end() => (slot as u64 + 1) << BLOCK_BITS,
                None => 0,
            };
            if hand_at.compare_exchange(hand, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            if let Some(found) = found {
                return Some((slot, found));
            }
            if next == 0 {
                wrapped();
                wraps += 1;
                if wraps > 1 {
                    return None;
                }
            }
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
