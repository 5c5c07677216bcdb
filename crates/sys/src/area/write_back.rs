//! Writing back: protect, copy, write, and only then Clean.
//!
//! ```text
//!   Dirty --lock_dirty--> Changing --protect, copy--> WritingBack --written--> Clean
//!                                                        |  failed, or stored to meanwhile
//!                                                        '----------------------------> Dirty
//! ```
//!
//! The bytes are copied while the page is protected and stores to it wait, which takes microseconds; the write
//! takes them from the copy. So a store never waits for the device, and what is written is never half of a store.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::{State, Transition};

use super::{Area, GonePage};
use crate::region::SMALL;
use crate::signal;

/// How long the holder of a page sleeps, before another look, while somebody looks whether its frame is there.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Resident pages between two runs up to which one system call for both is cheaper than two: a page that is passed
/// over costs about 20 ns, a call about 700, and the interrupt of the other processors that it takes.
const MOST_BETWEEN: usize = 48;

/// Neighbouring pages that are locked for a write, in state Changing and protected. Dropped, they are Dirty again.
#[derive(Debug)]
pub struct WriteRun {
    pub(super) area: Arc<Area>,
    pub(super) pages: PageRange,
}

/// Neighbouring pages whose bytes are on the way to the pager. Dropped without an answer they are Dirty again.
#[derive(Debug)]
pub struct WriteClaim {
    area: Arc<Area>,
    pages: PageRange,
    bytes: ByteRange,
}

impl Area {
    /// The first block from `from` on that may have a page to write.
    pub fn next_unclean_block(&self, from: u64) -> Option<u64> {
        self.unclean.next(from)
    }

    /// Pages that the pager does not have yet.
    pub fn unclean_pages(&self) -> u64 {
        self.unclean.total()
    }

    /// The pages of `block` that lie in `pages`.
    pub fn part_of_block(&self, block: u64, pages: PageRange) -> PageRange {
        let range = self.block_range(block);
        let start = range.start.max(pages.start);
        PageRange { start, end: range.end.min(pages.end).max(start) }
    }

    /// The block that `page` lies in.
    pub fn block_with(&self, page: PageIndex) -> u64 {
        self.block_of(page.0)
    }

    /// Locks the pages of `pages`, all of one block, that may be written now, at most `most` of them, and protects
    /// them with few system calls. Each run is at most `longest` pages long. Those of them whose frames are gone come
    /// apart from the runs. Allocates; not for signal handlers.
    pub fn lock_dirty(
        self: &Arc<Self>,
        pages: PageRange,
        most: u64,
        longest: u64,
    ) -> (Vec<WriteRun>, Vec<GonePage>) {
        let mut runs: Vec<WriteRun> = Vec::new();
        let mut locked = 0;
        for page in pages.iter() {
            if locked == most {
                break;
            }
            if self.word(page).state() != State::Dirty || self.advance(page, Transition::LockToWrite).is_err()
            {
                continue;
            }
            locked += 1;
            match runs.last_mut() {
                Some(run) if run.pages.end == page.0 && run.pages.len() < longest => run.pages.end += 1,
                _ => runs.push(WriteRun { area: Arc::clone(self), pages: PageRange::one(page) }),
            }
        }
        if self.protect_runs(&runs).is_err() {
            runs.clear();
        }
        self.split_gone(runs)
    }

    /// A number that changes before bytes of `page` go to the pager, and whenever the length of the object changes. Of an
    /// area that can be written.
    pub fn writes_begun(&self, page: PageIndex) -> u32 {
        self.writes_begun[page.0 as usize % self.writes_begun.len()].load(Ordering::SeqCst)
    }

    pub(super) fn note_write(&self, page: PageIndex) {
        self.writes_begun[page.0 as usize % self.writes_begun.len()].fetch_add(1, Ordering::SeqCst);
    }

    /// Leaves `page`, which the caller has locked to write, by `transition`, once nobody looks at it any more.
    fn leave_lent(&self, page: PageIndex, transition: Transition) {
        while let Err(word) = self.advance(page, transition) {
            debug_assert_eq!(
                word.state(),
                State::Changing,
                "page {page} left Changing under its owner: {word:?}"
            );
            self.wait(page, Some(LOOK_AGAIN));
        }
    }

    /// Takes `page` back, which the caller has locked to write: nobody looks at it any more. `false` if it was lost, and
    /// is no longer the caller's.
    pub(super) fn take_back(&self, page: PageIndex) -> bool {
        loop {
            match self.advance(page, Transition::LockToLook) {
                Ok(_) => return true,
                Err(word) if word.state() == State::Changing => self.wait(page, Some(LOOK_AGAIN)),
                Err(_) => {
                    self.settle(page, Transition::Unlocked);
                    return false;
                }
            };
        }
    }

