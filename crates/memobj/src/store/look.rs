//! Where a fault is, and whether its page is there.

use memobj_core::address::PageIndex;
use memobj_core::decide::{Decision, Fault, Wish, decide};
use memobj_sys::area::Looked;
use memobj_sys::uffd::Announce;

use super::{FrameStore, Request};

impl FrameStore {
    /// Offset in the object, and how faults are announced where `address` is.
    pub(crate) fn place_of(&self, address: usize) -> Option<(u64, Announce)> {
        self.area.views().find_map(|(start, len, announce)| {
            let offset = address.checked_sub(start).filter(|offset| *offset < len)?;
            Some((offset as u64, announce))
        })
    }

    /// An access found no page where the word says that there is one: either it was placed this moment, or somebody
    /// dropped our frame behind our back (madvise from outside). Then the word must not say resident for ever: what
    /// the pager has is obtained again, and changes that nobody else has are lost. Not for signal handlers.
    pub(crate) fn look(&self, page: PageIndex, offset: u64) {
        if decide(self.area.word(page), Wish::Load(Fault::Missing)) == Decision::Look
            && let Looked::Gone(gone) = self.area.look(page, offset, self.cache.room.ages.now())
        {
            self.lose(gone);
        }
    }

    /// Tells the driver that somebody waits for a page that it keeps ready.
    pub(crate) fn demand(&self, page: PageIndex) {
        self.cache.requests.ask(Request::Demand { store: self.this.clone(), page });
    }
}
