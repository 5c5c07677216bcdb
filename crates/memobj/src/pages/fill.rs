//! Putting bytes in place.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memobj_core::address::{PageIndex, PageSize};
use memobj_core::pages::PlaceError;
use memobj_linux::area::{Area, FillClaim, Origin};
use memobj_linux::pool::{Frame, FramePool};
use memobj_linux::region::SMALL;
use memobj_linux::ring::Target;

use super::{Errors, ObjectCore};
use crate::buffers::{Buffers, RUN_PAGES};
use crate::health::Health;
use crate::pagers::Source;
use crate::room::{Patience, Room};
use crate::tell::ObjectTell;

/// Threads that call pagers.
pub(crate) trait CallPagers: std::fmt::Debug + Send + Sync {
    /// Calls the pager for the pages of `claim`, soon.
    fn submit(&self, fill: Arc<Fill>, claim: FillClaim, asked: Asked);
    /// Whether so much is queued that guesses and advance wishes should wait.
    fn is_busy(&self) -> bool;
    /// Waits until less is queued; for callers that can ask for any number of pages.
    fn wait_for_room(&self);
}

/// Whether anybody waits for the pages of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
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
    pub(crate) area: Arc<Area>,
    pub(crate) object: Arc<ObjectCore>,
    pub(crate) errors: Arc<Errors>,
    pub(crate) room: Arc<Room>,
    pub(crate) tell: Arc<ObjectTell>,
    pub(crate) health: Arc<Health>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) workers: Arc<dyn CallPagers>,
    /// The last mapping is gone: nobody may wait for room any longer.
    pub(crate) closed: AtomicBool,
}

impl Fill {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_large(&self) -> bool {
        self.area.page_size() == PageSize::LARGE
    }

    /// The most pages of one read.
    pub(crate) fn run_pages(&self) -> u64 {
        if self.is_large() { 1 } else { RUN_PAGES }
    }

    /// Room for small frames; `false` once the object is closed, or `patience` over. Safe in a signal handler.
    pub(crate) fn reserve(&self, bytes: u64, patience: Patience) -> bool {
        self.room.reserve(bytes, patience, &self.closed)
    }

    /// A frame of `pool`; `None` once the object is closed.
    pub(crate) fn take_frame(&self, pool: &Arc<FramePool>) -> Option<Frame> {
        self.room.take_frame(pool, &self.closed)
    }

    /// Puts a copy of `bytes` (the claim's, padded to 4 KiB) in place, or gives the claim back. Safe in a signal handler.
    ///
    /// At most as much at once as pins leave free, or room for it might never come. If that fails on the way,
    /// pages behind the failure are absent again.
    pub(crate) fn place_copy(
        &self,
        claim: FillClaim,
        bytes: &[u8],
        asked: Asked,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        let free = self.room.budget.limit() - self.room.pins.limit();
        let page_bytes = self.area.page_size().bytes();
        let most = (free / page_bytes).max(1);
        let (mut claim, mut bytes) = (claim, bytes);
        while claim.pages().len() > most {
            let rest = claim.split_off(PageIndex(claim.pages().start + most));
            self.place_copy_at_once(claim, bytes, asked, patience)?;
            (claim, bytes) = (rest, &bytes[(most * page_bytes) as usize..]);
        }
        self.place_copy_at_once(claim, bytes, asked, patience)
    }

    fn place_copy_at_once(
        &self,
        claim: FillClaim,
        bytes: &[u8],
        asked: Asked,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        if !self.reserve(claim.frame_bytes(), patience) {
            return Err(claim);
        }
        // Counted first: whoever sees the page in place sees it counted.
        self.count_supplied(claim.pages().len());
        let Err((rest, why)) = claim.place_copy(bytes, self.origin(asked)) else { return Ok(()) };
        self.room.budget.release(rest.frame_bytes());
        self.tell.counters.supplied_pages.take_back(rest.pages().len());
        match why {
            // Who waits for them asks again, and hears that the object ends before. A store is to be told itself.
            PlaceError::CutOff if asked != Asked::Store => Ok(()),
            _ => Err(rest),
        }
    }

    fn origin(&self, asked: Asked) -> Origin {
        let now = self.room.ages.now();
        match asked {
            Asked::Demand => Origin::Asked(now),
            Asked::ToStore => Origin::ToStore(now),
            Asked::Store => Origin::Stored(now),
            Asked::InAdvance => Origin::InAdvance(now),
        }
    }

    pub(crate) fn count_supplied(&self, pages: u64) {
        self.tell.counters.supplied_pages.add(pages);
        self.room.ages.supplied(pages << self.area.page_size().shift());
    }

    /// Moves `frame` in place.
    fn place_frame(&self, claim: FillClaim, frame: Frame, asked: Asked) -> Result<(), FillClaim> {
        self.count_supplied(1);
        claim.place_frame(frame, self.origin(asked)).map_err(|(claim, _)| {
            self.tell.counters.supplied_pages.take_back(1);
            claim
        })
    }

    /// Puts what was read in place; what lies behind the end of the object becomes zero.
    pub(crate) fn place_target(
        &self,
        claim: FillClaim,
        mut target: Target,
        asked: Asked,
        patience: Patience,
    ) -> Result<(), FillClaim> {
        let len = claim.bytes().len();
        let end = (len as usize).next_multiple_of(SMALL);
        if self.is_cut_off(&claim, end as u64) {
            return Err(claim);
        }
        target.as_mut_slice()[len as usize..end].fill(0);
        self.tell.counters.read_bytes.add(len);
        match target {
            Target::Chunk(chunk) => self.place_copy(claim, &chunk[..end], asked, patience),
            Target::Frame(frame) => self.place_frame(claim, frame, asked),
        }
    }

    /// Whether `claim` has pages behind its `len` bytes of the object: it was cut off after somebody wished for them.
    /// Objects with large pages keep their length.
    pub(crate) fn is_cut_off(&self, claim: &FillClaim, len: u64) -> bool {
        !self.is_large() && claim.pages().len() * SMALL as u64 > len
    }

    /// Leaves the claim to a worker, who calls the pager and knows the failure policy.
    pub(crate) fn call_pager(self: &Arc<Self>, claim: FillClaim, asked: Asked) {
        self.workers.submit(Arc::clone(self), claim, asked);
    }

    /// Fails what is claimed if the cache supplies nothing any more; else gives the claim back.
    pub(crate) fn refuse(&self, claim: FillClaim, asked: Asked) -> Option<FillClaim> {
        let Some(error) = self.health.refusal() else { return Some(claim) };
        if asked != Asked::InAdvance {
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
        asked: Asked,
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
        match self.object.source() {
            Source::Zero if claim.pages().len() == 1 => self.place_copy(claim, &ZERO_PAGE.0, asked, patience),
            Source::Memory(bytes) => match part(bytes) {
                Some(part) if whole => {
                    self.tell.counters.read_bytes.add(range.len());
                    self.place_copy(claim, &bytes[part], asked, patience)
                }
                Some(part) if claim.pages().len() == 1 => {
                    // Not on the stack: a signal handler's may be small.
                    let Some(mut page) = self.buffers.bounce.take() else { return Err(claim) };
                    let (object, behind) = page.split_at_mut(part.len());
                    object.copy_from_slice(&bytes[part]);
                    behind.fill(0);
                    self.tell.counters.read_bytes.add(range.len());
                    self.place_copy(claim, &page, asked, patience)
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
