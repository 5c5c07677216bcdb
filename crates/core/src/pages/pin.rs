//! Pages that stay, with the bytes that they have.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::{Held, Host, Pages, StoreRefused, Writes};
use crate::address::{PageIndex, PageRange};
use crate::page_word::{Advanced, State, Transition, Word};

/// Why a page could not be pinned now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinError {
    /// It is not resident, or pinned for writing; this is its word.
    NotClean(Word),
    /// It carries the most pins that a page can carry.
    TooManyPins,
    /// Pins hold as much of the budget as they may.
    OverBudget,
    /// It is Dirty by its word, and its frame was dropped from outside: [`Pages::look`] is next.
    FrameGone,
}

/// A growing set of pinned pages inside one range; all pins end when it is dropped.
#[derive(Debug)]
pub struct PinSet<H: Host> {
    owner: Arc<Pages<H>>,
    pages: PageRange,
    first: u64,
    more: Vec<u64>,
    missing: u64,
}

impl<H: Host> PinSet<H> {
    /// No page of `pages` pinned yet. `None` if they are not all the object's: it can have been cut off a moment ago.
    pub fn new(owner: Arc<Pages<H>>, pages: PageRange) -> Option<Self> {
        if pages.end > owner.pages() {
            return None;
        }
        let more = vec![0; (pages.len().saturating_sub(1) / 64) as usize];
        Some(Self { owner, pages, first: 0, more, missing: pages.len() })
    }

    /// Whose pages they are.
    pub fn owner(&self) -> &Arc<Pages<H>> {
        &self.owner
    }

    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// How many are not pinned yet.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    fn bit(&mut self, page: PageIndex) -> (&mut u64, u64) {
        let index = page.0 - self.pages.start;
        let word = match index / 64 {
            0 => &mut self.first,
            word => &mut self.more[word as usize - 1],
        };
        (word, 1 << (index % 64))
    }

    /// Whether `page` is pinned by this set.
    pub fn contains(&self, page: PageIndex) -> bool {
        let index = page.0 - self.pages.start;
        let word = match index / 64 {
            0 => self.first,
            word => self.more[word as usize - 1],
        };
        word & (1 << (index % 64)) != 0
    }

    /// Pins `page`, unless this set has done so already.
    pub fn try_pin(&mut self, page: PageIndex) -> Result<(), PinError> {
        if self.contains(page) {
            return Ok(());
        }
        self.owner.pin_page(page)?;
        let (word, bit) = self.bit(page);
        *word |= bit;
        self.missing -= 1;
        Ok(())
    }

    /// The pin of `page` has ended by other means.
    pub(super) fn forget(&mut self, page: PageIndex) {
        assert!(self.contains(page));
        let (word, bit) = self.bit(page);
        *word &= !bit;
        self.missing += 1;
    }
}

impl<H: Host> Drop for PinSet<H> {
    fn drop(&mut self) {
        for page in self.pages.iter() {
            if self.contains(page) {
                self.owner.unpin_page(page);
            }
        }
    }
}

impl<H: Host> Pages<H> {
    /// The first pin of a page reserves its frame in the pin budget, the last one releases it.
    fn pin_page(&self, page: PageIndex) -> Result<(), PinError> {
        let Err(word) = self.advance(page, Transition::PinAgain) else { return Ok(()) };
        if !word.is_readable() {
            return Err(PinError::NotClean(word));
        }
        if word.pins() > 0 {
            return Err(PinError::TooManyPins);
        }
        let bytes = self.page_size.bytes();
        if !self.pin_budget.try_reserve(bytes) {
            return Err(PinError::OverBudget);
        }
        let pinned = self.first_pin(page);
        if !matches!(&pinned, Ok(advanced) if advanced.before.pins() == 0) {
            self.pin_budget.release(bytes);
        }
        match pinned {
            Ok(_) => Ok(()),
            Err(None) => Err(PinError::FrameGone),
            Err(Some(word)) if word.is_readable() && word.pins() > 0 => Err(PinError::TooManyPins),
            Err(Some(word)) => Err(PinError::NotClean(word)),
        }
    }

