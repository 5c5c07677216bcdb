//! Stores: opening protected pages, copying bytes in, dropping changes.

use alloc::sync::Arc;
use core::sync::atomic::{Ordering, fence};

use super::evict::Marks;
use super::{Held, Host, Pages, PinError};
use crate::address::{PageIndex, PageRange};
use crate::page_word::{State, Transition, Word};

/// How often a store into a page that was opened may trap before that is taken for an error of the memory itself.
const MOST_STORES: u32 = 3;

/// Why bytes could not be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreRefused {
    /// The page is not resident, or others hold it; this is its word.
    NotNow(Word),
    /// A store to this byte of the object traps, and the page is there. Bytes before it were stored.
    Trapped(u64),
}

impl<H: Host> Pages<H> {
    pub(super) fn count_unclean(&self, pages: PageRange) {
        self.parts_by_block(pages, |block, part| self.unclean.add(block, part.len() as u32));
        self.unwritten.fetch_add(pages.len() << self.page_size.shift(), Ordering::Relaxed);
    }

    pub(super) fn discount_unclean(&self, page: PageIndex) {
        self.unclean.subtract(self.block_of(page.0), 1);
        self.unwritten.fetch_sub(self.page_size.bytes(), Ordering::Relaxed);
    }

    /// Locks `page` by `transition`, to Changing, and counts it if it was Clean. Whoever sees it Dirty later finds it
    /// counted.
    pub(super) fn lock(&self, page: PageIndex, transition: Transition) -> Result<Word, Word> {
        let advanced = self.advance(page, transition)?;
        if advanced.before.state() == State::Clean {
            self.count_unclean(PageRange::one(page));
        }
        Ok(advanced.before)
    }

    /// As `lock`, but a Clean page whose frame is gone becomes Absent instead: stores would find nothing to change.
    pub(super) fn lock_present(&self, page: PageIndex, transition: Transition) -> Result<Word, Word> {
        let before = self.lock(page, transition)?;
        if before.state() == State::Clean && !self.has_frame(page) {
            self.dropped(page, before.stamp());
            return Err(self.word(page));
        }
        Ok(before)
    }

    /// Opens a resident page to stores, `viewer`'s among them, which makes it Dirty; or returns the word that forbids
    /// it.
    ///
    /// A page that is Dirty already may have been protected since: it is opened again. Never blocks, never
    /// allocates, so it may be called from a signal handler.
    pub fn open_to_store(&self, page: PageIndex, viewer: H::Viewer) -> Result<(), Word> {
        self.lock_present(page, Transition::LockToStore)?;
        self.host.open(Held::new(), PageRange::one(page), viewer);
        self.settle(page, Transition::Stored);
        Ok(())
    }

    /// Opens pages that were put in place a moment ago, and wakes those who sleep on them: where that is forbidden
    /// meanwhile, they fault again. For frames that have one view.
    pub(super) fn open_placed(&self, pages: PageRange) {
        for page in pages.iter() {
            if self.open_to_store(page, self.host.own()).is_err() {
                self.host.wake(PageRange::one(page));
            }
        }
    }

    /// Opens the Clean pages from the start of `pages` on, up to the first that is not, with one call; returns how
    /// many. For writers that come page after page.
    pub fn open_run_to_store(&self, pages: PageRange, viewer: H::Viewer) -> u64 {
        let mut end = pages.start;
        while end < pages.end && self.lock_clean(PageIndex(end)) {
            end += 1;
        }
        let run = PageRange { start: pages.start, end };
        let run = if run.is_empty() { run } else { self.keep_present(run) };
        if !run.is_empty() {
            self.host.open(Held::new(), run, viewer);
            run.iter().for_each(|page| self.settle(page, Transition::Stored));
        }
        run.len()
    }

    /// Locks `page` to store, if it is Clean. One that somebody has stored to since the look is let go again: what has no
    /// frame in a run of Clean pages is dropped, and its stores with it.
    fn lock_clean(&self, page: PageIndex) -> bool {
        if self.word(page).state() != State::Clean {
            return false;
        }
        match self.lock(page, Transition::LockToStore) {
            Ok(before) if before.state() == State::Clean => true,
            Ok(_) => {
                self.settle(page, Transition::Stored);
                false
            }
            Err(_) => false,
        }
    }

    /// Gives a page back that this thread has locked and that was not Clean `before`, if its frame is gone.
    pub(super) fn refuse_gone(&self, page: PageIndex, before: Word) -> Result<(), PinError> {
        if before.state() == State::Clean || self.has_frame(page) {
            return Ok(());
        }
        self.settle(page, Transition::Stored);
        Err(PinError::FrameGone)
    }

    /// Pins the resident `page` for writing, beside the budget of pins; it is Dirty from then on.
    pub(super) fn lock_alone(&self, page: PageIndex) -> Result<(), Word> {
        let before = self.lock_present(page, Transition::LockToPinMut)?;
        if before.state() != State::Dirty {
            self.host.open(Held::new(), PageRange::one(page), self.host.own());
        }
        self.settle(page, Transition::PinnedMut);
        Ok(())
    }

