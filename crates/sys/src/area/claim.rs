//! The right and the duty to fill pages.

use std::io;
use std::sync::Arc;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::{State, Transition, Word};
use memobj_core::reclaim::{heat_on_read_ahead, heat_on_supply};

use super::Area;
use crate::pool::Frame;
use crate::region::SMALL;
use crate::uffd::{Announce, Wake};

/// When a claim's pages are put in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// As soon as their bytes are there.
    AtOnce,
    /// Only when somebody wants them: sleepers are to ask the filler.
    WhenWanted,
}

/// Why pages are supplied, and when: what the reclaim choice will go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Somebody asked for them, at this tick of the cache's clock.
    Asked(u8),
    /// Somebody asked for them to store to them, at this tick of the cache's clock: they are opened to stores before
    /// the sleepers are woken. For areas that can be written.
    ToStore(u8),
    /// They were guessed, or asked for in advance, at this tick of the cache's clock.
    InAdvance(u8),
    /// They are new bytes, which the pager does not have, at this tick of the cache's clock: they are Dirty from the
    /// start.
    Stored(u8),
}

impl Origin {
    fn stamp_and_heat(self, before: Word) -> (u8, u8) {
        match self {
            Origin::Asked(now) | Origin::ToStore(now) | Origin::Stored(now) => {
                (now, heat_on_supply(before, now))
            }
            Origin::InAdvance(now) => (now, heat_on_read_ahead()),
        }
    }
}

/// Neighbouring pages in state Filling, owned by this value. Dropped without an answer they are Absent again.
#[derive(Debug)]
pub struct FillClaim {
    pub(super) area: Arc<Area>,
    pub(super) pages: PageRange,
}

impl Area {
    /// Claims one absent page, or returns the word that it has instead. Never blocks, never allocates.
    pub fn claim(self: &Arc<Self>, page: PageIndex, placement: Placement) -> Result<FillClaim, Word> {
        self.advance(page, Transition::Claim { deferred: placement == Placement::WhenWanted })?;
        Ok(FillClaim { area: Arc::clone(self), pages: PageRange::one(page) })
    }

    /// Claims absent pages from the start of `pages` on, up to the first that is not absent.
    pub fn claim_run(self: &Arc<Self>, pages: PageRange, placement: Placement) -> Option<FillClaim> {
        let deferred = placement == Placement::WhenWanted;
        let mut end = pages.start;
        while end < pages.end && self.advance(PageIndex(end), Transition::Claim { deferred }).is_ok() {
            end += 1;
        }
        let pages = PageRange { start: pages.start, end };
        (!pages.is_empty()).then(|| FillClaim { area: Arc::clone(self), pages })
    }
}

impl FillClaim {
    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// Their bytes, up to the end of the object.
    pub fn bytes(&self) -> ByteRange {
        let shift = self.area.page_size.shift();
        ByteRange { start: self.pages.start << shift, end: self.pages.end << shift }.below(self.area.length())
    }

    /// Bytes of frames that they need.
    pub fn frame_bytes(&self) -> u64 {
        self.pages.len() << self.area.page_size.shift()
    }

    /// Splits off the pages from `page` on.
    pub fn split_off(&mut self, page: PageIndex) -> FillClaim {
        assert!(self.pages.start <= page.0 && page.0 <= self.pages.end);
        let rest = PageRange { start: page.0, end: self.pages.end };
        self.pages.end = page.0;
        FillClaim { area: Arc::clone(&self.area), pages: rest }
    }

    /// Puts copies of `source` in place; it holds the pages' bytes, rounded up to 4 KiB with whatever shall be
    /// read past the end of the object. The caller has reserved [`frame_bytes`](Self::frame_bytes) of budget,
    /// which the pages keep. Large pages of a frame file are placed one at a time. On error the claim comes back with the pages that are not in place.
    pub fn place_copy(mut self, source: &[u8], origin: Origin) -> Result<(), (FillClaim, io::Error)> {
        assert!(self.area.pool.is_none(), "frames of the pool are moved, not copied");
        let len = self.mapped_len();
        assert!(source.len() >= len, "{} bytes for pages of {len}", source.len());
        if self.area.has_large_file() {
            return match self.place_in_file(&source[..len]) {
                Ok(()) => {
                    self.supplied(1, origin);
                    Ok(())
                }
                Err(error) => Err((self, error)),
            };
        }
        let start = self.area.offset_in_view(self.pages.start);
        let wake = if matches!(origin, Origin::ToStore(_)) { Wake::Later } else { Wake::AtOnce };
        let copied = self.area.copy_in(start, &source[..len], wake);
        let (done, error) = match copied {
            Ok(()) => (self.pages.len(), None),
            Err((bytes, error)) => ((bytes / SMALL) as u64, Some(error)),
        };
        let placed = PageRange { start: self.pages.start, end: self.pages.start + done };
        self.supplied(done, origin);
        if wake == Wake::Later {
            self.area.open_placed(placed);
        }
        match error {
            None => Ok(()),
            Some(error) => Err((self, error)),
        }
    }

