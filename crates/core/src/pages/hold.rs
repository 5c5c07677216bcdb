//! Pages that stay as they are while the length of their object changes.

use core::ops::Range;

use alloc::sync::Arc;

use super::{Held, Host, Pages, StoreRefused, Writes};
use crate::address::{PageIndex, PageRange};
use crate::page_word::{State, Transition, Word};

/// A page that nobody else fills, pins, evicts or writes back until it is dropped. A resident one is Dirty.
#[derive(Debug)]
pub struct HeldPage<H: Host> {
    owner: Arc<Pages<H>>,
    page: PageIndex,
    state: State,
}

impl<H: Host> Pages<H> {
    /// Holds `page`, or returns the word that forbids it: somebody owns or pins it. A page that has failed needs no
    /// holding.
    pub fn hold(self: &Arc<Self>, page: PageIndex) -> Result<HeldPage<H>, Word> {
        assert!(self.writes == Writes::Yes);
        let held = |state| Ok(HeldPage { owner: Arc::clone(self), page, state });
        if self.word(page).state() == State::Failed {
            return held(State::Failed);
        }
        if let Ok(advanced) = self.advance(page, Transition::Hold) {
            if advanced.before.pins() == 0 {
                return held(State::Evicting);
            }
            // Its frame was dropped from outside. Who pins it is to get back what he had.
            self.settle(page, Transition::Release);
            return Err(advanced.before);
        }
        self.lock_alone(page)?;
        held(State::Dirty)
    }

    /// Lets addresses trap no longer that did because they lay past the end, and extends the object to `length`.
    pub fn extend(&self, length: u64) {
        let behind = PageRange { start: self.pages(), end: self.page_size.pages_for(length) };
        if behind.start < behind.end {
            self.host.lift_poison(Held::new(), behind);
        }
        self.set_length(length);
    }
}

impl<H: Host> HeldPage<H> {
    /// Whether the page had failed. Then nobody is kept off it: it can be asked for again meanwhile.
    pub fn had_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// Zeroes these bytes of the page, if it is resident.
    pub fn zero(&mut self, bytes: Range<usize>) -> Result<(), StoreRefused> {
        const ZEROS: [u8; 4096] = [0; 4096];
        if self.state != State::Dirty {
            return Ok(());
        }
        let start = (self.page.0 << self.owner.page_size.shift()) + bytes.start as u64;
        self.owner.store_alone(start, &ZEROS[bytes])
    }
}

impl<H: Host> Drop for HeldPage<H> {
    fn drop(&mut self) {
        match self.state {
            State::Dirty => self.owner.settle(self.page, Transition::UnpinMut),
            State::Evicting => self.owner.settle(self.page, Transition::Release),
            _ => {}
        }
    }
}
