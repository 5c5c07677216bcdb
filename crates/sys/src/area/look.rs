//! Frames that somebody outside has dropped: who may ask whether a frame is there, and what follows.
//!
//! A stray madvise(2) on an object's addresses drops frames without a word of it in the page words. Who meets such a
//! page asks the kernel whether the frame is there. The answer counts only while nobody can evict the page, fill it or
//! store to it. So only the holder of a page in Evicting or Changing asks, and acts before he lets it go.
//!
//! ```text
//!   Clean --LockToLook--> Evicting -- there: Spare --> Clean      gone: Evicted --> Absent, to be filled again
//!   Dirty --LockToLook--> Changing -- there: Stored -> Dirty      gone: Lost -----> Failed, it traps
//! ```
//!
//! A page that is on its way to the pager is left alone: its bytes are in the copy.

use std::sync::Arc;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::{State, Transition, Word};

use super::{Area, WriteRun};
use crate::region::SMALL;

/// What [`Area::look`] found.
#[derive(Debug)]
pub enum Looked {
    /// The frame is there.
    There,
    /// The frame was gone, and the pager has its bytes: the page is Absent now.
    Evicted,
    /// The frame is gone, and with it bytes that nobody else has.
    Gone(GonePage),
    /// The page has no frame by its word, or somebody else holds it, or it is on its way to the pager.
    NotNow(Word),
}

/// A page in state Changing whose frame is gone, with bytes that nobody else has. Dropped, it is as it was, and is found
/// again.
#[derive(Debug)]
pub struct GonePage {
    area: Arc<Area>,
    page: PageIndex,
    /// Taken from who has locked it to write, and waits for it.
    is_lent: bool,
    has_failed: bool,
}

impl Area {
    /// Looks whether `page` still has its frame around byte `offset` of the object; `now` is the tick of the cache's
    /// clock. For who was told that it is missing. Never blocks, never allocates; safe in a signal handler. Where the
    /// kernel cannot tell (before Linux 6.7), the frame is there.
    pub fn look(self: &Arc<Self>, page: PageIndex, offset: u64, now: u8) -> Looked {
        let before = match self.advance(page, Transition::LockToLook) {
            Ok(advanced) => advanced.before,
            Err(word) => return Looked::NotNow(word),
        };
        let is_there = self.is_present_at(offset);
        #[cfg(test)]
        self.interposed.call();
        match (before.state(), is_there) {
            (State::Clean, true) => self.settle(page, Transition::Spare),
            (State::Clean, false) => return self.evict_gone(page, now),
            (State::Dirty, true) => self.settle(page, Transition::Stored),
            (_, true) => self.settle(page, Transition::Unlook),
            (state, false) => {
                let is_lent = state == State::Changing;
                return Looked::Gone(GonePage { area: Arc::clone(self), page, is_lent, has_failed: false });
            }
        }
        Looked::There
    }

    /// The page is Evicting and ours; its frame, or a part of a large one, is gone.
    fn evict_gone(&self, page: PageIndex, now: u8) -> Looked {
        let zapped = match &self.pool {
            None => self.zap_frames(PageRange::one(page)),
            Some(pool) => {
                let (start, len) = (self.offset_in_view(page.0), self.mapped_bytes(page));
                // SAFETY: the page is Evicting and ours. Who pins it has lost a part of it already; what he reads next
                // waits until the page is filled again, with the same bytes.
                let zapped = unsafe { self.views[0].region.zap(start, len).is_ok() };
                if zapped {
                    pool.forget(1);
                }
                zapped
            }
        };
        if !zapped {
            self.settle(page, Transition::Spare);
            return Looked::There;
        }
        self.residency.subtract(self.block_of(page.0), 1);
        self.settle(page, Transition::Evicted { stamp: now });
        if self.pool.is_none() {
            self.budget.release(self.page_size.bytes());
        }
        Looked::Evicted
    }

    /// Whether the 4 KiB around byte `offset` have a frame, as the kernel sees it. The caller holds the page in Evicting
    /// or Changing. A system call. Where the kernel cannot tell, they have.
    pub(super) fn is_present_at(&self, offset: u64) -> bool {
        let page = offset & !(SMALL as u64 - 1);
        match &self.frame_file {
            Some(file) => file.has_frame(page),
            None => {
                let address = self.views[0].region.start() + page as usize;
                self.pagemap.holds_frames(address, SMALL).unwrap_or(true)
            }
        }
    }