    /// A page that is open to stores is protected first, so that its bytes cannot change under the pin. The word that
    /// forbids the pin; or `None` if the frame is gone, with bytes that nobody else has.
    fn first_pin(&self, page: PageIndex) -> Result<Advanced, Option<Word>> {
        let word = match self.advance(page, Transition::Pin) {
            Ok(advanced) => return Ok(advanced),
            Err(word) if word.state() == State::Dirty => word,
            Err(word) => return Err(Some(word)),
        };
        if word.pins() > 0 {
            return self.advance(page, Transition::PinAgain).map_err(Some);
        }
        self.advance(page, Transition::LockToPin).map_err(Some)?;
        if self.host.protect(PageRange::one(page)).is_err() {
            self.settle(page, Transition::Stored);
            return Err(Some(word));
        }
        if !self.has_frame(page) {
            self.settle(page, Transition::Stored);
            return Err(None);
        }
        Ok(self.settled(page, Transition::PinnedDirty))
    }

    pub(super) fn unpin_page(&self, page: PageIndex) {
        if self.settled(page, Transition::Unpin).after.pins() == 0 {
            self.pin_budget.release(self.page_size.bytes());
        }
    }
}

/// A growing set of pages pinned for writing; all pins end when it is dropped.
#[derive(Debug)]
pub struct MutPinSet<H: Host> {
    owner: Arc<Pages<H>>,
    pages: PageRange,
    /// The first page that is not pinned yet.
    next: u64,
    /// The first page that touches may be under way of.
    touched: u64,
}

impl<H: Host> MutPinSet<H> {
    /// No page of `pages` pinned yet. The object can be written. `None` if they are not all the object's: it can have
    /// been cut off a moment ago.
    pub fn new(owner: Arc<Pages<H>>, pages: PageRange) -> Option<Self> {
        assert!(owner.writes() == Writes::Yes);
        let fits = pages.end <= owner.pages();
        fits.then(|| Self { owner, pages, next: pages.start, touched: pages.start })
    }

    /// Whose pages they are.
    pub fn owner(&self) -> &Arc<Pages<H>> {
        &self.owner
    }

    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// The page to pin next; `None` once all are.
    pub fn next(&self) -> Option<PageIndex> {
        (self.next < self.pages.end).then_some(PageIndex(self.next))
    }

    /// Pins the next page.
    pub fn try_pin_next(&mut self) -> Result<(), PinError> {
        self.owner.pin_alone(PageIndex(self.next))?;
        self.next += 1;
        Ok(())
    }

    /// All of `pages`, which the caller has pinned for writing. No touch is under way of those before `touched`.
    pub(super) fn of_pinned(owner: Arc<Pages<H>>, pages: PageRange, touched: u64) -> Self {
        Self { owner, pages, next: pages.end, touched }
    }

    /// A pinned page whose bytes somebody may still be loading, by a touch that began before it was pinned. `None`: there
    /// is none, and none will be.
    pub fn first_touched(&mut self) -> Option<PageIndex> {
        self.owner.touches.first(&mut self.touched, self.next)
    }

    /// Copies `source` to byte `offset` of the object, in one of the pages that are pinned.
    pub fn store(&self, offset: u64, source: &[u8]) -> Result<(), StoreRefused> {
        let page = PageIndex(offset >> self.owner.page_size.shift());
        assert!((self.pages.start..self.next).contains(&page.0), "page {page} is not pinned");
        self.owner.store_alone(offset, source)
    }

    /// Whether every page is pinned, and no touch of one is under way.
    pub fn is_alone(&self) -> bool {
        self.touched >= self.pages.end
    }
}

impl<H: Host> Drop for MutPinSet<H> {
    fn drop(&mut self) {
        for page in (PageRange { start: self.pages.start, end: self.next }).iter() {
            self.owner.unpin_alone(page);
        }
    }
}

impl<H: Host> Pages<H> {
    /// Pins the resident `page` for writing, and reserves its frame in the pin budget.
    pub(super) fn pin_alone(&self, page: PageIndex) -> Result<(), PinError> {
        let bytes = self.page_size.bytes();
        if !self.pin_budget.try_reserve(bytes) {
            return Err(PinError::OverBudget);
        }
        let locked = self.lock_present(page, Transition::LockToPinMut).map_err(PinError::NotClean);
        if let Err(error) = locked.and_then(|before| self.refuse_gone(page, before)) {
            self.pin_budget.release(bytes);
            return Err(error);
        }
        self.host.open(Held::new(), PageRange::one(page), self.host.own());
        self.settle(page, Transition::PinnedMut);
        Ok(())
    }

    pub(super) fn unpin_alone(&self, page: PageIndex) {
        self.settle(page, Transition::UnpinMut);
        self.pin_budget.release(self.page_size.bytes());
    }
}
