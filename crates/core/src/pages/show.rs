//! Where pages come into view by an explicit call, never by themselves.
//!
//! *Large frame files.* Any write to such a file makes a whole frame, whose rest reads as zeros. So views are told to
//! show a page only by somebody who keeps it from changing hands: the owner of its claim, once all bytes are in the
//! file, or whoever holds a Clean page. A frame that is evicted and filled again meanwhile could else be shown
//! half-written.
//!
//! *Pages that can be written.* They get into their file whole, so they may be shown at any time: what is there is right.
//! But they are shown write-protected, always, so that no protection that is put on meanwhile is undone. They are
//! shown open by nobody but who has locked them to open them, see `store`.

use super::{Held, Host, Pages, Shows};
use crate::address::{PageIndex, PageRange};
use crate::page_word::{State, Transition};

impl<H: Host> Pages<H> {
    /// Makes `viewer`'s view show `page`, and wakes its sleepers: one that can be written if it is resident, any other if
    /// it is Clean. Does nothing where views show their pages by themselves. Safe in a signal handler.
    pub fn show(&self, page: PageIndex, viewer: H::Viewer) {
        match self.host.shows() {
            Shows::Unasked => {}
            Shows::WhenTold => self.host.show(Held::new(), page, viewer),
            Shows::WhenHeld => self.show_held(page, viewer),
        }
    }

    /// A page with pins takes one more; one without is taken out of the hand's reach. Not by a pin: the first would
    /// have to find room among the pins. With the most pins there can be, the fault comes again until one of them ends.
    fn show_held(&self, page: PageIndex, viewer: H::Viewer) {
        if self.advance(page, Transition::PinAgain).is_ok() {
            self.host.show(Held::new(), page, viewer);
            self.unpin_page(page);
        } else if self.advance(page, Transition::Evict).is_ok() {
            self.host.show(Held::new(), page, viewer);
            self.settle(page, Transition::Spare);
        }
    }

    /// Shows the Clean pages among `pages` in every view in use, where they are not shown yet.
    pub fn show_clean(&self, pages: PageRange) {
        if self.host.shows() == Shows::Unasked {
            return;
        }
        for page in pages.iter().filter(|page| self.word(*page).state() == State::Clean) {
            self.host.each_without(page, &mut |viewer| self.show(page, viewer));
        }
    }
}
