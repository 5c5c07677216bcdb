//! Stores: of faulting threads, of the driver in their name, and by `write_at`.

use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::budget::Budget;
use memobj_core::decide::{Decision, Intent, WaitFor, decide};
use memobj_core::page_word::Word;
use memobj_linux::area::{MutPinSet, PinError, PinnedBytesMut, Placement, StoreRefused, Viewer};
use memobj_linux::region::SMALL;

use super::gate::Inside;
use super::{WriteStep, Writes};
use crate::allocator::Patience;
use crate::batch::fill_missing;
use crate::buffers::RUN_PAGES;
use crate::clock::Deadline;
use crate::error::{AccessError, ErrorKind, PinHolder, SupplyError};
use crate::options::Writing;
use crate::pages::{AlignedPage, FillReason, bytes_of};
use crate::pins::{Ask, NotedPin, note_pin};

/// How long a sleeper sleeps before it looks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a touch that is under way is waited for, before another look.
const SOON: Duration = Duration::from_micros(100);
/// Pages that a sequential writer gets opened at once, at most.
const LONGEST_RUN: u64 = 256;

/// What became of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stored {
    /// It may go on.
    Yes,
    /// Not now: too much is Dirty, a commit copies pages, somebody pins the page, or it is not resident any more.
    NotNow,
}

/// What a fault was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultFor {
    Load,
    Store,
}

/// Whether a page is to be opened to stores when it comes; with the right to do so.
#[derive(Debug)]
pub(crate) struct Expected<'a>(Option<Inside<'a>>);

impl Expected<'_> {
    pub(crate) fn reason(&self) -> FillReason {
        if self.0.is_some() { FillReason::ToStore } else { FillReason::Demand }
    }
}

/// What an absent page is to be obtained for after an access faulted: one that is stored to, or likely to be, is
/// opened to stores at once. Hold the answer until the page is in place. Safe in a signal handler.
pub(crate) fn expect(writes: Option<&Arc<Writes>>, access: FaultFor) -> Expected<'_> {
    writes.map_or(Expected(None), |writes| writes.expect(access))
}

impl Writes {
    /// Opens a resident page to a store of `viewer` that faulted. Never blocks, never allocates; safe in a signal handler.
    pub(crate) fn store_to(&self, page: PageIndex, viewer: Viewer) -> Stored {
        let word = self.area.word(page);
        // A page that is pinned for writing counts as Dirty already, and no commit has it: its holder must never trap.
        if word.is_pinned_mut() && self.area.open_to_store(page, viewer).is_ok() {
            return Stored::Yes;
        }
        if word.is_clean() && self.has_too_much_dirty() {
            self.fill.allocator.unwritten.hurry();
            return Stored::NotNow;
        }
        let Some(_inside) = self.gate.enter() else { return Stored::NotNow };
        if self.area.open_to_store(page, viewer).is_err() {
            return Stored::NotNow;
        }
        let next = page.0 + 1;
        let steps = self.sequences.steps(PageRange::one(page));
        if steps >= 2 && self.object.options.writing == Writing::InPlace {
            let longest = (1 << steps.min(8)).min(LONGEST_RUN);
            let run = PageRange { start: next, end: (next + longest).min(self.area.pages()) };
            let opened = self.area.open_run_to_store(run, viewer);
            self.sequences.extend(next, next + opened);
        }
        self.fill.allocator.unwritten.wake_if_enough();
        Stored::Yes
    }

