//! Waiting for a page without sleeping: for event loops.

use std::sync::Arc;

use memobj_core::address::PageIndex;
use memobj_core::page_word::Word;

use super::Area;
use crate::fault_loop::{Awaited, Listener, Listeners};

/// What somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// That nobody owns the page.
    Free,
    /// That nothing about the page keeps a plain store off.
    OpenToStores,
}

/// A sleeper on the word of a page who does not sleep: the fault loop is told when the word changes.
#[derive(Debug)]
pub struct PageWatch {
    area: Listener<Watched>,
    page: PageIndex,
    seen: Word,
}

struct Watched(Arc<Area>);

impl AsRef<Listeners> for Watched {
    fn as_ref(&self) -> &Listeners {
        &self.0.listeners
    }
}

impl PageWatch {
    /// `None`: there is nothing to wait for.
    pub fn new(area: &Arc<Area>, page: PageIndex, until: Until) -> Option<Self> {
        let listener = Listener::new(Watched(Arc::clone(area)));
        let seen = match until {
            Until::Free => area.announce_waiter(page),
            Until::OpenToStores => area.announce_storer(page),
        }?;
        Some(Self { area: listener, page, seen })
    }
}

impl Awaited for PageWatch {
    fn is_over(&self) -> bool {
        self.area.0.word(self.page) != self.seen
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use memobj_core::budget::Budget;
    use memobj_core::pin_budget::PinBudget;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::area::{AreaOptions, Frames, Origin, Placement, Tables, Writes};
    use crate::eventfd::EventFd;
    use crate::fault_loop::testing::hear_changes;
    use crate::region::SMALL;

    fn area() -> Arc<Area> {
        crate::area::new(AreaOptions {
            name: "watched".into(),
            length: 4 * SMALL as u64,
            home: None,
            capacity: 0,
            writes: Writes::Yes,
            unwritten: Arc::default(),
            tables: Arc::new(Tables::new(0)),
            storage: crate::area::Storage::Own,
            frames: Frames::LocalSmall,
            views: Vec::new(),
            budget: Arc::new(Budget::new(1 << 20)),
            pin_budget: Arc::new(PinBudget::new(1 << 20)),
        })
        .unwrap()
    }

    fn rings(doorbell: &EventFd) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let rung = poll(&mut [PollFd::new(&doorbell.as_fd(), PollFlags::IN)], Some(&at_once)).unwrap() > 0;
        doorbell.clear();
        rung
    }

    /// Not by looking again after some time: whoever moves the page on wakes the loop.
    #[test]
    fn a_loop_is_woken_when_the_word_changes() {
        let (area, doorbell) = (area(), hear_changes());
        let (page, other) = (PageIndex(1), PageIndex(2));
        assert!(PageWatch::new(&area, page, Until::Free).is_none(), "nobody has it");
        let claim = area.claim(page, Placement::AtOnce).unwrap();
        drop(area.claim(other, Placement::AtOnce).unwrap());
        let watch = PageWatch::new(&area, page, Until::Free).unwrap();
        drop(area.claim(other, Placement::AtOnce).unwrap());
        assert!(!watch.is_over(), "it was another page");
        rings(&doorbell);
        drop(claim);
        assert!(rings(&doorbell) && watch.is_over(), "the claim was given up");
        let claim = area.claim(page, Placement::AtOnce).unwrap();
        let watch = PageWatch::new(&area, page, Until::Free).unwrap();
        assert!(area.budget().try_reserve(SMALL as u64));
        claim.place_copy(&[7; SMALL], Origin::Asked(0)).unwrap();
        assert!(rings(&doorbell) && watch.is_over(), "the page was supplied");
        assert!(PageWatch::new(&area, page, Until::OpenToStores).is_none(), "nothing keeps a store off");
        let claim = area.claim(other, Placement::AtOnce).unwrap();
        let watch = PageWatch::new(&area, other, Until::OpenToStores).unwrap();
        claim.fail();
        assert!(rings(&doorbell) && watch.is_over(), "the page has failed");
        drop(watch);
    }
}