    /// The runs of small pages in `pages` that have frames, in order. The caller holds those that he asks for. Allocates.
    fn present_runs(&self, pages: PageRange) -> Vec<PageRange> {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        let base = self.views[0].region.start();
        let found = match &self.frame_file {
            Some(file) => file.frames_in(start as u64..end as u64),
            None => self.pagemap.frames_in(base + start, end - start).map(|found| {
                found.into_iter().map(|run| run.start - base as u64..run.end - base as u64).collect()
            }),
        };
        let page = |offset: u64| offset >> self.page_size.shift();
        match found {
            Ok(found) => {
                found.iter().map(|run| PageRange { start: page(run.start), end: page(run.end) }).collect()
            }
            Err(_) => vec![pages],
        }
    }

    /// Splits off the pages of `runs`, which ascend and are locked to write, that have no frame. Allocates.
    pub(super) fn split_gone(self: &Arc<Self>, runs: Vec<WriteRun>) -> (Vec<WriteRun>, Vec<GonePage>) {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return (runs, Vec::new()) };
        let present = self.present_runs(PageRange { start: first.pages.start, end: last.pages.end });
        #[cfg(test)]
        self.interposed.call();
        let is_there = |page: PageIndex| {
            let at = present.partition_point(|run| run.end <= page.0);
            present.get(at).is_some_and(|run| run.contains(page))
        };
        if runs.iter().all(|run| run.pages.iter().all(is_there)) {
            return (runs, Vec::new());
        }
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for mut run in runs {
            let pages = std::mem::take(&mut run.pages);
            let all: Vec<(PageIndex, bool)> = pages.iter().map(|page| (page, is_there(page))).collect();
            for part in all.chunk_by(|a, b| a.1 && b.1) {
                let (first, last) = (part[0], part[part.len() - 1]);
                let pages = PageRange { start: first.0.0, end: last.0.0 + 1 };
                match first.1 {
                    true => kept.push(WriteRun { area: Arc::clone(self), pages }),
                    false => gone.extend(GonePage::taken(self, first.0)),
                }
            }
        }
        (kept, gone)
    }

    /// Of `pages`, which the caller has locked from Clean and nobody has opened to a store yet, lets those go that have
    /// no frame: they are Absent. Says which are left, a run from the start. Never allocates.
    pub(super) fn keep_present(&self, pages: PageRange) -> PageRange {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        let is_whole = match &self.frame_file {
            Some(file) => file.is_whole(start as u64..end as u64),
            None => {
                self.pagemap.holds_frames(self.views[0].region.start() + start, end - start).unwrap_or(true)
            }
        };
        if is_whole {
            return pages;
        }
        let is_there = |page: &PageIndex| self.is_present_at(self.offset_in_view(page.0) as u64);
        let kept = pages.iter().take_while(is_there).count() as u64;
        let kept = PageRange { start: pages.start, end: pages.start + kept };
        for page in (PageRange { start: kept.end, end: pages.end }).iter() {
            match is_there(&page) {
                true => self.settle(page, Transition::Stored),
                false => self.dropped(page, self.word(page).stamp()),
            }
        }
        kept
    }
}

impl GonePage {
    /// For the holder of a page that is locked to write, who has seen that it has no frame. `None`: somebody else has
    /// seen it too, and the page is Failed.
    fn taken(area: &Arc<Area>, page: PageIndex) -> Option<Self> {
        let area = Arc::clone(area);
        area.take_back(page).then(|| Self { area, page, is_lent: false, has_failed: false })
    }

    /// The page.
    pub fn page(&self) -> PageIndex {
        self.page
    }

    /// Its bytes, up to the end of the object.
    pub fn bytes(&self) -> ByteRange {
        let shift = self.area.page_size.shift();
        ByteRange { start: self.page.0 << shift, end: (self.page.0 + 1) << shift }.below(self.area.length())
    }

    /// Makes the page Failed, and trap. The caller has recorded why before. Never blocks, never allocates.
    pub fn fail(mut self) {
        self.has_failed = true;
        let (area, page) = (&self.area, self.page);
        // Where nothing traps, somebody may have read zeros, which are in place then.
        let _ = area.zap_frames(PageRange::one(page));
        area.poison(area.offset_in_view(page.0), area.mapped_bytes(page));
        area.residency.subtract(area.block_of(page.0), 1);
        area.discount_unclean(page);
        area.settle(page, Transition::Lost { lent: self.is_lent });
        area.budget.release(area.page_size.bytes());
        area.wake(PageRange::one(page));
    }
}

impl Drop for GonePage {
    fn drop(&mut self) {
        if !self.has_failed {
            let back = if self.is_lent { Transition::Unlook } else { Transition::Stored };
            self.area.settle(self.page, back);
        }
    }
}
