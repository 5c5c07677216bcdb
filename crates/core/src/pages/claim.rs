//! The right to fill pages, and the obligation to do so.

use alloc::sync::Arc;

use core::sync::atomic::{Ordering, fence};

use super::{Frames, Held, Host, Pages, Wake, Writes};
use crate::address::{ByteRange, PageIndex, PageRange};
use crate::page_word::{State, Transition, Word};
use crate::reclaim::{heat_on_read_ahead, heat_on_supply};

/// When a claim's pages are put in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// As soon as their bytes are there.
    AtOnce,
    /// Only when somebody wants them: sleepers are to ask the filler.
    WhenWanted,
}

/// Why pages are supplied, and when: what the reclaim choice will go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Somebody asked for them, at this tick of the cache's clock.
    Asked(u8),
    /// Somebody asked for them to store to them, at this tick of the cache's clock: they are opened to stores before
    /// the sleepers are woken. For objects that can be written.
    ToStore(u8),
    /// They were guessed, or asked for in advance, at this tick of the cache's clock.
    InAdvance(u8),
    /// They are new bytes, which the pager does not have, at this tick of the cache's clock: they are Dirty from the
    /// start.
    Stored(u8),
}

impl Origin {
    /// How a page whose word was `before` leaves Filling.
    fn transition(self, before: Word) -> Transition {
        match self {
            Origin::Asked(now) | Origin::ToStore(now) => {
                Transition::Supply { stamp: now, heat: heat_on_supply(before, now) }
            }
            Origin::Stored(now) => Transition::SupplyDirty { stamp: now, heat: heat_on_supply(before, now) },
            Origin::InAdvance(now) => Transition::Supply { stamp: now, heat: heat_on_read_ahead() },
        }
    }
}

/// Why pages were not put in place.
#[derive(Debug)]
pub enum PlaceError<E> {
    /// The object ends before them: it was cut off since somebody wished for them.
    CutOff,
    /// The host cannot.
    Host(E),
}

impl<E> From<E> for PlaceError<E> {
    fn from(error: E) -> Self {
        PlaceError::Host(error)
    }
}

/// Neighbouring pages in state Filling, owned by this value. Dropped without an answer they are Absent again.
#[derive(Debug)]
pub struct FillClaim<H: Host> {
    owner: Arc<Pages<H>>,
    pages: PageRange,
}

/// What is left of a claim, and why.
pub type Unplaced<H> = (FillClaim<H>, PlaceError<<H as Frames>::Error>);

impl<H: Host> Pages<H> {
    /// Claims one absent page, or returns the word that it has instead. Never blocks, never allocates.
    pub fn claim(self: &Arc<Self>, page: PageIndex, placement: Placement) -> Result<FillClaim<H>, Word> {
        self.advance(page, Transition::Claim { deferred: placement == Placement::WhenWanted })?;
        Ok(FillClaim { owner: Arc::clone(self), pages: PageRange::one(page) })
    }

    /// Claims absent pages from the start of `pages` on, up to the first that is not absent.
    pub fn claim_run(self: &Arc<Self>, pages: PageRange, placement: Placement) -> Option<FillClaim<H>> {
        let deferred = placement == Placement::WhenWanted;
        let mut end = pages.start;
        while end < pages.end && self.advance(PageIndex(end), Transition::Claim { deferred }).is_ok() {
            end += 1;
        }
        let pages = PageRange { start: pages.start, end };
        (!pages.is_empty()).then(|| FillClaim { owner: Arc::clone(self), pages })
    }
}

impl<H: Host> FillClaim<H> {
    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// Their bytes, up to the end of the object.
    pub fn bytes(&self) -> ByteRange {
        self.owner.bytes_of(self.pages)
    }

    /// Bytes of frames that they need.
    pub fn frame_bytes(&self) -> u64 {
        self.pages.len() << self.owner.page_size.shift()
    }

    /// Splits off the pages from `page` on.
    pub fn split_off(&mut self, page: PageIndex) -> FillClaim<H> {
        assert!(self.pages.start <= page.0 && page.0 <= self.pages.end);
        let rest = PageRange { start: page.0, end: self.pages.end };
        self.pages.end = page.0;
        FillClaim { owner: Arc::clone(&self.owner), pages: rest }
    }

    /// Adds the pages of `next`, which follow. `next` comes back if they do not.
    pub fn join(&mut self, mut next: FillClaim<H>) -> Option<FillClaim<H>> {
        if next.pages.start != self.pages.end {
            return Some(next);
        }
        self.pages.end = core::mem::take(&mut next.pages).end;
        None
    }

