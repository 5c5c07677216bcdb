//! Putting bytes in place.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memobj_core::address::{PageIndex, PageRange, PageSize};
use memobj_core::pages::PlaceError;
use memobj_linux::area::{Area, FillClaim, Origin, Placement};
use memobj_linux::pool::{Frame, FramePool};
use memobj_linux::region::SMALL;
use memobj_linux::ring::Target;

use super::{AtOnce, Errors, ObjectCore};
use crate::allocator::{FrameAllocator, Patience};
use crate::buffers::{Buffers, RUN_PAGES};
use crate::health::Health;
use crate::reporter::ObjectTell;

/// Threads that call pagers.
pub(crate) trait CallPagers: std::fmt::Debug + Send + Sync {
    /// Asks the pager for the pages of a claim, soon. With `keep` they are not put in place, but kept. Those beside the pages that
    /// are wanted are absent again if it fails.
    fn submit(
        &self,
        fill: Arc<Fill>,
        claim: (FillClaim, PageRange),
        reason: FillReason,
        keep: Option<Box<dyn Keep>>,
    );
    /// Makes another call of the pager, which may block.
    fn call(&self, fill: &Arc<Fill>, call: Box<dyn FnOnce() + Send>);
    /// The object is closed: nothing of it is asked for any more, and what is under way is cancelled.
    fn forget(&self, fill: &Fill);
    /// Whether so much is queued, or under way, that a guess of `bytes` should wait.
    fn is_busy(&self, bytes: u64) -> bool;
    /// Waits until less is queued; for callers that can ask for any number of pages.
    fn wait_for_room(&self);
}

/// Keeps what a pager has supplied ready, until somebody wants it.
pub(crate) trait Keep: std::fmt::Debug + Send + Sync {
    /// It is here; `None`: it never will be. What is told first counts. On any thread; must not block.
    fn keep(&self, arrived: Option<Arrived>);
}

/// Bytes that are here and not in place.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) claim: FillClaim,
    pub(crate) target: Target,
    /// What they take of the memory of requests, until dropped.
    pub(crate) room: Box<dyn std::any::Any + Send>,
}

/// Whether anybody waits for the pages of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FillReason {
    /// Somebody does.
    Demand,
    /// Somebody does, and stores to them next.
    ToStore,
    /// The bytes are somebody's own: they are Dirty from the start.
    Store,
    /// Nobody yet: a failure is forgotten.
    InAdvance,
}

/// From a claim to a resident page, within the budget. Doors, batches and workers bring claims, and the bytes.
#[derive(Debug)]
pub(crate) struct Fill {
    /// A number that no other has, ever: an address would be used again.
    pub(crate) number: u64,
    pub(crate) area: Arc<Area>,
    pub(crate) object: Arc<ObjectCore>,
    pub(crate) errors: Arc<Errors>,
    pub(crate) allocator: Arc<FrameAllocator>,
    pub(crate) reporter: Arc<ObjectTell>,
    pub(crate) health: Arc<Health>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) workers: Arc<dyn CallPagers>,
    /// The last mapping is gone: nobody may wait for room any longer.
    pub(crate) closed: AtomicBool,
}

impl Fill {
    /// A number for the next one.
    pub(crate) fn next_number() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_large(&self) -> bool {
        self.area.page_size() == PageSize::LARGE
    }

    /// The most pages of one read or request.
    pub(crate) fn run_pages(&self) -> u64 {
        match (self.is_large(), self.block_pages()) {
            (true, _) => 1,
            (false, 1) => RUN_PAGES,
            (false, block) => block,
        }
    }

    /// The pages of the block that the pager likes to be asked for: one, if it did not name any.
    pub(crate) fn block_pages(&self) -> u64 {
        if self.is_large() || self.object.file().is_some() {
            return 1;
        }
        let most = (self.allocator.budget.limit() / 8 / SMALL as u64).max(1);
        let most = 1 << most.ilog2();
        (self.object.description.block() / SMALL as u64).min(most)
    }

