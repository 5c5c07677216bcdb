//! Stores: opening protected pages, copying bytes in, pins for writing.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::{State, Transition, Word};

use super::pin::Copied;
use super::{Area, NotPinned, PinError, Room, Viewer, Writes};
use crate::region::SMALL;
use crate::signal;
use crate::uffd::{Announce, Wake};

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

impl Area {
    /// Puts bytes in place at `start` of the first view, protected if they can be written; on error says how many
    /// are there. They can be touched a moment before their word says so: if they could be stored to in that moment,
    /// a sync by whoever stored would not find them.
    pub(super) fn copy_in(&self, start: usize, source: &[u8], wake: Wake) -> Result<(), (usize, io::Error)> {
        let view = &self.views[0];
        let at = view.region.start() + start;
        let Some(uffd) = &view.uffd else {
            let len = source.len();
            assert!(start + len <= view.region.len());
            // SAFETY: the pages are Filling and owned by the calling claim, and without a userfaultfd nobody has
            // addresses to touch them; the region is writable and at least so long.
            unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), view.region.pointer(start), len) };
            return Ok(());
        };
        // SAFETY: the pages are Filling and owned by the calling claim; the source is a slice.
        let copied = unsafe {
            match self.writes {
                Writes::No => uffd.copy(at, source.as_ptr(), source.len()),
                Writes::Yes => uffd.copy_protected(at, source.as_ptr(), source.len(), wake),
            }
        };
        match (copied, &self.frame_file) {
            (Err((done, error)), Some(file))
                if self.writes == Writes::Yes && error.raw_os_error() == Some(libc::EEXIST) =>
            {
                // The file has a page that nobody of us has put there: a guest that has unregistered its view makes
                // such, of zeros. They are not to be seen.
                file.punch((start + done) as u64, (source.len() - done) as u64)
                    .map_err(|error| (done, error))?;
                let (rest, at) = (&source[done..], at + done);
                // SAFETY: as above.
                let copied = unsafe { uffd.copy_protected(at, rest.as_ptr(), rest.len(), wake) };
                copied.map_err(|(more, error)| (done + more, error))
            }
            (copied, _) => copied,
        }
    }

    pub(super) fn count_unclean(&self, pages: PageRange) {
        let mut page = pages.start;
        while page < pages.end {
            let block = self.block_of(page);
            let end = self.block_range(block).end.min(pages.end);
            self.unclean.add(block, (end - page) as u32);
            page = end;
        }
        self.unwritten.fetch_add(pages.len() << self.page_size.shift(), Ordering::Relaxed);
    }

    pub(super) fn discount_unclean(&self, page: PageIndex) {
        self.unclean.subtract(self.block_of(page.0), 1);
        self.unwritten.fetch_sub(self.page_size.bytes(), Ordering::Relaxed);
    }

    /// Makes stores to `pages` trap from now on, in all views. The caller has locked those of them that may be open.
    pub(super) fn protect(&self, pages: PageRange) -> io::Result<()> {
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        for view in self.views_in_use() {
            if let Some(uffd) = &view.uffd {
                uffd.write_protect(view.region.start() + start, end - start)?;
            }
        }
        self.protect_in_guests(start, end)
    }

    /// Opens `pages`, which the caller has locked, to stores in all views that show them, and shows them to `viewer`.
    fn unprotect(&self, pages: PageRange, viewer: Viewer) -> io::Result<()> {
        if self.shows_when_told() {
            self.show_open(pages, viewer);
        }
        let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
        for view in self.views_in_use() {
            if let Some(uffd) = &view.uffd {
                uffd.unprotect(view.region.start() + start, end - start)?;
            }
        }
        if let Some(guests) = &self.guests {
            guests.unprotect(start, end);
        }
        Ok(())
    }

    /// The view in which the engine itself loads and stores.
    fn own_viewer(&self) -> Viewer {
        let announce = self.views[0].uffd.as_ref().map_or(Announce::Queued, |uffd| uffd.announce());
        Viewer::Here(announce)
    }

    /// Locks `page` by `transition`, to Changing, and counts it if it was Clean. Whoever sees it Dirty later finds it
    /// counted.
    fn lock(&self, page: PageIndex, transition: Transition) -> Result<Word, Word> {
        let advanced = self.advance(page, transition)?;
        if advanced.before.state() == State::Clean {
            self.count_unclean(PageRange::one(page));
        }
        Ok(advanced.before)
    }

    /// As `lock`, but a Clean page whose frame is gone becomes Absent instead: stores would find nothing to change.
    fn lock_present(&self, page: PageIndex, transition: Transition) -> Result<Word, Word> {
        let before = self.lock(page, transition)?;
        if before.state() == State::Clean && !self.is_present_at(self.offset_in_view(page.0) as u64) {
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
    pub fn open_to_store(&self, page: PageIndex, viewer: Viewer) -> Result<(), Word> {
        self.lock_present(page, Transition::LockToStore)?;
        // Refused only for a malformed range; the next store faults again then.
        let _ = self.unprotect(PageRange::one(page), viewer);
        self.settle(page, Transition::Stored);
        Ok(())
    }

    /// Opens pages that were put in place a moment ago, and wakes those who sleep on them: where that is forbidden
    /// meanwhile, they fault again. For local frames, which have one view.
    pub(super) fn open_placed(&self, pages: PageRange) {
        for page in pages.iter() {
            if self.open_to_store(page, self.own_viewer()).is_err() {
                self.wake(PageRange::one(page));
            }
        }
    }

    /// Opens the Clean pages from the start of `pages` on, up to the first that is not, with one system call;
    /// returns how many. For writers that come page after page.
    pub fn open_run_to_store(&self, pages: PageRange, viewer: Viewer) -> u64 {
        let mut end = pages.start;
        while end < pages.end
            && self.word(PageIndex(end)).state() == State::Clean
            && self.lock(PageIndex(end), Transition::LockToStore).is_ok()
        {
            end += 1;
        }
        let run = PageRange { start: pages.start, end };
        let run = if run.is_empty() { run } else { self.keep_present(run) };
        if !run.is_empty() {
            let _ = self.unprotect(run, viewer);
            run.iter().for_each(|page| self.settle(page, Transition::Stored));
        }
        run.len()
    }

    /// Gives a page back that this thread has locked and that was not Clean `before`, if its frame is gone.
    fn refuse_gone(&self, page: PageIndex, before: Word) -> Result<(), PinError> {
        let is_there = || self.is_present_at(self.offset_in_view(page.0) as u64);
        if before.state() == State::Clean || is_there() {
            return Ok(());
        }
        self.settle(page, Transition::Stored);
        Err(PinError::FrameGone)
    }

    /// Ends a lock of this thread's own.
    pub(super) fn settle(&self, page: PageIndex, transition: Transition) {
        let done = self.advance(page, transition);
        debug_assert!(done.is_ok(), "page {page} left Changing under its owner: {done:?}");
    }

    /// Waits, at most `timeout`, while `page` is owned, pinned or on its way to the pager; returns the word then.
    pub fn wait_as_writer(&self, page: PageIndex, timeout: Option<std::time::Duration>) -> Word {
        let word = &self.words[page.0 as usize];
        if let Some(seen) = word.announce_writer() {
            crate::futex::wait(crate::futex::low_half(word.as_atomic()), seen.low_half(), timeout);
        }
        word.load()
    }

    /// Pins the resident `page` for writing, beside the budget of pins; it is Dirty from then on.
    pub(super) fn lock_alone(&self, page: PageIndex) -> Result<(), Word> {
        let before = self.lock_present(page, Transition::LockToPinMut)?;
        if before.state() != State::Dirty {
            let _ = self.unprotect(PageRange::one(page), self.own_viewer());
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
        let stored = self.store_alone(offset as usize, source);
        self.settle(page, Transition::UnpinMut);
        stored
    }

    /// Copies `source` to the views' byte `start`, in a page that the caller has pinned for writing. The copy can end
    /// early: where the page is protected still, its store faults, and the fault is resolved like anybody's, or refused.
    /// Then the page is opened here, and the rest copied.
    pub(super) fn store_alone(&self, start: usize, source: &[u8]) -> Result<(), StoreRefused> {
        let page = PageIndex((start >> self.page_size.shift()) as u64);
        let mut done = 0;
        for _ in 0..MOST_STORES {
            // SAFETY: the page is resident and pinned for writing by the caller alone; the range lies inside it.
            done += unsafe {
                signal::store_trapping(self.views[0].region.pointer(start + done), &source[done..])
            };
            if done == source.len() {
                return Ok(());
            }
            // Refused only for a malformed range; the next store traps again then.
            let _ = self.unprotect(PageRange::one(page), self.own_viewer());
        }
        Err(StoreRefused::Trapped((start + done) as u64))
    }

    /// Copies a page that somebody has pinned for writing, as it is: he may be storing to it. For the end of the process
    /// only, after which nobody can tell a half of a store from a store that did not come.
    ///
    /// The kernel copies (process_vm_readv(2)), so no reference points to what another thread changes.
    pub fn copy_pinned(&self, page: PageIndex, buffer: &mut [u8]) -> std::io::Result<()> {
        let start = self.offset_in_view(page.0);
        let len = buffer.len();
        if page.0 >= self.pages() || len > SMALL {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let into = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: len };
        let from = libc::iovec { iov_base: self.views[0].region.pointer(start).cast(), iov_len: len };
        // SAFETY: the kernel writes to `buffer`, which is ours. It reads addresses of this process: those that are not
        // mapped are an error.
        let copied = unsafe { libc::process_vm_readv(libc::getpid(), &into, 1, &from, 1, 0) };
        match usize::try_from(copied) {
            Err(_) => Err(std::io::Error::last_os_error()),
            Ok(copied) if copied == len => Ok(()),
            Ok(_) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
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
        if self.word(page).state() == State::Clean {
            return self.evict_all(PageRange::one(page), now).pages == 1;
        }
        let word = self.word(page);
        if word.state() != State::Dirty
            || word.is_writing()
            || self.lock(page, Transition::LockToPinMut).is_err()
        {
            return false;
        }
        // A write can have been started and a store come since the look at the word.
        if self.word(page).is_writing() || !self.zap_frames(PageRange::one(page)) {
            self.settle(page, Transition::Stored);
            return false;
        }
        self.dropped(page, now);
        true
    }

    /// The frame of a page that this thread has locked is gone.
    pub(super) fn dropped(&self, page: PageIndex, now: u8) {
        self.residency.subtract(self.block_of(page.0), 1);
        self.discount_unclean(page);
        self.settle(page, Transition::Discarded { stamp: now });
        self.budget.release(SMALL as u64);
        self.wake(PageRange::one(page));
    }

    /// Sets the length of the object, at most the capacity. The caller has seen to the pages behind it.
    pub fn set_length(&self, length: u64) {
        assert!(length <= self.capacity);
        self.length.store(length, Ordering::Release);
        for number in &self.writes_begun {
            number.fetch_add(1, Ordering::SeqCst);
        }
        self.tell_length(length);
    }
}

/// A growing set of pages pinned for writing; all pins end when it is dropped.
#[derive(Debug)]
pub struct MutPinSet {
    area: Arc<Area>,
    pages: PageRange,
    /// The first page that is not pinned yet.
    next: u64,
    /// The first page that touches may be under way of.
    touched: u64,
}

impl MutPinSet {
    /// No page of `pages` pinned yet. The area can be written. `None` if they are not all the object's: it can have been
    /// cut off a moment ago.
    pub fn new(area: Arc<Area>, pages: PageRange) -> Option<Self> {
        assert!(area.writes() == Writes::Yes);
        let fits = pages.end <= area.pages();
        fits.then(|| Self { area, pages, next: pages.start, touched: pages.start })
    }

    /// The page to pin next; `None` once all are.
    pub fn next(&self) -> Option<PageIndex> {
        (self.next < self.pages.end).then_some(PageIndex(self.next))
    }

    /// Pins the next page.
    pub fn try_pin_next(&mut self) -> Result<(), PinError> {
        let page = PageIndex(self.next);
        let bytes = self.area.page_size.bytes();
        if !self.area.pin_budget.try_reserve(bytes) {
            return Err(PinError::OverBudget);
        }
        let locked = self.area.lock_present(page, Transition::LockToPinMut).map_err(PinError::NotClean);
        if let Err(error) = locked.and_then(|before| self.area.refuse_gone(page, before)) {
            self.area.pin_budget.release(bytes);
            return Err(error);
        }
        let _ = self.area.unprotect(PageRange::one(page), self.area.own_viewer());
        self.area.settle(page, Transition::PinnedMut);
        self.next += 1;
        Ok(())
    }

    /// A pinned page whose bytes somebody may still be loading, by a touch that began before it was pinned. `None`: there
    /// is none, and none will be.
    pub fn first_touched(&mut self) -> Option<PageIndex> {
        while self.touched < self.next {
            let page = PageIndex(self.touched);
            if self.area.touches.may_touch(page) {
                return Some(page);
            }
            self.touched += 1;
        }
        None
    }

    /// The bytes, once every page is pinned and no touch of it is under way. `bytes` lies in these pages, in the first
    /// and the last of them.
    ///
    /// Where pins are copies ([`Area::pins_are_copies`]) the copy takes `room` for them, and is put into the pages by
    /// [`PinnedBytesMut::put_back`].
    pub fn into_bytes(self, bytes: ByteRange, room: Option<Room>) -> Result<PinnedBytesMut, NotPinned> {
        if self.touched < self.pages.end {
            return Err(NotPinned::Missing);
        }
        let copy = self.area.refer_or_copy(self.pages, bytes, room)?;
        Ok(PinnedBytesMut { pins: self, bytes, copy })
    }
}

impl Drop for MutPinSet {
    fn drop(&mut self) {
        for page in (PageRange { start: self.pages.start, end: self.next }).iter() {
            self.area.settle(page, Transition::UnpinMut);
            self.area.pin_budget.release(self.area.page_size.bytes());
        }
    }
}

/// Bytes of an object pinned for writing.
#[derive(Debug)]
pub struct PinnedBytesMut {
    pins: MutPinSet,
    bytes: ByteRange,
    copy: Option<Copied>,
}

impl PinnedBytesMut {
    /// Puts a copy into the pages; where the bytes are the pages' own there is nothing to do. To be called before this is
    /// dropped, which forgets the copy.
    pub fn put_back(&mut self) -> Result<(), StoreRefused> {
        let Some(copy) = &self.copy else { return Ok(()) };
        let area = &self.pins.area;
        let page_bytes = area.page_size.bytes();
        let mut done = 0;
        while done < copy.bytes.len() {
            let at = self.bytes.start + done as u64;
            let part = ((page_bytes - at % page_bytes) as usize).min(copy.bytes.len() - done);
            area.store_alone(at as usize, &copy.bytes[done..done + part])?;
            done += part;
        }
        Ok(())
    }
}

impl Deref for PinnedBytesMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if let Some(copy) = &self.copy {
            return &copy.bytes;
        }
        let start = self.pins.area.views[0].region.pointer(self.bytes.start as usize);
        // SAFETY: every page of the range is pinned for writing by `pins` alone, so each holds a frame that is
        // neither evicted nor copied from, and no touch of it is under way or begins; nobody else has a description of
        // the frames that can write, as this reference is counted (`into_bytes`); the region lives as long as the area,
        // which `pins` keeps.
        unsafe { std::slice::from_raw_parts(start, self.bytes.len() as usize) }
    }
}

impl DerefMut for PinnedBytesMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        if let Some(copy) = &mut self.copy {
            return &mut copy.bytes;
        }
        let start = self.pins.area.views[0].region.pointer(self.bytes.start as usize);
        // SAFETY: as in `deref`, and `self` is borrowed mutably: of all pins of these pages it is the only one.
        unsafe { std::slice::from_raw_parts_mut(start, self.bytes.len() as usize) }
    }
}

impl Drop for PinnedBytesMut {
    fn drop(&mut self) {
        if self.copy.is_none() {
            self.pins.area.leave_reference();
        }
    }
}
