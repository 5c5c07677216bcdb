//! Frames that somebody outside has dropped: who may ask whether a frame is there, and what follows.
//!
//! A stray madvise(2) on an object's addresses drops frames without a word of it in the page words. Who meets such a
//! page asks the host whether the frame is there. The answer counts only while nobody can evict the page, fill it or
//! store to it. So only the holder of a page in Evicting or Changing asks, and acts before he lets it go.
//!
//! ```text
//!   Clean --LockToLook--> Evicting -- there: Spare --> Clean      gone: Evicted --> Absent, to be filled again
//!   Dirty --LockToLook--> Changing -- there: Stored -> Dirty      gone: Lost -----> Failed, it traps
//! ```
//!
//! A page that is on its way to the pager is left alone: its bytes are in the copy.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Held, Host, Pages, WriteRun};
use crate::address::{ByteRange, PageIndex, PageRange};
use crate::page_word::{State, Transition, Word};

/// What [`Pages::look`] found.
#[derive(Debug)]
pub enum Looked<H: Host> {
    /// The frame is there.
    There,
    /// The frame was gone, and the pager has its bytes: the page is Absent now.
    Evicted,
    /// The frame is gone, and with it bytes that nobody else has.
    Gone(GonePage<H>),
    /// The page has no frame by its word, or somebody else holds it, or it is on its way to the pager.
    NotNow(Word),
}

/// A page in state Changing whose frame is gone, with bytes that nobody else has. Dropped, it is as it was, and is found
/// again.
#[derive(Debug)]
pub struct GonePage<H: Host> {
    owner: Arc<Pages<H>>,
    page: PageIndex,
    /// Taken from who has locked it to write, and waits for it.
    is_lent: bool,
    has_failed: bool,
}

impl<H: Host> Pages<H> {
    /// Looks whether `page` still has its frame around byte `offset` of the object; `now` is the tick of the cache's
    /// clock. For who was told that it is missing. Never blocks, never allocates; safe in a signal handler. Where the
    /// host cannot tell, the frame is there.
    pub fn look(self: &Arc<Self>, page: PageIndex, offset: u64, now: u8) -> Looked<H> {
        let before = match self.advance(page, Transition::LockToLook) {
            Ok(advanced) => advanced.before,
            Err(word) => return Looked::NotNow(word),
        };
        match (before.state(), self.host.is_present(offset)) {
            (State::Clean, true) => self.settle(page, Transition::Spare),
            (State::Clean, false) => return self.evict_gone(page, now),
            (State::Dirty, true) => self.settle(page, Transition::Stored),
            (_, true) => self.settle(page, Transition::Unlook),
            (state, false) => {
                let is_lent = state == State::Changing;
                return Looked::Gone(GonePage { owner: Arc::clone(self), page, is_lent, has_failed: false });
            }
        }
        Looked::There
    }

    /// The page is Evicting and ours; its frame, or a part of a large one, is gone. Who pins it has lost a part of it
    /// already; what he reads next waits until the page is filled again, with the same bytes.
    fn evict_gone(&self, page: PageIndex, now: u8) -> Looked<H> {
        if !self.host.drop_remains(Held::new(), page) {
            self.settle(page, Transition::Spare);
            return Looked::There;
        }
        self.resident.subtract(self.block_of(page.0), 1);
        self.settle(page, Transition::Evicted { stamp: now });
        self.budget.release(self.host.released_bytes(1));
        Looked::Evicted
    }

    /// As [`Frames::is_present`](super::Frames::is_present), of a small page that the caller holds.
    pub(super) fn has_frame(&self, page: PageIndex) -> bool {
        self.host.is_present(page.0 << self.page_size.shift())
    }

    /// Splits off the pages of `runs`, which ascend and are locked to write, that have no frame. Allocates.
    pub(super) fn split_gone(
        self: &Arc<Self>,
        runs: Vec<WriteRun<H>>,
    ) -> (Vec<WriteRun<H>>, Vec<GonePage<H>>) {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return (runs, Vec::new()) };
        let present = self.host.present_runs(PageRange { start: first.pages.start, end: last.pages.end });
        let is_there = |page: PageIndex| {
            let at = present.partition_point(|run| run.end <= page.0);
            present.get(at).is_some_and(|run| run.contains(page))
        };
        if runs.iter().all(|run| run.pages.iter().all(is_there)) {
            return (runs, Vec::new());
        }
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for mut run in runs {
            let pages = core::mem::take(&mut run.pages);
            let all: Vec<(PageIndex, bool)> = pages.iter().map(|page| (page, is_there(page))).collect();
            for part in all.chunk_by(|a, b| a.1 && b.1) {
                let (first, last) = (part[0], part[part.len() - 1]);
                let pages = PageRange { start: first.0.0, end: last.0.0 + 1 };
                match first.1 {
                    true => kept.push(WriteRun { owner: Arc::clone(self), pages }),
                    false => gone.extend(GonePage::taken(self, first.0)),
                }
            }
        }
        (kept, gone)
    }

    /// Of `pages`, which the caller has locked from Clean and nobody has opened to a store yet, lets those go that have
    /// no frame: they are Absent. Says which are left, a run from the start. Never allocates.
    pub(super) fn keep_present(&self, pages: PageRange) -> PageRange {
        if self.host.are_present(pages) {
            return pages;
        }
        let kept = pages.iter().take_while(|page| self.has_frame(*page)).count() as u64;
        let kept = PageRange { start: pages.start, end: pages.start + kept };
        for page in (PageRange { start: kept.end, end: pages.end }).iter() {
            match self.has_frame(page) {
                true => self.settle(page, Transition::Stored),
                false => self.dropped(page, self.word(page).stamp()),
            }
        }
        kept
    }
}

impl<H: Host> GonePage<H> {
    /// For the holder of a page that is locked to write, who has seen that it has no frame. `None`: somebody else has
    /// seen it too, and the page is Failed.
    fn taken(owner: &Arc<Pages<H>>, page: PageIndex) -> Option<Self> {
        let owner = Arc::clone(owner);
        owner.take_back(page).then(|| Self { owner, page, is_lent: false, has_failed: false })
    }

    /// The page.
    pub fn page(&self) -> PageIndex {
        self.page
    }

    /// Its bytes, up to the end of the object.
    pub fn bytes(&self) -> ByteRange {
        self.owner.bytes_of(PageRange::one(self.page))
    }

    /// Makes the page Failed, and trap. The caller has recorded why before. Never blocks, never allocates.
    pub fn fail(mut self) {
        self.has_failed = true;
        let (owner, page) = (&self.owner, self.page);
        // Where nothing traps, somebody may have read zeros, which are in place then.
        let _ = owner.host.drop_frames(Held::new(), PageRange::one(page));
        owner.host.poison(PageRange::one(page));
        owner.resident.subtract(owner.block_of(page.0), 1);
        owner.discount_unclean(page);
        owner.settle(page, Transition::Lost { lent: self.is_lent });
        owner.budget.release(owner.page_size.bytes());
        owner.host.wake(PageRange::one(page));
    }
}

impl<H: Host> Drop for GonePage<H> {
    fn drop(&mut self) {
        if !self.has_failed {
            let back = if self.is_lent { Transition::Unlook } else { Transition::Stored };
            self.owner.settle(self.page, back);
        }
    }
}
