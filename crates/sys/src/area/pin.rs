//! Bytes that cannot go away and cannot change.

use std::ops::Deref;
use std::sync::Arc;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::{Advanced, State, Transition, Word};

use super::Area;

/// Why a page could not be pinned now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinError {
    /// It is not resident, or pinned for writing; this is its word.
    NotClean(Word),
    /// It carries the most pins that a page can carry.
    TooManyPins,
    /// Pins hold as much of the budget as they may.
    OverBudget,
    /// It is Dirty by its word, and its frame was dropped from outside: [`Area::look`] is next.
    FrameGone,
}

/// A growing set of pinned pages inside one range; all pins end when it is dropped.
#[derive(Debug)]
pub struct PinSet {
    area: Arc<Area>,
    pages: PageRange,
    first: u64,
    more: Vec<u64>,
    missing: u64,
}

impl PinSet {
    /// No page of `pages` pinned yet; the pages are the object's.
    pub fn new(area: Arc<Area>, pages: PageRange) -> Self {
        assert!(pages.end <= area.pages());
        let more = vec![0; (pages.len().saturating_sub(1) / 64) as usize];
        Self { area, pages, first: 0, more, missing: pages.len() }
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
        self.area.pin_page(page)?;
        let (word, bit) = self.bit(page);
        *word |= bit;
        self.missing -= 1;
        Ok(())
    }

    /// The bytes, once every page is pinned; `bytes` lies inside the pages. Gives the set back otherwise.
    pub fn into_bytes(self, bytes: ByteRange) -> Result<PinnedBytes, PinSet> {
        if self.missing > 0
            || self.area.page_size.pages_of(bytes) != self.pages
            || bytes.end > self.area.length()
        {
            return Err(self);
        }
        Ok(PinnedBytes { pins: self, bytes })
    }
}

impl Drop for PinSet {
    fn drop(&mut self) {
        for page in self.pages.iter() {
            if self.contains(page) {
                self.area.unpin_page(page);
            }
        }
    }
}

impl Area {
    /// The first pin of a page reserves its frame in the pin budget, the last one releases it.
    fn pin_page(&self, page: PageIndex) -> Result<(), PinError> {
        let Err(word) = self.advance(page, Transition::PinAgain) else { return Ok(()) };
        if !word.is_resident() || word.is_pinned_mut() {
            return Err(PinError::NotClean(word));
        }
        if word.pins() > 0 {
            return Err(PinError::TooManyPins);
        }
        let bytes = self.page_size.bytes();
        if !self.pin_budget.try_reserve(bytes) {
            return Err(PinError::OverBudget);
        }
        match self.first_pin(page) {
            Ok(advanced) => {
                if advanced.before.pins() > 0 {
                    self.pin_budget.release(bytes);
                }
                Ok(())
            }
            Err(None) => {
                self.pin_budget.release(bytes);
                Err(PinError::FrameGone)
            }
            Err(Some(word)) => {
                self.pin_budget.release(bytes);
                Err(if word.is_resident() && word.pins() > 0 && !word.is_pinned_mut() {
                    PinError::TooManyPins
                } else {
                    PinError::NotClean(word)
                })
            }
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
        if self.protect(PageRange::one(page)).is_err() {
            let _ = self.advance(page, Transition::Stored);
            return Err(Some(word));
        }
        if !self.is_present_at(self.offset_in_view(page.0) as u64) {
            self.settle(page, Transition::Stored);
            return Err(None);
        }
        let pinned = self.advance(page, Transition::PinnedDirty);
        debug_assert!(pinned.is_ok(), "page {page} left Changing under its owner: {pinned:?}");
        pinned.map_err(Some)
    }

    pub(super) fn unpin_page(&self, page: PageIndex) {
        let done = self.advance(page, Transition::Unpin);
        debug_assert!(done.is_ok(), "page {page} lost a pin: {done:?}");
        if done.is_ok_and(|advanced| advanced.after.pins() == 0) {
            self.pin_budget.release(self.page_size.bytes());
        }
    }
}

/// Pinned bytes of an object.
#[derive(Debug)]
pub struct PinnedBytes {
    pins: PinSet,
    bytes: ByteRange,
}

impl Deref for PinnedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let view = &self.pins.area.views[0];
        let start = view.region.pointer(self.bytes.start as usize);
        // SAFETY: every page of the range is pinned by `pins`, so each holds a frame that eviction leaves alone;
        // bytes are put in place only into absent pages; the region lives as long as the area, which `pins` keeps.
        unsafe { std::slice::from_raw_parts(start, self.bytes.len() as usize) }
    }
}