    /// Adds the absent pages around those of `claim` which are in the same block of the pager.
    fn widen(&self, claim: FillClaim) -> FillClaim {
        let block = self.block_pages();
        let PageRange { start, end } = claim.pages();
        let first = start / block * block;
        let last = (end.next_multiple_of(block)).min(self.area.pages()).max(end);
        let absent = (first..start).rev().take_while(|page| self.area.word(PageIndex(*page)).is_absent());
        let first = absent.last().unwrap_or(start);
        let run = |start, end| self.area.claim_run(PageRange { start, end }, Placement::AtOnce);
        let mut whole = match run(first, start) {
            // Unless somebody was faster with a page in between.
            Some(mut before) => match before.join(claim) {
                None => before,
                Some(claim) => claim,
            },
            None => claim,
        };
        if let Some(after) = run(end, last) {
            drop(whole.join(after));
        }
        whole
    }

    /// Room for small frames; `false` once the object is closed, or `patience` over. Safe in a signal handler.
    pub(crate) fn reserve(&self, bytes: u64, patience: Patience) -> bool {
        self.allocator.reserve(bytes, patience, &self.closed)
    }

    /// A frame of `pool`; `None` once the object is closed.
    pub(crate) fn take_frame(&self, pool: &Arc<FramePool>) -> Option<Frame> {
        self.allocator.take_frame(pool, &self.closed)
    }

    /// Puts a copy of `bytes` (the claim's, padded to 4 KiB) in place, or gives the claim back. Safe in a signal handler.
    ///
    /// At most as much at once as pins leave free, or room for it might never come. If that fails on the way,
    /// pages behind the failure are absent again.
    pub(crate) fn place_copy(
        &self,
        claim: FillClaim,
        bytes: &[u8],
        reason: FillReason,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        let free = self.allocator.budget.limit() - self.allocator.pins.limit();
        let page_bytes = self.area.page_size().bytes();
        let most = (free / page_bytes).max(1);
        let (mut claim, mut bytes) = (claim, bytes);
        while claim.pages().len() > most {
            let rest = claim.split_off(PageIndex(claim.pages().start + most));
            self.place_copy_at_once(claim, bytes, reason, patience)?;
            (claim, bytes) = (rest, &bytes[(most * page_bytes) as usize..]);
        }
        self.place_copy_at_once(claim, bytes, reason, patience)
    }

    fn place_copy_at_once(
        &self,
        claim: FillClaim,
        bytes: &[u8],
        reason: FillReason,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        if !self.reserve(claim.frame_bytes(), patience) {
            return Err(claim);
        }
        // Counted first: whoever sees the page in place sees it counted.
        self.count_supplied(claim.pages().len());
        let Err((rest, why)) = claim.place_copy(bytes, self.origin(reason)) else { return Ok(()) };
        self.allocator.budget.release(rest.frame_bytes());
        self.reporter.counters.supplied_pages.take_back(rest.pages().len());
        match why {
            // Who waits for them asks again, and hears that the object ends before. A store is to be told itself.
            PlaceError::CutOff if reason != FillReason::Store => Ok(()),
            _ => Err(rest),
        }
    }

    fn origin(&self, reason: FillReason) -> Origin {
        let now = self.allocator.ages.now();
        match reason {
            FillReason::Demand => Origin::Asked(now),
            FillReason::ToStore => Origin::ToStore(now),
            FillReason::Store => Origin::Stored(now),
            FillReason::InAdvance => Origin::InAdvance(now),
        }
    }

    pub(crate) fn count_supplied(&self, pages: u64) {
        self.reporter.counters.supplied_pages.add(pages);
        self.allocator.ages.supplied(pages << self.area.page_size().shift());
    }

    /// Moves `frame` in place.
    fn place_frame(&self, claim: FillClaim, frame: Frame, reason: FillReason) -> Result<(), FillClaim> {
        self.count_supplied(1);
        claim.place_frame(frame, self.origin(reason)).map_err(|(claim, _)| {
            self.reporter.counters.supplied_pages.take_back(1);
            claim
        })
    }

    /// Puts what was read in place; what lies behind the end of the object becomes zero.
    pub(crate) fn place_target(
        &self,
        claim: FillClaim,
        mut target: Target,
        reason: FillReason,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        let len = claim.bytes().len();
        let end = (len as usize).next_multiple_of(SMALL);
        if self.is_cut_off(&claim, end as u64) {
            return Err(claim);
        }
        target.as_mut_slice()[len as usize..end].fill(0);
        match target {
            Target::Chunk(chunk) => self.place_bytes(claim, &chunk[..end], reason, patience),
            Target::Frame(frame) => {
                self.reporter.counters.read_bytes.add(len);
                self.place_frame(claim, frame, reason)
            }
        }
    }