    /// As [`place_copy`](Self::place_copy) of bytes that the pager does not have, at this tick of the cache's clock; but
    /// the pages are pinned for writing when others see them.
    pub(super) fn place_alone(mut self, source: &[u8], now: u8) -> Result<(), Unplaced<H>> {
        let (done, error) = self.copy_in(source, Wake::AtOnce);
        self.supplied_as(done, &|before| Transition::SupplyPinnedMut {
            stamp: now,
            heat: heat_on_supply(before, now),
        });
        match error {
            None => Ok(()),
            Some(error) => Err((self, error)),
        }
    }

    /// Whether the object ends before some of the pages. Who makes it shorter waits for pages that are claimed, and for
    /// those that are put in place. So a claim that comes too late for that must not put any in place: they would be
    /// behind the end, where memory is dropped unseen when the object grows again.
    fn is_cut_off(&self) -> bool {
        if self.owner.writes == Writes::No {
            return false;
        }
        // The claim is seen, or the new length is: `set_length` has the other half.
        fence(Ordering::SeqCst);
        self.pages.end > self.owner.pages()
    }

    /// Copies `source` in; says how many pages are in place, and why not more.
    fn copy_in(&self, source: &[u8], wake: Wake) -> (u64, Option<PlaceError<H::Error>>) {
        if self.is_cut_off() {
            return (0, Some(PlaceError::CutOff));
        }
        match self.owner.host.copy_in(Held::new(), self.pages, source, wake) {
            Ok(()) => (self.pages.len(), None),
            Err((done, error)) => (done, Some(error.into())),
        }
    }

    /// Puts copies of `source` in place; it holds the pages' bytes, rounded up to 4 KiB with whatever shall be
    /// read past the end of the object. The caller has reserved [`frame_bytes`](Self::frame_bytes) of budget,
    /// which the pages keep. On error the claim comes back with the pages that are not in place.
    pub fn place_copy(mut self, source: &[u8], origin: Origin) -> Result<(), Unplaced<H>> {
        let wake = if matches!(origin, Origin::ToStore(_)) { Wake::Later } else { Wake::AtOnce };
        let (done, error) = self.copy_in(source, wake);
        let placed = PageRange { start: self.pages.start, end: self.pages.start + done };
        self.supplied(done, origin);
        if wake == Wake::Later {
            self.owner.open_placed(placed);
        }
        match error {
            None => Ok(()),
            Some(error) => Err((self, error)),
        }
    }

    /// Moves `frame` in place for the one page of this claim. The caller reserved nothing: the frame is counted.
    pub fn place_frame(mut self, frame: H::Frame, origin: Origin) -> Result<(), Unplaced<H>> {
        assert!(self.pages.len() == 1, "one frame fills one page");
        if self.is_cut_off() {
            return Err((self, PlaceError::CutOff));
        }
        match self.owner.host.move_in(Held::new(), PageIndex(self.pages.start), frame) {
            Ok(()) => {
                self.supplied(1, origin);
                Ok(())
            }
            Err(error) => Err((self, error.into())),
        }
    }

    /// Makes the first `count` pages Clean, or Dirty, and keeps the rest.
    fn supplied(&mut self, count: u64, origin: Origin) {
        self.supplied_as(count, &|before| origin.transition(before));
    }

    /// As `supplied`; `transition` says how a page whose word was so leaves Filling.
    fn supplied_as(&mut self, count: u64, transition: &dyn Fn(Word) -> Transition) {
        let owner = &self.owner;
        let placed = PageRange { start: self.pages.start, end: self.pages.start + count };
        self.pages.start = placed.end;
        owner.parts_by_block(placed, |block, part| owner.resident.add(block, part.len() as u32));
        if !matches!(transition(Word::default()), Transition::Supply { .. }) {
            owner.count_unclean(placed);
        }
        for page in placed.iter() {
            owner.settle(page, transition(owner.word(page)));
        }
        if !placed.is_empty() {
            owner.host.wake_others(placed);
        }
    }

    /// Makes the pages trap. The caller has recorded why before.
    pub fn fail(mut self) {
        let pages = core::mem::take(&mut self.pages);
        for page in pages.iter() {
            self.owner.host.poison(PageRange::one(page));
            self.owner.settle(page, Transition::Fail);
        }
        self.owner.host.wake(pages);
    }
}

impl<H: Host> Drop for FillClaim<H> {
    fn drop(&mut self) {
        for page in self.pages.iter() {
            assert_eq!(self.owner.word(page).state(), State::Filling, "page {page} left its claim");
            self.owner.settle(page, Transition::Abandon);
        }
        if !self.pages.is_empty() {
            self.owner.host.wake(self.pages);
        }
    }
}
