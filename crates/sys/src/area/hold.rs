//! Pages that stay as they are while the length of their object changes.

use std::ops::Range;
use std::sync::Arc;

use memobj_core::address::PageIndex;
use memobj_core::page_word::{State, Transition, Word};

use super::{Area, StoreRefused, Writes};
use crate::region::SMALL;

/// A page that nobody else fills, pins, evicts or writes back until it is dropped. A resident one is Dirty.
#[derive(Debug)]
pub struct HeldPage {
    area: Arc<Area>,
    page: PageIndex,
    state: State,
}

impl Area {
    /// Holds `page`, or returns the word that forbids it: somebody owns or pins it. A page that has failed needs no
    /// holding.
    pub fn hold(self: &Arc<Self>, page: PageIndex) -> Result<HeldPage, Word> {
        assert!(self.writes == Writes::Yes);
        let held = |state| Ok(HeldPage { area: Arc::clone(self), page, state });
        if self.word(page).state() == State::Failed {
            return held(State::Failed);
        }
        if self.advance(page, Transition::Hold).is_ok() {
            return held(State::Evicting);
        }
        self.lock_alone(page)?;
        held(State::Dirty)
    }

    /// Lets addresses trap no longer that did because they lay past the end, and extends the object to `length`.
    pub fn extend(&self, length: u64) {
        let start = self.offset_in_view(self.pages());
        let end = self.offset_in_view(self.page_size.pages_for(length));
        if start < end {
            // SAFETY: the pages lie behind the end of the object, so none has a frame; and none can get one before
            // the length is set.
            unsafe { self.lift_poison(start, end - start) };
        }
        self.set_length(length);
    }
}

impl HeldPage {
    /// Zeroes these bytes of the page, if it is resident.
    pub fn zero(&mut self, bytes: Range<usize>) -> Result<(), StoreRefused> {
        assert!(bytes.start <= bytes.end && bytes.end <= SMALL);
        if self.state != State::Dirty {
            return Ok(());
        }
        let start = self.area.offset_in_view(self.page.0) + bytes.start;
        self.area.store_alone(start, &[0; SMALL][bytes])
    }
}

impl Drop for HeldPage {
    fn drop(&mut self) {
        match self.state {
            State::Dirty => self.area.settle(self.page, Transition::UnpinMut),
            State::Evicting => self.area.settle(self.page, Transition::Release),
            _ => {}
        }
    }
}
