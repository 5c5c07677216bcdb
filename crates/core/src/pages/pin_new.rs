//! Pins for writing of bytes that will be written whole: nobody is asked for what they were.
//!
//! Pages that are there are pinned as by a [`MutPinSet`]. Absent ones are claimed, and held in Filling until all others are
//! pinned; then they are put in place as zeros, Dirty and pinned in one step. So others see zeros by the word only if the
//! pins end, and until the last page is pinned nothing has changed. If the set is dropped after that without becoming
//! pins, new pages are absent again: they have never been anybody's.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::{FillClaim, Held, Host, MutPinSet, Pages, PinError, PlaceError, Placement, Writes};
use crate::address::{PageIndex, PageRange};
use crate::page_word::Transition;

/// See the module.
#[derive(Debug)]
pub struct NewPinSet<H: Host> {
    owner: Arc<Pages<H>>,
    pages: PageRange,
    /// By page: whether it is pinned.
    pinned: Vec<bool>,
    /// Absent pages of `whole`, in order; each has its bytes of the pin budget.
    claims: Vec<FillClaim<H>>,
    /// Pinned pages that are new.
    new: Vec<PageRange>,
    /// The first page that touches may be under way of.
    touched: u64,
}

impl<H: Host> NewPinSet<H> {
    /// No page of `pages` pinned yet. The object can be written. `None` if they are not all the object's: it can have been
    /// cut off a moment ago.
    pub fn new(owner: Arc<Pages<H>>, pages: PageRange) -> Option<Self> {
        assert!(owner.writes() == Writes::Yes);
        let fits = pages.end <= owner.pages();
        let pinned = vec![false; if fits { pages.len() as usize } else { 0 }];
        let touched = pages.start;
        fits.then(|| Self { owner, pages, pinned, claims: Vec::new(), new: Vec::new(), touched })
    }

    /// Pins each page that is there, and claims absent ones of `whole`, which may be new. On error, which is of the first
    /// page where that is not possible now, nothing is claimed.
    pub fn try_pin_all(&mut self, whole: PageRange) -> Result<(), (PageIndex, PinError)> {
        for page in self.pages.iter() {
            if let Err(error) = self.try_pin(page, whole) {
                self.give_up_claims();
                return Err((page, error));
            }
        }
        Ok(())
    }

    fn try_pin(&mut self, page: PageIndex, whole: PageRange) -> Result<(), PinError> {
        let at = (page.0 - self.pages.start) as usize;
        if self.pinned[at] {
            return Ok(());
        }
        if whole.contains(page) && self.owner.word(page).is_free() {
            return self.claim(page);
        }
        self.owner.pin_alone(page)?;
        self.pinned[at] = true;
        Ok(())
    }

    fn claim(&mut self, page: PageIndex) -> Result<(), PinError> {
        let bytes = self.owner.page_size.bytes();
        if !self.owner.pin_budget.try_reserve(bytes) {
            return Err(PinError::OverBudget);
        }
        let claim = self.owner.claim(page, Placement::AtOnce).and_then(|claim| {
            // A page that has lost its frame to others while it is pinned comes back as it was.
            let word = self.owner.word(page);
            if word.pins() > 0 { Err(word) } else { Ok(claim) }
        });
        let claim = claim.map_err(|word| {
            self.owner.pin_budget.release(bytes);
            PinError::NotClean(word)
        })?;
        let rest = match self.claims.last_mut() {
            Some(last) => last.join(claim),
            None => Some(claim),
        };
        self.claims.extend(rest);
        Ok(())
    }

    /// What is claimed is absent again.
    pub fn give_up_claims(&mut self) {
        while let Some(claim) = self.claims.pop() {
            self.give_up(claim);
        }
    }

    /// As above, of a claim that was taken.
    pub fn give_up(&mut self, claim: FillClaim<H>) {
        self.owner.pin_budget.release(claim.frame_bytes());
    }

