//! Waits for pages: until they are there, until their pins end, and what is the error if that does not come.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::decide::{Decision, Intent, WaitFor, decide};
use memobj_linux::area::{Area, CopyBudget, FillClaim, GonePage, NotPinned};
use memobj_linux::fork::MakerProcess;

use super::{ThisThread, key};
use crate::allocator::Patience;
use crate::batch::fill_missing;
use crate::clock::Deadline;
use crate::error::{AccessError, ErrorKind, PageError, PinHolder, SupplyError, WriteError, WriteStep};
use crate::pages::{Fill, bytes_of};

/// How long a sleeper on a page word sleeps before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The same of who waits for a pin to end.
const LOOK_AGAIN_FOR_PINS: Duration = Duration::from_millis(20);

/// What the driver is asked for one object. Moving it must not allocate.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Fill this claim; its pages are waited for.
    Supply { claim: FillClaim, sequential: bool },
    /// Somebody waits for a page that is kept ready.
    Demand(PageIndex),
    /// Somebody has read in order up to this page.
    Ahead(PageIndex),
    /// Obtain the absent pages of this range; nobody waits yet.
    Prefetch(PageRange),
    /// A store faulted at this page, and could not go on at once.
    Store(PageIndex),
    /// The frame of this page is gone, with changes that nobody else has.
    Lost(GonePage),
}

/// The driver of the cache, asked in the name of one object.
pub(crate) trait AskDriver: std::fmt::Debug + Send + Sync {
    /// Queues what is asked, and returns. Safe in a signal handler.
    fn ask(&self, ask: Ask);
}

/// Who waits for pages of one object in a call of his own: pins, copies and writes. Faults wait at their doors.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(crate) area: Arc<Area>,
    pub(crate) fill: Arc<Fill>,
    pub(crate) owner: Arc<MakerProcess>,
    pub(crate) driver: Box<dyn AskDriver>,
}

impl Waits {
    /// Sleeps while somebody else owns `page`; an error if nobody will ever answer.
    pub(crate) fn wait_for(&self, page: PageIndex) -> Result<(), PageError> {
        self.timed(|| self.area.wait(page, Some(LOOK_AGAIN)));
        if self.owner.is_this_process() {
            return Ok(());
        }
        let start = bytes_of(&self.area, page).start;
        Err(self.fill.errors.error(start..start + 1, &SupplyError::new(ErrorKind::Detached), 0))
    }

