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

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::{GonePage, Held, Host, Pages};
use crate::address::{ByteRange, PageIndex, PageRange};
use crate::page_word::{State, Transition};

/// How long the holder of a page sleeps, before another look, while somebody looks whether its frame is there.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Resident pages between two runs up to which one call for both is cheaper than two: a page that is passed over costs
/// about 20 ns, a call about 700, and the interrupt of the other processors that it takes.
const MOST_BETWEEN: usize = 48;

/// Neighbouring pages that are locked for a write, in state Changing and protected. Dropped, they are Dirty again.
#[derive(Debug)]
pub struct WriteRun<H: Host> {
    pub(super) owner: Arc<Pages<H>>,
    pub(super) pages: PageRange,
}

/// Neighbouring pages whose bytes are on the way to the pager. Dropped without an answer they are Dirty again.
#[derive(Debug)]
pub struct WriteClaim<H: Host> {
    owner: Arc<Pages<H>>,
    pages: PageRange,
    bytes: ByteRange,
}

impl<H: Host> Pages<H> {
    /// The first block from `from` on that may have a page to write.
    pub fn next_unclean_block(&self, from: u64) -> Option<u64> {
        self.unclean.next(from)
    }

    /// Pages that the pager does not have yet.
    pub fn unclean_pages(&self) -> u64 {
        self.unclean.total()
    }

    /// Locks the pages of `pages`, all of one block, that may be written now, at most `most` of them, and protects
    /// them with few calls. Each run is at most `longest` pages long. Those of them whose frames are gone come apart
    /// from the runs. Allocates; not for signal handlers.
    pub fn lock_dirty(
        self: &Arc<Self>,
        pages: PageRange,
        most: u64,
        longest: u64,
    ) -> (Vec<WriteRun<H>>, Vec<GonePage<H>>) {
        let mut runs: Vec<WriteRun<H>> = Vec::new();
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
                _ => runs.push(WriteRun { owner: Arc::clone(self), pages: PageRange::one(page) }),
            }
        }
        if self.protect_runs(&runs).is_err() {
            runs.clear();
        }
        self.split_gone(runs)
    }

    /// Leaves `page`, which the caller has locked to write, by `transition`, once nobody looks at it any more.
    fn leave_lent(&self, page: PageIndex, transition: Transition) {
        while let Err(word) = self.advance(page, transition) {
            assert_eq!(word.state(), State::Changing, "page {page} left Changing under its owner: {word:?}");
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

    /// Protects runs, those that are close together with one call. Open pages between them are protected with them: the
    /// next store opens them again.
    fn protect_runs(&self, runs: &[WriteRun<H>]) -> Result<(), H::Refused> {
        let close = |a: &WriteRun<H>, b: &WriteRun<H>| {
            let between = PageRange { start: a.pages.end, end: b.pages.start };
            between.iter().filter(|page| self.word(*page).is_resident()).count() <= MOST_BETWEEN
        };
        for group in runs.chunk_by(close) {
            let (first, last) = (&group[0], &group[group.len() - 1]);
            self.host.protect(PageRange { start: first.pages.start, end: last.pages.end })?;
        }
        Ok(())
    }
}

impl<H: Host> WriteRun<H> {
    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// Their bytes, up to the end of the object.
    pub fn bytes(&self) -> ByteRange {
        self.owner.bytes_of(self.pages)
    }

    /// Copies one of the pages into `into`, which is as long as a page. Stores still wait. `false` if its frame is gone:
    /// then the page is lost, what is in `into` is nothing, and the run must not be written.
    pub fn copy_page(&self, page: PageIndex, into: &mut [u8]) -> bool {
        assert!(self.pages.contains(page) && into.len() as u64 == self.owner.page_size.bytes());
        self.owner.host.load(Held::new(), page.0 << self.owner.page_size.shift(), into) == into.len()
    }

    /// Drops the frames of the pages and their bytes. Nobody may pin them. On error, with the first page that could
    /// not be dropped, that page and those behind it are Dirty as before.
    pub fn discard(mut self, now: u8) -> Result<(), PageIndex> {
        while !self.pages.is_empty() {
            let page = PageIndex(self.pages.start);
            if self.owner.word(page).pins() > 0 {
                return Err(page);
            }
            if !self.owner.take_back(page) {
                // Its frame was gone: it is Failed.
                self.pages.start += 1;
                continue;
            }
            if !self.owner.host.drop_frames(Held::new(), PageRange::one(page)) {
                self.owner.settle(page, Transition::Unlook);
                return Err(page);
            }
            self.pages.start += 1;
            self.owner.dropped(page, now);
        }
        Ok(())
    }

    /// All pages were copied: lets stores go on.
    pub fn copied(mut self) -> WriteClaim<H> {
        let bytes = self.bytes();
        let pages = core::mem::take(&mut self.pages);
        for page in pages.iter() {
            // Before the page can be stored to, written and evicted: who reads the pager meanwhile sees it.
            self.owner.note_write(page);
            self.owner.leave_lent(page, Transition::Copied);
        }
        WriteClaim { owner: Arc::clone(&self.owner), pages, bytes }
    }

    /// Copies the pages into the start of `buffer`, which has room for them, and lets stores go on. `None` if the frame of
    /// one is gone: that page is lost, and the others are Dirty as before.
    pub fn copy(self, buffer: &mut [u8]) -> Option<WriteClaim<H>> {
        let page_bytes = self.owner.page_size.bytes() as usize;
        let mut parts = self.pages.iter().zip(buffer.chunks_mut(page_bytes));
        parts.all(|(page, into)| self.copy_page(page, into)).then(|| self.copied())
    }
}

impl<H: Host> Drop for WriteRun<H> {
    fn drop(&mut self) {
        for page in self.pages.iter() {
            self.owner.leave_lent(page, Transition::Unlocked);
        }
    }
}

impl<H: Host> WriteClaim<H> {
    /// The pages.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// The bytes of the object that were copied.
    pub fn bytes(&self) -> ByteRange {
        self.bytes
    }

    /// Splits off the pages from `page` on.
    pub fn split_off(&mut self, page: PageIndex) -> WriteClaim<H> {
        assert!(self.pages.start <= page.0 && page.0 <= self.pages.end);
        let border = page.0 << self.owner.page_size.shift();
        let pages = PageRange { start: page.0, end: self.pages.end };
        let bytes = ByteRange { start: border.min(self.bytes.end), end: self.bytes.end };
        self.pages.end = page.0;
        self.bytes.end = border.min(self.bytes.end);
        WriteClaim { owner: Arc::clone(&self.owner), pages, bytes }
    }

    /// The pager has the bytes: pages that were not stored to meanwhile are Clean.
    pub fn written(mut self) {
        self.end(Transition::Written);
    }

    fn end(&mut self, transition: Transition) {
        for page in core::mem::take(&mut self.pages).iter() {
            if self.owner.settled(page, transition).after.state() == State::Clean {
                self.owner.discount_unclean(page);
            }
        }
    }
}

impl<H: Host> Drop for WriteClaim<H> {
    fn drop(&mut self) {
        self.end(Transition::WriteFailed);
    }
}