    /// Whether `claim` has pages behind its `len` bytes of the object: it was cut off after somebody wished for them.
    /// Objects with large pages keep their length.
    pub(crate) fn is_cut_off(&self, claim: &FillClaim, len: u64) -> bool {
        !self.is_large() && claim.pages().len() * SMALL as u64 > len
    }

    /// Leaves the claim to a worker, who asks the pager and knows the failure policy.
    pub(crate) fn call_pager(self: &Arc<Self>, claim: FillClaim, reason: FillReason) {
        let wanted = claim.pages();
        let claim = if self.block_pages() > 1 { self.widen(claim) } else { claim };
        self.workers.submit(Arc::clone(self), (claim, wanted), reason, None);
    }

    /// Puts the claim's bytes in place, padded to 4 KiB, or gives the claim back.
    pub(crate) fn place_bytes(
        &self,
        claim: FillClaim,
        bytes: &[u8],
        reason: FillReason,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        let len = claim.bytes().len();
        let placed = match self.area.pool() {
            None => self.place_copy(claim, bytes, reason, patience),
            Some(pool) => {
                let frame = match patience {
                    Patience::Endless => self.take_frame(pool),
                    Patience::Short => self.allocator.try_take_frame(pool),
                };
                let Some(frame) = frame else { return Err(claim) };
                let mut target = Target::Frame(frame);
                target.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
                let Target::Frame(frame) = target else { return Err(claim) };
                self.place_frame(claim, frame, reason)
            }
        };
        placed.inspect(|()| self.reporter.counters.read_bytes.add(len))
    }

    /// Fails what is claimed if the cache supplies nothing any more; else gives the claim back.
    pub(crate) fn refuse(&self, claim: FillClaim, reason: FillReason) -> Option<FillClaim> {
        let Some(error) = self.health.refusal() else { return Some(claim) };
        if reason != FillReason::InAdvance {
            for claim in split(claim) {
                let bytes = claim.bytes();
                self.errors.fail(claim, &error, 0, bytes);
            }
        }
        None
    }

    /// Fills a claim of small pages from a source that needs no waiting. Safe in a signal handler.
    /// Gives the claim back when that is not possible.
    pub(crate) fn fill_inline(
        &self,
        claim: FillClaim,
        reason: FillReason,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        if self.is_large() {
            return Err(claim);
        }
        let range = claim.bytes();
        let whole = range.len().is_multiple_of(SMALL as u64);
        // A pager's slice may be shorter than it says: then a worker asks it, and reports what it answers.
        let part = |bytes: &'_ [u8]| -> Option<Range<usize>> {
            (range.end <= bytes.len() as u64).then_some(range.start as usize..range.end as usize)
        };
        match self.object.at_once() {
            AtOnce::Zeros if claim.pages().len() == 1 => {
                self.place_copy(claim, &ZERO_PAGE.0, reason, patience)
            }
            AtOnce::Memory(bytes) => match part(bytes) {
                Some(part) if whole => {
                    self.reporter.counters.read_bytes.add(range.len());
                    self.place_copy(claim, &bytes[part], reason, patience)
                }
                Some(part) if claim.pages().len() == 1 => {
                    // Not on the stack: a signal handler's may be small.
                    let Some(mut page) = self.buffers.bounce.take() else { return Err(claim) };
                    let (object, behind) = page.split_at_mut(part.len());
                    object.copy_from_slice(&bytes[part]);
                    behind.fill(0);
                    self.reporter.counters.read_bytes.add(range.len());
                    self.place_copy(claim, &page, reason, patience)
                }
                _ => Err(claim),
            },
            _ => Err(claim),
        }
    }
}

/// The pages of a claim one by one, in order.
pub(crate) fn split(mut claim: FillClaim) -> Vec<FillClaim> {
    let mut singles: Vec<FillClaim> = claim.pages().iter().rev().map(|page| claim.split_off(page)).collect();
    singles.reverse();
    singles
}

#[repr(align(4096))]
pub(crate) struct AlignedPage(pub(crate) [u8; SMALL]);

static ZERO_PAGE: AlignedPage = AlignedPage([0; SMALL]);