    /// Protects runs, those that are close together with one system call. Open pages between them are protected
    /// with them: the next store opens them again.
    fn protect_runs(&self, runs: &[WriteRun]) -> io::Result<()> {
        let close = |a: &WriteRun, b: &WriteRun| {
            let between = PageRange { start: a.pages.end, end: b.pages.start };
            between.iter().filter(|page| self.word(*page).is_resident()).count() <= MOST_BETWEEN
        };
        for group in runs.chunk_by(close) {
            let (first, last) = (&group[0], &group[group.len() - 1]);
            self.protect(PageRange { start: first.pages.start, end: last.pages.end })?;
        }
        Ok(())
    }
}

impl WriteRun {
    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// Their bytes, up to the end of the object.
    pub fn bytes(&self) -> ByteRange {
        let shift = self.area.page_size.shift();
        ByteRange { start: self.pages.start << shift, end: self.pages.end << shift }.below(self.area.length())
    }

    /// Copies one of the pages into `into`, which is 4 KiB long. Stores still wait. `false` if its frame is gone: then the
    /// page is lost, what is in `into` is nothing, and the run must not be written.
    pub fn copy_page(&self, page: PageIndex, into: &mut [u8]) -> bool {
        assert!(self.pages.contains(page) && into.len() == SMALL);
        let start = self.area.offset_in_view(page.0);
        // SAFETY: the page lies in the view, which is mapped. It is protected or out of everybody's reach: nobody writes
        // it. It may trap, if its frame was dropped from outside.
        let copied = unsafe { signal::copy_trapping(into, self.area.views[0].region.pointer(start)) };
        copied == SMALL
    }

    /// Drops the frames of the pages and their bytes. Nobody may pin them. On error, with the first page that could
    /// not be dropped, that page and those behind it are Dirty as before.
    pub fn discard(mut self, now: u8) -> Result<(), PageIndex> {
        while !self.pages.is_empty() {
            let page = PageIndex(self.pages.start);
            if self.area.word(page).pins() > 0 {
                return Err(page);
            }
            if !self.area.take_back(page) {
                // Its frame was gone: it is Failed.
                self.pages.start += 1;
                continue;
            }
            if !self.area.zap_frames(PageRange::one(page)) {
                self.area.settle(page, Transition::Unlook);
                return Err(page);
            }
            self.pages.start += 1;
            self.area.dropped(page, now);
        }
        Ok(())
    }

    /// All pages were copied: lets stores go on.
    pub fn copied(mut self) -> WriteClaim {
        let bytes = self.bytes();
        let pages = std::mem::take(&mut self.pages);
        for page in pages.iter() {
            // Before the page can be stored to, written and evicted: who reads the pager meanwhile sees it.
            self.area.note_write(page);
            self.area.leave_lent(page, Transition::Copied);
        }
        WriteClaim { area: Arc::clone(&self.area), pages, bytes }
    }

    /// Copies the pages into the start of `buffer`, which has room for them, and lets stores go on. `None` if the frame of
    /// one is gone: that page is lost, and the others are Dirty as before.
    pub fn copy(self, buffer: &mut [u8]) -> Option<WriteClaim> {
        let mut parts = self.pages.iter().zip(buffer.chunks_mut(SMALL));
        parts.all(|(page, into)| self.copy_page(page, into)).then(|| self.copied())
    }
}

impl Drop for WriteRun {
    fn drop(&mut self) {
        for page in self.pages.iter() {
            self.area.leave_lent(page, Transition::Unlocked);
        }
    }
}

impl WriteClaim {
    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// The bytes of the object that were copied.
    pub fn bytes(&self) -> ByteRange {
        self.bytes
    }

    /// Splits off the pages from `page` on.
    pub fn split_off(&mut self, page: PageIndex) -> WriteClaim {
        assert!(self.pages.start <= page.0 && page.0 <= self.pages.end);
        let border = page.0 << self.area.page_size.shift();
        let pages = PageRange { start: page.0, end: self.pages.end };
        let bytes = ByteRange { start: border.min(self.bytes.end), end: self.bytes.end };
        self.pages.end = page.0;
        self.bytes.end = border.min(self.bytes.end);
        WriteClaim { area: Arc::clone(&self.area), pages, bytes }
    }

    /// The pager has the bytes: pages that were not stored to meanwhile are Clean.
    pub fn written(mut self) {
        self.end(Transition::Written);
    }

    fn end(&mut self, transition: Transition) {
        for page in std::mem::take(&mut self.pages).iter() {
            let done = self.area.advance(page, transition);
            debug_assert!(done.is_ok(), "page {page} was not in flight: {done:?}");
            if done.is_ok_and(|advanced| advanced.after.state() == State::Clean) {
                self.area.discount_unclean(page);
            }
        }
    }
}

impl Drop for WriteClaim {
    fn drop(&mut self) {
        self.end(Transition::WriteFailed);
    }
}
