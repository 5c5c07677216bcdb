//! Discarding, and changing the length.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::Word;
use memobj_linux::area::HeldPage;
use memobj_linux::region::SMALL;

use super::{WriteStep, Writes};
use crate::clock::Deadline;
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::locks;
use crate::pagers::BlockingPager;
use crate::pages::LengthError;

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a change of length keeps its locks to wait for pages that others hold, before it lets them go and waits
/// without.
const SHORTLY: Duration = Duration::from_millis(20);
const PAGE: u64 = SMALL as u64;
pub(crate) const CUT_OFF_UNTOLD: &str =
    "the object ends there now; its pager has not answered whether it does";
pub(crate) const NOT_CUT_OFF: &str =
    "the pager has not answered whether it was cut off where the object ends";

/// What keeps a length from being changed. Nothing has changed, and no lock is held.
pub(crate) enum Obstacle {
    /// Not now: somebody pins this page, or writes it.
    Held(PageIndex),
    Refused(WriteError),
}

impl From<WriteError> for Obstacle {
    fn from(error: WriteError) -> Self {
        Self::Refused(error)
    }
}

impl Writes {
    /// Drops the changes of `pages` that the pager does not have; returns how many pages had some.
    pub(crate) fn discard(self: &Arc<Self>, pages: PageRange) -> Result<u64, WriteError> {
        let shift = self.area.page_size().shift();
        let range = pages.start << shift..pages.end << shift;
        if let Some(log) = &self.object.log {
            if pages.start == 0 && pages.end >= self.area.pages() {
                return self.abandon(log);
            }
            let why = "changes that are committed together are dropped together: discard the whole object";
            let error =
                self.object.write_error(WriteStep::Discard, range, &SupplyError::new(ErrorKind::Denied));
            return Err(error.because(why));
        }
        let held = |page| self.waits.held_too_long(WriteStep::Discard, page);
        let lost = self.errors.lift(&range).map_err(held)?;
        self.errors.lost.forget(&range);
        let dropped = lost + self.discard_pages(pages)?;
        let mut write_failures = self.write_failures.lock();
        let dropped_it =
            |error: &WriteError| range.start <= error.range.start && error.range.end <= range.end;
        if write_failures.unreported.as_ref().is_some_and(dropped_it) {
            write_failures.unreported = None;
        }
        drop(write_failures);
        Ok(dropped)
    }

    /// Drops the frames of those pages among `pages` that have changes; returns how many had.
    fn discard_pages(&self, pages: PageRange) -> Result<u64, WriteError> {
        let mut dropped = 0;
        for page in self.unclean_parts(pages).flat_map(PageRange::iter) {
            dropped += u64::from(self.discard_page(page)?);
        }
        Ok(dropped)
    }

    /// Drops a page's frame if it has changes; waits for a write of it that is in flight, and for pins.
    fn discard_page(&self, page: PageIndex) -> Result<bool, WriteError> {
        let until = self.object.pin_deadline();
        loop {
            if !self.area.word(page).is_unwritten() {
                return Ok(false);
            }
            if self.area.discard(page, self.fill.allocator.ages.now()) {
                return Ok(true);
            }
            if until.is_over() {
                return Err(self.waits.held_too_long(WriteStep::Discard, page));
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
        }
    }

    /// Changes the length of the object. Pages that are pinned cannot be cut off: they are not waited for. On error
    /// nothing has changed, but for a pager that is to cut off and has not answered in time: then the object is cut off.
    pub(crate) fn set_length(self: &Arc<Self>, length: u64) -> Result<(), Obstacle> {
        let refused = |error: SupplyError| self.object.write_error(WriteStep::SetLength, 0..length, &error);
        if length > self.area.capacity() {
            let why = format!("the mapped object has room for {} bytes", self.area.capacity());
            let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, why);
            return Err(refused(SupplyError::because(ErrorKind::NoSpace, why)).into());
        }
        let _alone = self.resizing.write();
        let _turn = self.turn.lock();
        let old = self.area.length();
        match length < old {
            true => self.shrink(length, old),
            false => self.extend(length, old).inspect(|()| self.object.set_length(length)),
        }
    }