    /// Sleeps until the pins of `page` may have ended; an error once that has taken too long.
    pub(crate) fn wait_for_pins<'a>(
        &'a self,
        page: PageIndex,
        until: &mut Option<Deadline<'a>>,
    ) -> Result<(), AccessError> {
        if until.get_or_insert_with(|| self.fill.object.pin_deadline()).is_over() {
            return Err(AccessError::Pinned { range: bytes_of(&self.area, page), by: self.holder_of(page) });
        }
        self.timed(|| self.area.wait_as_writer(page, Some(LOOK_AGAIN_FOR_PINS)));
        Ok(())
    }

    /// Sleeps while somebody else owns `page`, or has it pinned for writing.
    pub(crate) fn wait_to_pin<'a>(
        &'a self,
        page: PageIndex,
        until: &mut Option<Deadline<'a>>,
    ) -> Result<(), AccessError> {
        if self.area.word(page).is_pinned_mut() {
            return self.wait_for_pins(page, until);
        }
        Ok(self.wait_for(page)?)
    }

    /// Sleeps, at most `limit`, until `page` may be nobody's.
    pub(crate) fn wait_to_hold(&self, page: PageIndex, limit: Duration) {
        if self.area.word(page).is_deferred() {
            // Read ahead, and kept until somebody asks for it.
            self.driver.ask(Ask::Demand(page));
        }
        self.timed(|| self.area.wait_as_writer(page, Some(limit)));
    }

    /// Counts a sleep.
    fn timed<R>(&self, sleep: impl FnOnce() -> R) -> R {
        let object = &self.fill.object;
        object.timed(&object.reporter.counters.waits, sleep)
    }

    /// Who holds the pins of `page`, which is pinned.
    fn holder_of(&self, page: PageIndex) -> PinHolder {
        match ThisThread::get().pins(key(&self.area), page) {
            true => PinHolder::ThisThread,
            false => PinHolder::Others,
        }
    }

    /// The error of a call that has waited for `page` for too long.
    pub(crate) fn waited_too_long(&self, step: WriteStep, range: Range<u64>, page: PageIndex) -> WriteError {
        let word = self.area.word(page);
        let error = self.fill.object.write_error(step, range, &SupplyError::new(ErrorKind::Timeout));
        if word.pins() == 0 {
            return error.because("a page is being written or obtained");
        }
        let holder = self.holder_of(page);
        let error = match (word.is_pinned_mut(), holder) {
            (true, PinHolder::ThisThread) => error.because("a page is pinned for writing by this thread"),
            (true, PinHolder::Others) => error.because("a page is pinned for writing by others"),
            (false, PinHolder::ThisThread) => error.because("a page is pinned by this thread"),
            (false, PinHolder::Others) => error.because("a page is pinned by others"),
        };
        error.held_by(holder)
    }

    /// The same, about `page` itself.
    pub(crate) fn held_too_long(&self, step: WriteStep, page: PageIndex) -> WriteError {
        self.waited_too_long(step, bytes_of(&self.area, page), page)
    }

    pub(crate) fn out_of_range(&self, bytes: ByteRange) -> AccessError {
        AccessError::OutOfRange { range: bytes.start..bytes.end, length: self.area.length() }
    }

    /// The error of `bytes`, which were the object's a moment ago, if they are not any more.
    pub(crate) fn cut_off(&self, bytes: ByteRange) -> Option<AccessError> {
        let length = self.area.length();
        if bytes.end <= length {
            return None;
        }
        // A page behind the end that was asked for meanwhile has failed. It is nobody's, and may come back.
        let pages = self.area.page_size().pages_of(bytes);
        let end = self.area.page_size().pages_for(length);
        self.fill.errors.retry(PageRange { start: pages.start.max(end), end: pages.end.max(end) });
        Some(AccessError::OutOfRange { range: bytes.start..bytes.end, length })
    }

    /// The error of a load or store of byte `at` that has trapped: that of the page, if its frame was dropped with changes
    /// that nobody else has.
    pub(crate) fn trapped_at(&self, at: u64) -> AccessError {
        let page = PageIndex(at >> self.area.page_size().shift());
        self.fill.errors.look(page, at);
        let until = self.fill.object.pin_deadline();
        // The driver may be about to tell why.
        while self.area.word(page).is_changing() && !until.is_over() {
            self.area.wait(page, Some(LOOK_AGAIN));
        }
        if self.area.word(page).has_failed()
            && let Some(error) = self.fill.errors.of(page)
        {
            return error.into();
        }
        let why = std::io::Error::other("the memory that holds the page traps");
        let error = SupplyError::because(ErrorKind::Io, why);
        self.fill.errors.error(bytes_of(&self.area, page), &error, 0).into()
    }

    /// Room for a copy of `bytes`, if pins are copies.
    pub(crate) fn copy_budget_for(&self, bytes: ByteRange) -> Result<Option<CopyBudget>, AccessError> {
        if !self.area.pins_are_copies() {
            return Ok(None);
        }
        let (wanted_bytes, pins) = (bytes.len(), &self.fill.allocator.pins);
        // First of what pins may hold, which leaves room: so the wait for the budget ends.
        if !pins.try_reserve(wanted_bytes) {
            return Err(AccessError::PinsExceedBudget { wanted_bytes, limit_bytes: pins.limit() });
        }
        if !self.fill.reserve(wanted_bytes, Patience::Endless) {
            pins.release(wanted_bytes);
            return Err(AccessError::Detached);
        }
        Ok(Some(CopyBudget::reserved(Arc::clone(&self.area), wanted_bytes)))
    }

    /// What becomes of pins that do not give their bytes.
    pub(crate) fn not_pinned(&self, bytes: ByteRange, why: NotPinned) -> AccessError {
        match why {
            NotPinned::Trapped(at) => self.trapped_at(at),
            NotPinned::CutOff => self.out_of_range(bytes),
            // Somebody was let in who can store, since it was asked whether there was.
            NotPinned::NoRoom => AccessError::InUse,
            NotPinned::Missing => AccessError::TooManyPins,
        }
    }

    /// Obtains all of `pages` and waits; the first that fails is the error.
    pub(crate) fn populate(&self, pages: PageRange) -> Result<(), PageError> {
        self.populate_while(pages, &|| true)
    }

    /// As `populate`, but gives up waiting for others, with `Ok`, once `goes_on` says no.
    pub(crate) fn populate_while(
        &self,
        pages: PageRange,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), PageError> {
        fill_missing(&self.fill, &[pages], &mut |_| {});
        for page in pages.iter() {
            loop {
                match decide(self.area.word(page), Intent::Presence) {
                    Decision::Trap => match self.fill.errors.of(page) {
                        Some(error) => return Err(error),
                        None => break,
                    },
                    Decision::Demand => self.driver.ask(Ask::Demand(page)),
                    Decision::Wait(WaitFor::Filler) => {}
                    // To claim: it was there and had to make room, or its filler gave up; the latter is rare, and
                    // populate is a hint about residence, not a pin.
                    _ => break,
                }
                self.wait_for(page)?;
                if !goes_on() {
                    return Ok(());
                }
            }
        }
        self.area.show_clean(pages);
        Ok(())
    }
}