    /// Copies `source` into the resident page at `offset`, which lies in one page; or says what forbids it: pins of
    /// others do. The page is Dirty afterwards.
    pub fn store_bytes(&self, offset: u64, source: &[u8]) -> Result<(), StoreRefused> {
        let page = PageIndex(offset >> self.page_size.shift());
        let end = (page.0 + 1) << self.page_size.shift();
        assert!(offset + source.len() as u64 <= end, "a store across a page border");
        self.lock_alone(page).map_err(StoreRefused::NotNow)?;
        let stored = self.store_alone(offset, source);
        self.settle(page, Transition::UnpinMut);
        stored
    }

    /// Copies `source` to byte `offset`, in a page that the caller has pinned for writing. The copy can end early: where
    /// the page is protected still, its store faults, and the fault is resolved like anybody's, or refused. Then the
    /// page is opened here, and the rest copied. Opened like anybody's, too: a pin for writing does not keep others from
    /// holding the page while they look whether its frame is there.
    pub(super) fn store_alone(&self, offset: u64, source: &[u8]) -> Result<(), StoreRefused> {
        let page = PageIndex(offset >> self.page_size.shift());
        let mut done = 0;
        for _ in 0..MOST_STORES {
            done += self.host.store(Held::new(), offset + done as u64, &source[done..]);
            if done == source.len() {
                return Ok(());
            }
            if !self.open_again(page) {
                break;
            }
        }
        Err(StoreRefused::Trapped(offset + done as u64))
    }

    /// Opens a page that the caller has pinned for writing, once nobody holds it. `false` if it is lost.
    fn open_again(&self, page: PageIndex) -> bool {
        loop {
            match self.open_to_store(page, self.host.own()) {
                Ok(()) => return true,
                Err(word) if word.is_owned() => self.wait(page, None),
                Err(_) => return false,
            };
        }
    }

    /// Protects the pages of `pages`, all of one block, that stores may go on to unseen: the next store to each faults. `Err`:
    /// somebody stores to this page still, who has pinned it for writing or opens it. Never allocates.
    pub fn protect(&self, pages: PageRange) -> Result<(), PageIndex> {
        let mut locked = Marks::none(pages.start);
        let (mut run, mut busy) = (PageRange { start: pages.end, end: pages.start }, None);
        for page in pages.iter() {
            if self.advance(page, Transition::LockToPin).is_ok() {
                locked.set(page.0);
                run = PageRange { start: run.start.min(page.0), end: page.0 + 1 };
            } else if self.word(page).may_be_stored_to() {
                busy = Some(page);
                break;
            }
        }
        // Those between are open to nobody, or are protected once too often.
        let refused = run.start < run.end && busy.is_none() && self.host.protect(run).is_err();
        for page in (run.start..run.end).map(PageIndex).filter(|page| locked.has(page.0)) {
            self.settle(page, Transition::Stored);
        }
        busy.or(refused.then_some(PageIndex(run.start))).map_or(Ok(()), Err)
    }

    /// Makes a Clean page Dirty without a store: the pager has lost what it had taken. `false` if it is not Clean.
    pub fn make_dirty(&self, page: PageIndex) -> bool {
        // Counted first: from the moment that it is Dirty others can write it, and discount it.
        self.count_unclean(PageRange::one(page));
        let is_dirty = self.advance(page, Transition::Redirty).is_ok();
        if !is_dirty {
            self.discount_unclean(page);
        }
        is_dirty
    }

    /// Drops the frame of a page and its bytes, written or not. `false` if somebody holds it.
    pub fn discard(&self, page: PageIndex, now: u8) -> bool {
        let word = self.word(page);
        if word.state() == State::Clean {
            return self.evict_all(PageRange::one(page), now).pages == 1;
        }
        if word.state() != State::Dirty
            || word.is_writing()
            || self.lock(page, Transition::LockToPinMut).is_err()
        {
            return false;
        }
        // A write can have been started and a store come since the look at the word.
        if self.word(page).is_writing() || !self.host.drop_frames(Held::new(), PageRange::one(page)) {
            self.settle(page, Transition::Stored);
            return false;
        }
        self.dropped(page, now);
        true
    }

    /// The frame of a page that this thread has locked is gone.
    pub(super) fn dropped(&self, page: PageIndex, now: u8) {
        self.resident.subtract(self.block_of(page.0), 1);
        self.discount_unclean(page);
        self.settle(page, Transition::Discarded { stamp: now });
        self.budget.release(self.page_size.bytes());
        self.host.wake(PageRange::one(page));
    }

    /// Sets the length of the object, at most the capacity. The caller has seen to the pages behind it.
    pub fn set_length(&self, length: u64) {
        assert!(length <= self.capacity);
        self.length.store(length, Ordering::Release);
        // Who looks at the pages behind the end after this sees the claims of all who have seen the length of before.
        fence(Ordering::SeqCst);
        for number in &self.writes_begun {
            number.fetch_add(1, Ordering::SeqCst);
        }
        self.host.length_changed(length);
    }

    /// A number that changes before bytes of `page` go to the pager, and whenever the length of the object changes. Of an
    /// object that can be written.
    pub fn writes_begun(&self, page: PageIndex) -> u32 {
        self.writes_begun[page.0 as usize % self.writes_begun.len()].load(Ordering::SeqCst)
    }

    pub(super) fn note_write(self: &Arc<Self>, page: PageIndex) {
        self.writes_begun[page.0 as usize % self.writes_begun.len()].fetch_add(1, Ordering::SeqCst);
    }
}