    /// Waits until `page`, which was in the way of the new length `length`, may be free. The caller holds no lock.
    pub(crate) fn wait_to_set_length(
        &self,
        page: PageIndex,
        length: u64,
        until: Deadline<'_>,
    ) -> Result<(), WriteError> {
        loop {
            if until.is_over() {
                return Err(self.waits.waited_too_long(WriteStep::SetLength, 0..length, page));
            }
            self.waits.wait_to_hold(page, LOOK_AGAIN);
            if !self.area.word(page).is_busy() {
                return Ok(());
            }
        }
    }

    fn shrink(self: &Arc<Self>, length: u64, old: u64) -> Result<(), Obstacle> {
        // Before readers are told that the object is shorter.
        if let Some(page) = self.busy_behind(length, old) {
            return Err(Obstacle::Held(page));
        }
        // Filled now, the last page would have zeros where bytes are if the pager refuses.
        let mut tail = match length.is_multiple_of(PAGE) {
            true => None,
            false => Some(self.hold(PageIndex(length / PAGE))?),
        };
        // From here on nothing new comes in behind the end.
        self.area.set_length(length);
        let settled = self.settle_behind(length, old);
        let cut = settled.and_then(|()| self.cut_pager_off(length));
        let late = match cut {
            Ok(late) => late,
            Err(error) => {
                self.area.set_length(old);
                self.retry_behind(length, old);
                return Err(error);
            }
        };
        self.object.set_length(length);
        if let Some(tail) = &mut tail {
            // What cannot be cleared now is behind the end. It is cleared before the object grows, or that fails.
            let _ = tail.zero((length % PAGE) as usize..SMALL);
        }
        self.drop_behind(length, old);
        // One that is pinned stays Failed.
        let _ = self.errors.lift(&(length.next_multiple_of(PAGE)..u64::MAX));
        self.errors.lost.forget(&(length..u64::MAX));
        late.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Has the pager cut itself off. What comes back is the error of one that has been called and has not answered: nobody may
    /// see what is behind the end any more, since the pager may cut it off at any time.
    fn cut_pager_off(self: &Arc<Self>, length: u64) -> Result<Option<WriteError>, Obstacle> {
        let refused = |error| self.object.write_error(WriteStep::SetLength, 0..length, &error);
        match self.set_pager_length(length) {
            Ok(()) => {
                self.object.pager_length.is_known();
                Ok(None)
            }
            Err(LengthError::Unchanged(error)) => Err(refused(error).into()),
            Err(LengthError::Unknown(error)) => {
                self.object.pager_length.may_be_longer();
                Ok(Some(refused(error).because(CUT_OFF_UNTOLD)))
            }
        }
    }

    /// Tells a pager that may be longer than the object where it ends, so that zeros are behind when it grows, and a sync makes
    /// this end durable.
    pub(super) fn settle_pager_length(self: &Arc<Self>, step: WriteStep) -> Result<(), WriteError> {
        if !self.object.pager_length.has_to_be_told() {
            return Ok(());
        }
        let length = self.area.length();
        let told = self.set_pager_length(length);
        let (LengthError::Unchanged(error) | LengthError::Unknown(error)) = match told {
            Ok(()) => {
                self.object.pager_length.is_known();
                return Ok(());
            }
            Err(error) => error,
        };
        Err(self.object.write_error(step, 0..length, &error).because(NOT_CUT_OFF))
    }

    fn extend(self: &Arc<Self>, length: u64, old: u64) -> Result<(), Obstacle> {
        if !old.is_multiple_of(PAGE) {
            // Stores behind the end of an object land in its last page unseen, and must not become part of it.
            let mut tail = self.hold(PageIndex(old / PAGE))?;
            tail.zero((old % PAGE) as usize..SMALL).map_err(|_| {
                let error = SupplyError::new(ErrorKind::Io);
                let error = self.object.write_error(WriteStep::SetLength, 0..length, &error);
                error.because("the memory that holds the last page traps")
            })?;
        }
        // What somebody kept pinned when it was cut off is there still.
        if let Some(page) = self.busy_behind(old, length) {
            return Err(Obstacle::Held(page));
        }
        self.drop_behind(old, length);
        self.settle_pager_length(WriteStep::SetLength)?;
        self.set_pager_length(length).map_err(
            |(LengthError::Unchanged(error) | LengthError::Unknown(error))| {
                // A pager that is longer meanwhile has zeros there.
                self.object.write_error(WriteStep::SetLength, 0..length, &error)
            },
        )?;
        self.area.extend(length);
        self.retry_behind(old, length);
        Ok(())
    }

    /// Pages that failed behind an end that is no more are asked for again.
    fn retry_behind(&self, end: u64, length: u64) {
        self.errors.retry(pages(end, length));
    }

    fn set_pager_length(self: &Arc<Self>, length: u64) -> Result<(), LengthError> {
        match (self.object.file(), &self.object.log) {
            (Some(file), _) => locks::outside(|| file.set_length(length)).map_err(LengthError::Unchanged),
            // A call that is left behind would change the length later, and the log is about to be committed with it.
            (None, Some(log)) => log.set_length(length).map_err(LengthError::Unchanged),
            (None, None) => self.object.change_pager_length(|change| {
                self.ask_aside(move |pager, to| change.make(pager, length, to))
            }),
        }
    }

    /// Keeps everybody off `page` until the length is changed. One that has failed cannot be held: it could come back
    /// meanwhile with bytes of either length. So it is asked for again afterwards, but for lost changes, which stay lost.
    fn hold(&self, page: PageIndex) -> Result<HeldPage, Obstacle> {
        let hold = || {
            self.errors.retry(PageRange::one(page));
            let held = self.area.hold(page).ok()?;
            let stays = !held.had_failed() || self.errors.lost.has_page_at(page.0 * PAGE);
            stays.then_some(held)
        };
        self.wait_until(Instant::now() + SHORTLY, page, hold)
    }

    /// Waits for `page` until `wanted` finds something, or it is `end`.
    fn wait_until<T>(
        &self,
        end: Instant,
        page: PageIndex,
        wanted: impl Fn() -> Option<T>,
    ) -> Result<T, Obstacle> {
        loop {
            if let Some(found) = wanted() {
                return Ok(found);
            }
            if Instant::now() >= end {
                return Err(Obstacle::Held(page));
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
        }
    }

    /// A page that a shorter object loses, and somebody pins or writes.
    fn busy_behind(&self, length: u64, old: u64) -> Option<PageIndex> {
        self.used_behind(length, old).find(|page| self.area.word(*page).is_busy())
    }

    /// Sees to it that no page that a shorter object loses is being written or pinned.
    fn settle_behind(&self, length: u64, old: u64) -> Result<(), Obstacle> {
        let end = Instant::now() + SHORTLY;
        let free = |page| (!self.area.word(page).is_busy()).then_some(());
        self.used_behind(length, old).try_for_each(|page| self.wait_until(end, page, || free(page)))
    }

    /// Pages that an object of `old` bytes has and one of `length` has not, but for blocks in which all are free.
    fn used_behind(&self, length: u64, old: u64) -> impl Iterator<Item = PageIndex> {
        let gone = pages(length, old);
        let mut from = self.area.block_with(PageIndex(gone.start));
        let next = move || {
            let part = self.area.part_of_block(self.area.next_tabled_block(from)?, gone);
            from = self.area.block_with(PageIndex(part.start)) + 1;
            (!part.is_empty()).then_some(part)
        };
        std::iter::from_fn(next).flat_map(|part| part.iter())
    }

    /// Takes the pages behind `length` away, whatever they hold.
    pub(super) fn drop_behind(&self, length: u64, old: u64) {
        let now = self.fill.allocator.ages.now();
        self.area.evict_all(pages(length, old), now);
        for page in self.used_behind(length, old) {
            let until = self.object.clock.now() + PATIENCE;
            let has_frame = |word: Word| !word.is_absent() && !word.has_failed();
            while has_frame(self.area.word(page)) && self.object.clock.now() < until {
                if self.area.evict_all(PageRange::one(page), now).pages == 0 && !self.area.discard(page, now)
                {
                    self.area.wait_as_writer(page, Some(LOOK_AGAIN));
                }
            }
        }
    }
}

/// Those that an object of `longer` bytes has, and one of `length` has not.
fn pages(length: u64, longer: u64) -> PageRange {
    PageRange { start: length.div_ceil(PAGE), end: longer.div_ceil(PAGE) }
}

/// All pages of an object of `bytes`.
pub(super) fn everything(length: u64) -> ByteRange {
    ByteRange { start: 0, end: length }
}