    fn expect(&self, access: FaultFor) -> Expected<'_> {
        if !self.area.is_local() {
            return Expected(None);
        }
        let stores = match access {
            FaultFor::Store => true,
            FaultFor::Load => self.object.options.writing == Writing::InPlace && self.guess.loaded(),
        };
        self.fill.allocator.unwritten.wake_if_enough();
        Expected(if stores && !self.has_too_much_dirty() { self.gate.enter() } else { None })
    }

    /// A store found a page that was not obtained for it.
    pub(crate) fn note_store(&self, page: PageIndex) {
        if self.area.word(page).is_clean() {
            self.guess.stored();
        }
    }

    /// Sleeps until a store that may not go on now has reason to try again. Safe in a signal handler.
    pub(crate) fn wait_to_store(&self, page: PageIndex) {
        // Not for pins for writing, nor for writes in flight: the pin can be this thread's own, and neither keeps it off.
        if self.area.word(page).keeps_stores_off() {
            self.area.wait_to_store(page, Some(LOOK_AGAIN));
        } else if self.has_too_much_dirty() {
            self.fill.allocator.unwritten.wait_for_progress(LOOK_AGAIN);
        } else {
            self.gate.wait(LOOK_AGAIN);
        }
    }

    /// Whether stores to further pages wait. An object whose pages cannot be written must not block the others:
    /// below an eighth of the budget of its own, each may go on until three quarters of the budget are Dirty.
    pub(super) fn has_too_much_dirty(&self) -> bool {
        let own = self.area.unclean_pages() << self.area.page_size().shift();
        self.fill.allocator.unwritten.is_too_much(own)
    }

    /// Waits while too much is Dirty; an error if it will stay so.
    pub(super) fn pace(&self) -> Result<(), AccessError> {
        self.fill.allocator.unwritten.wake_if_enough();
        while self.has_too_much_dirty() {
            if let Some(error) = self.hopeless() {
                return Err(error.into());
            }
            self.fill.allocator.unwritten.hurry();
            self.fill.allocator.unwritten.wait_for_progress(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Whether a store has to trap: nothing can be written, and the policy says not to wait. Safe in a signal
    /// handler.
    pub(crate) fn store_is_hopeless(&self) -> bool {
        self.has_too_much_dirty() && self.gives_up()
    }

    /// Makes the page of a hopeless store trap, with the error of the writes that fail: the sleeping thread can be
    /// told in no other way. `false` if the page cannot be taken.
    pub(crate) fn trap_store(&self, page: PageIndex) -> bool {
        let Some(error) = self.hopeless() else { return false };
        self.area.evict_all(PageRange::one(page), self.fill.allocator.ages.now());
        let Ok(claim) = self.area.claim(page, Placement::AtOnce) else { return false };
        let bytes = claim.bytes();
        let error = SupplyError::because(error.kind(), error);
        self.errors.fail(claim, &error, 0, bytes);
        true
    }

    /// Copies `source` to byte `offset` of the object; the range lies inside.
    pub(crate) fn write_bytes(&self, offset: u64, source: &[u8]) -> Result<(), AccessError> {
        let page_bytes = SMALL as u64;
        let mut done = 0;
        while done < source.len() {
            let at = offset + done as u64;
            self.pace()?;
            if at.is_multiple_of(page_bytes) {
                done += self.write_absent_pages(at, &source[done..]);
                if done == source.len() {
                    break;
                }
            }
            let at = offset + done as u64;
            let part = ((page_bytes - at % page_bytes) as usize).min(source.len() - done);
            let written = self.write_in_page(at, &source[done..done + part]);
            let bytes = ByteRange { start: at, end: at + part as u64 };
            written.map_err(|error| self.waits.cut_off(bytes).unwrap_or(error))?;
            done += part;
        }
        self.fill.allocator.unwritten.wake_if_enough();
        Ok(())
    }

    /// Puts whole absent pages in place as they are going to be, without asking the pager for what they were.
    /// Returns how many bytes that took care of.
    fn write_absent_pages(&self, offset: u64, source: &[u8]) -> usize {
        let range = ByteRange { start: offset, end: offset + source.len() as u64 };
        let whole = self.whole_pages(range);
        let pages = PageRange { end: whole.end.min(whole.start + RUN_PAGES), ..whole };
        if pages.is_empty() || !self.area.word(PageIndex(pages.start)).is_absent() {
            return 0;
        }
        let Some(inside) = self.gate.enter() else { return 0 };
        let Some(mut claim) = self.area.claim_run(pages, Placement::AtOnce) else { return 0 };
        if claim.pages().iter().any(|page| self.area.word(page).pins() > 0) {
            // A page can lose its frame to others while it is pinned: then it comes back as it was.
            return 0;
        }
        if self.whole_pages(range) != whole {
            // The object has grown before the claim: its last page can have had bytes behind these since.
            return 0;
        }
        let bytes = ((claim.pages().len() * SMALL as u64) as usize).min(source.len());
        let last = claim.pages().end - 1;
        let full = bytes / SMALL * SMALL;
        let tail = (bytes > full).then(|| claim.split_off(PageIndex(last)));
        if full > 0
            && self.fill.place_copy(claim, &source[..full], FillReason::Store, Patience::Endless).is_err()
        {
            return 0;
        }
        if let Some(tail) = tail {
            let mut page = AlignedPage([0; SMALL]);
            page.0[..bytes - full].copy_from_slice(&source[full..bytes]);
            if self.fill.place_copy(tail, &page.0, FillReason::Store, Patience::Endless).is_err() {
                return full;
            }
        }
        drop(inside);
        bytes
    }

    /// The pages of which `bytes` has all that the object has.
    pub(super) fn whole_pages(&self, bytes: ByteRange) -> PageRange {
        let page_bytes = SMALL as u64;
        let end = match bytes.end >= self.area.length() {
            true => bytes.end.div_ceil(page_bytes),
            false => bytes.end / page_bytes,
        };
        PageRange { start: bytes.start.div_ceil(page_bytes).min(end), end }
    }

    fn write_in_page(&self, offset: u64, source: &[u8]) -> Result<(), AccessError> {
        let page = PageIndex(offset / SMALL as u64);
        let mut pinned_until = None;
        let bytes = ByteRange { start: offset, end: offset + source.len() as u64 };
        loop {
            let Some(inside) = self.enter(bytes)? else { continue };
            let refused = self.area.store_bytes(offset, source).err();
            drop(inside);
            match refused {
                None => return Ok(()),
                Some(StoreRefused::Trapped(at)) => return Err(self.waits.trapped_at(at)),
                Some(StoreRefused::NotNow(word)) => {
                    self.make_writable(self.area.word(page), page, word.pins() > 0, &mut pinned_until)?;
                }
            }
        }
    }

    /// Goes in to store to `bytes`; `None` to try again. An error if they are cut off.
    pub(super) fn enter(&self, bytes: ByteRange) -> Result<Option<Inside<'_>>, AccessError> {
        if let Some(error) = self.waits.cut_off(bytes) {
            return Err(error);
        }
        let inside = self.gate.enter();
        if inside.is_none() {
            self.gate.wait(LOOK_AGAIN);
        }
        Ok(inside)
    }

    /// Does what is needed so that `page`, seen as `word`, can be stored to: obtains it, or waits for its owner or its pins.
    pub(super) fn make_writable<'a>(
        &'a self,
        word: Word,
        page: PageIndex,
        is_pinned: bool,
        pinned_until: &mut Option<Deadline<'a>>,
    ) -> Result<(), AccessError> {
        match decide(word, Intent::Change) {
            Decision::Claim => fill_missing(&self.fill, &[PageRange::one(page)], &mut |_| {}),
            Decision::Trap => match self.errors.of(page) {
                Some(error) => return Err(error.into()),
                None => self.waits.wait_for(page)?,
            },
            Decision::Demand => {
                self.waits.driver.ask(Ask::Demand(page));
                self.waits.wait_for(page)?;
            }
            Decision::Wait(WaitFor::Filler) => self.waits.wait_for(page)?,
            _ if is_pinned => self.waits.wait_for_pins(page, pinned_until)?,
            _ => {
                self.area.wait_as_writer(page, Some(LOOK_AGAIN));
            }
        }
        Ok(())
    }

    /// Pins `bytes` for writing, page by page. `OutOfRange`, with offsets in the object, if it is cut off meanwhile.
    pub(crate) fn pin_mut(&self, bytes: ByteRange) -> Result<MutPinned, AccessError> {
        self.pin_pages_mut(bytes).map_err(|error| self.waits.cut_off(bytes).unwrap_or(error))
    }

    fn pin_pages_mut(&self, bytes: ByteRange) -> Result<MutPinned, AccessError> {
        let pages = self.area.page_size().pages_of(bytes);
        let share = self.share_to_pin(pages)?;
        let set = MutPinSet::new(Arc::clone(&self.area), pages);
        let mut set = set.ok_or_else(|| self.waits.out_of_range(bytes))?;
        let mut pinned_until = None;
        while let Some(page) = set.next() {
            self.pace()?;
            let Some(inside) = self.enter(bytes)? else { continue };
            let refused = set.try_pin_next();
            drop(inside);
            match refused {
                Ok(()) => {}
                Err(PinError::NotClean(word)) => {
                    if word.is_absent() {
                        let rest = PageRange { start: page.0, end: pages.end.min(page.0 + RUN_PAGES) };
                        fill_missing(&self.fill, &[rest], &mut |_| {});
                    }
                    self.make_writable(self.area.word(page), page, word.pins() > 0, &mut pinned_until)?;
                }
                // Its bytes are lost: the next round finds it Failed.
                Err(PinError::FrameGone) => self.errors.look(page, bytes_of(&self.area, page).start),
                Err(PinError::OverBudget) => return Err(self.too_much_to_pin(pages)),
                Err(PinError::TooManyPins) => return Err(AccessError::TooManyPins),
            }
        }
        self.wait_for_touches(&mut || set.first_touched())?;
        let noted = note_pin(&self.area, pages);
        let copy_budget = self.waits.copy_budget_for(bytes)?;
        let bytes =
            PinnedBytesMut::new(set, bytes, copy_budget).map_err(|why| self.waits.not_pinned(bytes, why))?;
        Ok(MutPinned { bytes, _noted: noted, _share: share })
    }

    /// What `pages` need of what may be pinned for writing: this cannot be cleaned, and stays well below the hard target.
    pub(super) fn share_to_pin(&self, pages: PageRange) -> Result<MutPinShare, AccessError> {
        let share = MutPinShare::reserve(&self.fill.allocator.mut_pins, pages.len() * SMALL as u64);
        share.ok_or_else(|| self.too_much_to_pin(pages))
    }

    pub(super) fn too_much_to_pin(&self, pages: PageRange) -> AccessError {
        let wanted_bytes = pages.len() * SMALL as u64;
        AccessError::PinsExceedBudget { wanted_bytes, limit_bytes: self.fill.allocator.mut_pins.limit() }
    }

    /// Waits for loads by touch that began before their pages were pinned for writing.
    pub(super) fn wait_for_touches(
        &self,
        first_touched: &mut dyn FnMut() -> Option<PageIndex>,
    ) -> Result<(), AccessError> {
        let until = self.object.pin_deadline();
        while let Some(page) = first_touched() {
            if until.is_over() {
                return Err(AccessError::Pinned { range: bytes_of(&self.area, page), by: PinHolder::Others });
            }
            std::thread::sleep(SOON);
        }
        Ok(())
    }

    /// Puts a copy of bytes that were pinned for writing into the object. What fails is told by an event, and by the next
    /// sync: whoever drops a pin hears of nothing.
    pub(crate) fn put_back(&self, bytes: &mut PinnedBytesMut) {
        let Err(refused) = bytes.put_back() else { return };
        let at = match refused {
            StoreRefused::Trapped(at) => at / SMALL as u64 * SMALL as u64,
            StoreRefused::NotNow(_) => 0,
        };
        let error = SupplyError::new(ErrorKind::Io);
        let error = self.object.write_error(WriteStep::WriteBack, at..at + SMALL as u64, &error);
        self.write_failed(error.because("the memory that holds the page traps"));
    }
}

/// Pages pinned for writing, with their share of what such pins may hold.
pub(crate) struct MutPinned {
    pub(crate) bytes: PinnedBytesMut,
    pub(super) _noted: NotedPin,
    pub(super) _share: MutPinShare,
}

/// Bytes of the budget of pins for writing, given back on drop.
#[derive(Debug)]
pub(super) struct MutPinShare {
    budget: Arc<Budget>,
    bytes: u64,
}

impl MutPinShare {
    pub(super) fn reserve(budget: &Arc<Budget>, bytes: u64) -> Option<Self> {
        budget.try_reserve(bytes).then(|| Self { budget: Arc::clone(budget), bytes })
    }
}

impl Drop for MutPinShare {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}
