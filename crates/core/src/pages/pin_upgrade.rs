//! Pages that a holder has pinned for reading become pages that it alone changes: all of them at one moment, or none.
//!
//! Who collects changes of many pages and makes them together pins the pages meanwhile, so that nobody stores to them. To
//! drop these pins and pin for writing would let a store in between. So each pin is turned into the right to change its
//! page by one step of the page word. No page is open to anybody before the last one is locked.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Held, Host, Pages, PinSet, StoreRefused, Writes};
use crate::address::{PageIndex, PageRange};
use crate::page_word::{State, Transition, Word};

/// Pages that are pinned for writing, scattered over one object. They are Dirty. All pins end when it is dropped.
#[derive(Debug)]
pub struct ExclusivePages<H: Host> {
    owner: Arc<Pages<H>>,
    /// Ascending, no two of them neighbours.
    runs: Vec<PageRange>,
}

/// Why pages did not become exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpgradeRefused {
    /// Others pin or hold this page; this is its word.
    NotNow(PageIndex, Word),
    /// The frame of this page was dropped from outside. Its pin has ended. [`Pages::look`] is next.
    FrameGone(PageIndex),
}

impl<H: Host> Pages<H> {
    /// Turns the pins of `sets` into pins for writing. The sets have all their pages, and no page is in two of them.
    ///
    /// On error no page has changed; the pins are those of the sets that are given back, and go on. Pages that were
    /// Clean may be Dirty then.
    pub fn make_exclusive(
        self: &Arc<Self>,
        mut sets: Vec<PinSet<H>>,
    ) -> Result<ExclusivePages<H>, (Vec<PinSet<H>>, UpgradeRefused)> {
        assert!(self.writes == Writes::Yes);
        let is_whole = |set: &PinSet<H>| set.missing() == 0 && Arc::ptr_eq(set.owner(), self);
        assert!(sets.iter().all(is_whole), "a page is not pinned");
        sets.sort_by_key(|set| set.pages().start);
        for (index, set) in sets.iter().enumerate() {
            for page in set.pages().iter() {
                let Err(refused) = self.upgrade(page) else { continue };
                let before = PageRange { start: set.pages().start, end: page.0 };
                let locked = sets[..index].iter().map(PinSet::pages).chain([before]);
                locked.flat_map(PageRange::iter).for_each(|page| self.settle(page, Transition::PinnedDirty));
                if let UpgradeRefused::FrameGone(page) = refused {
                    sets[index].forget(page);
                }
                return Err((sets, refused));
            }
        }
        let mut runs: Vec<PageRange> = Vec::new();
        for set in &mut sets {
            let pages = set.pages();
            pages.iter().for_each(|page| set.forget(page));
            match runs.last_mut() {
                Some(last) if last.end == pages.start => last.end = pages.end,
                _ => runs.push(pages),
            }
        }
        for run in &runs {
            self.host.open(Held::new(), *run, self.host.own());
            run.iter().for_each(|page| self.settle(page, Transition::PinnedMut));
        }
        Ok(ExclusivePages { owner: Arc::clone(self), runs })
    }

    /// Locks `page`, which the caller has pinned.
    fn upgrade(&self, page: PageIndex) -> Result<(), UpgradeRefused> {
        let before =
            self.lock(page, Transition::Upgrade).map_err(|word| UpgradeRefused::NotNow(page, word))?;
        if self.has_frame(page) {
            return Ok(());
        }
        self.pin_budget.release(self.page_size.bytes());
        match before.state() {
            State::Clean => self.dropped(page, before.stamp()),
            _ => self.settle(page, Transition::Stored),
        }
        Err(UpgradeRefused::FrameGone(page))
    }
}

impl<H: Host> ExclusivePages<H> {
    /// Copies `source` to byte `offset` of the object, in one of the pages.
    pub fn store(&self, offset: u64, source: &[u8]) -> Result<(), StoreRefused> {
        let page = PageIndex(offset >> self.owner.page_size.shift());
        let run = self.runs.partition_point(|run| run.end <= page.0);
        assert!(self.runs.get(run).is_some_and(|run| run.contains(page)), "page {page} is not pinned");
        self.owner.store_alone(offset, source)
    }
}

impl<H: Host> Drop for ExclusivePages<H> {
    fn drop(&mut self) {
        self.runs.iter().flat_map(|run| run.iter()).for_each(|page| self.owner.unpin_alone(page));
    }
}