    /// Takes claimed pages out, at most `most`, to be put in place. `None` if there are no more: all pages are pinned.
    pub fn take_claim(&mut self, most: u64) -> Option<FillClaim<H>> {
        let mut claim = self.claims.pop()?;
        let pages = claim.pages();
        if pages.len() > most {
            let last = claim.split_off(PageIndex(pages.end - most));
            self.claims.push(claim);
            return Some(last);
        }
        Some(claim)
    }

    /// Puts `zeros`, which are as many as the pages of `claim` have bytes, in place, and pins them. The caller has reserved
    /// the frames. `now` is the tick of the cache's clock. On error says of how many bytes the frames are not in use.
    pub fn place(
        &mut self,
        claim: FillClaim<H>,
        zeros: &[u8],
        now: u8,
    ) -> Result<(), (u64, PlaceError<H::Error>)> {
        let pages = claim.pages();
        let (rest, error) = match claim.place_alone(zeros, now) {
            Ok(()) => (None, None),
            Err((rest, error)) => (Some(rest), Some(error)),
        };
        let placed =
            PageRange { start: pages.start, end: rest.as_ref().map_or(pages.end, |rest| rest.pages().start) };
        placed.iter().for_each(|page| self.pinned[(page.0 - self.pages.start) as usize] = true);
        self.owner.open_pinned(placed);
        self.new.push(placed);
        let bytes = rest.as_ref().map_or(0, FillClaim::frame_bytes);
        rest.into_iter().for_each(|rest| self.give_up(rest));
        error.map_or(Ok(()), |error| Err((bytes, error)))
    }

    /// A page that somebody may be loading still, by a touch that began before it was pinned, once all are. `None`: there
    /// is none, and none will be.
    pub fn first_touched(&mut self) -> Option<PageIndex> {
        self.owner.touches.first(&mut self.touched, self.pages.end)
    }

    /// The pins, once every page is pinned and no touch of one is under way; otherwise they end.
    pub fn into_pins(mut self) -> Option<MutPinSet<H>> {
        if self.pinned.contains(&false) {
            return None;
        }
        self.pinned.clear();
        self.new.clear();
        Some(MutPinSet::of_pinned(Arc::clone(&self.owner), self.pages, self.touched))
    }
}

impl<H: Host> Drop for NewPinSet<H> {
    fn drop(&mut self) {
        self.give_up_claims();
        for page in core::mem::take(&mut self.new).into_iter().flat_map(PageRange::iter) {
            self.pinned[(page.0 - self.pages.start) as usize] = false;
            self.owner.forget_new(page);
        }
        for (page, _) in self.pages.iter().zip(&self.pinned).filter(|(_, is_pinned)| **is_pinned) {
            self.owner.unpin_alone(page);
        }
    }
}

impl<H: Host> Pages<H> {
    /// Opens `pages`, which the caller has pinned for writing, in the host's own view. Where others open a page this
    /// moment, that is not needed.
    fn open_pinned(&self, pages: PageRange) {
        let mut start = pages.start;
        while start < pages.end {
            let is_locked = |page: &PageIndex| self.advance(*page, Transition::LockToStore).is_ok();
            let run = PageRange { start, end: pages.end };
            let run = PageRange { start, end: start + run.iter().take_while(is_locked).count() as u64 };
            if !run.is_empty() {
                self.host.open(Held::new(), run, self.host.own());
                run.iter().for_each(|page| self.settle(page, Transition::Stored));
            }
            start = run.end + 1;
        }
    }

    /// Ends the pin of a page that is new, and has it absent as it was before.
    fn forget_new(&self, page: PageIndex) {
        while let Err(word) = self.advance(page, Transition::LockToStore) {
            if word.has_failed() {
                return self.unpin_alone(page);
            }
            // Others hold it for a call of the host at most: they open it to a store, or look for its frame.
            self.host.pause();
        }
        self.unpin_alone(page);
        if !self.host.drop_frames(Held::new(), PageRange::one(page)) {
            return self.settle(page, Transition::Stored);
        }
        let stamp = self.word(page).stamp();
        self.dropped(page, stamp);
    }
}