    /// Moves `frame` in place for the one large page of this claim. A page that the end of the object cuts short
    /// is copied instead, and the frame counts as used. The caller reserved nothing: the frame is counted.
    pub fn place_frame(mut self, frame: Frame, origin: Origin) -> Result<(), (FillClaim, io::Error)> {
        assert!(self.area.pool.is_some() && self.pages.len() == 1, "one frame fills one large page");
        let len = self.mapped_len();
        let at = self.area.offset_in_view(self.pages.start);
        let view = &self.area.views[0];
        let address = view.region.start() + at;
        let placed = if len == frame.as_slice().len() {
            // SAFETY: the page is Filling and owned by this claim.
            match unsafe { frame.move_to(view.registered(), address) } {
                Ok(()) => Ok(()),
                Err((moved, frame, _)) => self.copy_rest(frame, address, moved, len),
            }
        } else {
            self.copy_rest(frame, address, 0, len)
        };
        match placed {
            Ok(()) => {
                self.supplied(1, origin);
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Copies `[done, len)` of the frame in place, lets the frame go, and counts the copy as that frame.
    fn copy_rest(&self, frame: Frame, address: usize, done: usize, len: usize) -> io::Result<()> {
        let view = &self.area.views[0];
        let source = frame.as_slice()[done..len].as_ptr();
        // SAFETY: the page is Filling and owned by this claim; the source is the rest of the frame. What has moved
        // out of the frame is not read.
        match unsafe { view.registered().copy(address + done, source, len - done) } {
            Ok(()) => {
                frame.abandon_rest();
                Ok(())
            }
            Err((_, error)) => {
                let start = address - view.region.start();
                // SAFETY: the page is still Filling: nobody holds references into it.
                let _ = unsafe { view.region.zap(start, len) };
                if done == 0 {
                    drop(frame);
                } else {
                    frame.abandon_rest();
                    if let Some(pool) = &self.area.pool {
                        pool.forget(1);
                    }
                }
                Err(error)
            }
        }
    }

    fn mapped_len(&self) -> usize {
        let last = PageIndex(self.pages.end - 1);
        self.area.offset_in_view(last.0) - self.area.offset_in_view(self.pages.start)
            + self.area.mapped_bytes(last)
    }

    /// Makes the first `count` pages Clean and keeps the rest.
    fn supplied(&mut self, count: u64, origin: Origin) {
        let placed = PageRange { start: self.pages.start, end: self.pages.start + count };
        self.pages.start = placed.end;
        let mut page = placed.start;
        while page < placed.end {
            let block = self.area.block_of(page);
            let end = self.area.block_range(block).end.min(placed.end);
            self.area.residency.add(block, (end - page) as u32);
            page = end;
        }
        if matches!(origin, Origin::Stored(_)) {
            self.area.count_unclean(placed);
        }
        for page in placed.iter() {
            let (stamp, heat) = origin.stamp_and_heat(self.area.word(page));
            let done = self.area.advance(
                page,
                match origin {
                    Origin::Stored(_) => Transition::SupplyDirty { stamp, heat },
                    _ => Transition::Supply { stamp, heat },
                },
            );
            debug_assert!(done.is_ok(), "page {page} left Filling under its owner: {done:?}");
        }
        self.wake_other_views(placed);
    }

    /// COPY and MOVE have woken the sleepers of the first view.
    fn wake_other_views(&self, pages: PageRange) {
        if pages.is_empty() {
            return;
        }
        let (start, end) = (self.area.offset_in_view(pages.start), self.area.offset_in_view(pages.end));
        for view in self.area.views.iter().skip(1) {
            if view.is_announced(Announce::Queued) {
                view.registered().wake(view.region.start() + start, end.min(view.region.len()) - start);
            }
        }
        if let Some(guests) = &self.area.guests {
            guests.wake(start, end);
        }
    }

    /// Makes the pages trap. The caller has recorded why before.
    pub fn fail(mut self) {
        let pages = std::mem::take(&mut self.pages);
        for page in pages.iter() {
            self.area.poison(self.area.offset_in_view(page.0), self.area.mapped_bytes(page));
            let done = self.area.advance(page, Transition::Fail);
            debug_assert!(done.is_ok(), "page {page} left Filling under its owner: {done:?}");
        }
        self.area.wake(pages);
    }
}

impl Drop for FillClaim {
    fn drop(&mut self) {
        for page in self.pages.iter() {
            debug_assert_eq!(self.area.word(page).state(), State::Filling);
            let _ = self.area.advance(page, Transition::Abandon);
        }
        if !self.pages.is_empty() {
            self.area.wake(self.pages);
        }
    }
}
