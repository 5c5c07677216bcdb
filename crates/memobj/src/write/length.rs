//! Discarding, and changing the length.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_core::page_word::State;
use memobj_sys::region::SMALL;

use super::{WriteState, WriteStep};
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::pagers::Source;
use crate::store::FrameStore;

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: u64 = SMALL as u64;

impl FrameStore {
    /// Drops the changes of `pages` that the pager does not have; returns how many pages had some.
    pub(crate) fn discard(
        self: &Arc<Self>,
        writes: &WriteState,
        pages: PageRange,
    ) -> Result<u64, WriteError> {
        let range = self.bytes_of(pages);
        self.forget_lost(writes, &range);
        let mut dropped = 0;
        let mut from = self.block_of(pages.start);
        while let Some(block) = self.area.next_unclean_block(from) {
            let part = self.part(block, pages);
            if part.is_empty() {
                break;
            }
            for page in part.iter() {
                dropped += u64::from(self.discard_page(page, WriteStep::Discard)?);
            }
            from = block + 1;
        }
        let mut trouble = writes.trouble();
        let dropped_it =
            |error: &WriteError| range.start <= error.range.start && error.range.end <= range.end;
        if trouble.unreported.as_ref().is_some_and(dropped_it) {
            trouble.unreported = None;
        }
        Ok(dropped)
    }

    /// Drops a page's frame if it has changes; waits for a write of it that is in flight, and for pins.
    fn discard_page(&self, page: PageIndex, step: WriteStep) -> Result<bool, WriteError> {
        let until = Instant::now() + self.object.options.supply_timeout.unwrap_or(PATIENCE);
        loop {
            let word = self.area.word(page);
            let unwritten = matches!(word.state(), State::Dirty | State::Changing) || word.is_writing();
            if !unwritten {
                return Ok(false);
            }
            if self.area.discard(page, self.cache.clock.now()) {
                return Ok(true);
            }
            if Instant::now() >= until {
                let range = self.bytes_of(PageRange::one(page));
                let why = std::io::Error::new(
                    std::io::ErrorKind::WouldBlock,
                    "the page is pinned or being written",
                );
                return Err(self.write_error(step, range, &SupplyError::because(ErrorKind::Timeout, why)));
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
        }
    }

    fn bytes_of(&self, pages: PageRange) -> Range<u64> {
        let shift = self.area.page_size().shift();
        pages.start << shift..pages.end << shift
    }

    /// Changes the length of the object. Pages that are pinned cannot be cut off. On error nothing has changed.
    pub(crate) fn set_length(self: &Arc<Self>, writes: &WriteState, length: u64) -> Result<(), WriteError> {
        let old = self.area.length();
        let refused = |error: SupplyError| self.write_error(WriteStep::SetLength, 0..length, &error);
        if length > self.area.capacity() {
            let why = format!("the mapped object has room for {} bytes", self.area.capacity());
            let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, why);
            return Err(refused(SupplyError::because(ErrorKind::NoSpace, why)));
        }
        let _turn = writes.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if length < old {
            // From here on nothing new comes in behind the end, and nothing behind it is written.
            self.area.set_length(length);
            if let Err(error) = self.settle_behind(length, old) {
                self.area.set_length(old);
                return Err(error);
            }
        } else {
            self.zero_tail(old, length)?;
        }
        let changed = match self.object.pager.source() {
            Source::File(_) => self.object.pager.set_length(length),
            _ => self.call_aside(move |store| store.object.pager.set_length(length)),
        };
        if let Err(error) = changed {
            self.area.set_length(old);
            return Err(refused(error));
        }
        self.area.set_length(length);
        if length < old {
            self.drop_behind(length, old);
            self.zero_tail(length, length.next_multiple_of(PAGE))
        } else {
            self.area.untrap(old.next_multiple_of(PAGE).min(length), length);
            Ok(())
        }
    }

    /// Waits until no page that a shorter object loses, or loses part of, is being written or pinned.
    fn settle_behind(&self, length: u64, old: u64) -> Result<(), WriteError> {
        let until = Instant::now() + self.object.options.supply_timeout.unwrap_or(PATIENCE);
        let pages = PageRange { start: length / PAGE, end: old.div_ceil(PAGE) };
        for page in pages.iter() {
            while self.area.word(page).is_busy() {
                if Instant::now() >= until {
                    let why = "a page behind the new end is pinned or being written";
                    let why = std::io::Error::new(std::io::ErrorKind::WouldBlock, why);
                    let error = SupplyError::because(ErrorKind::Timeout, why);
                    return Err(self.write_error(WriteStep::SetLength, 0..length, &error));
                }
                self.area.wait_as_writer(page, Some(LOOK_AGAIN));
            }
        }
        Ok(())
    }

    /// Takes the pages behind `length` away, whatever they hold.
    fn drop_behind(&self, length: u64, old: u64) {
        let now = self.cache.clock.now();
        let gone = PageRange { start: length.div_ceil(PAGE), end: old.div_ceil(PAGE) };
        self.area.evict_all(gone, now);
        for page in gone.iter() {
            let until = Instant::now() + PATIENCE;
            while !matches!(self.area.word(page).state(), State::Absent | State::Failed)
                && Instant::now() < until
            {
                if self.area.evict_all(PageRange::one(page), now).pages == 0 && !self.area.discard(page, now)
                {
                    self.area.wait_as_writer(page, Some(LOOK_AGAIN));
                }
            }
        }
    }

    /// Zeroes `[start, end)` as far as it lies in the page of `start`, if that page is resident: stores behind the
    /// end of an object land in its last page unseen, and must not become part of it.
    fn zero_tail(&self, start: u64, end: u64) -> Result<(), WriteError> {
        let end = end.min(start.next_multiple_of(PAGE));
        if start >= end {
            return Ok(());
        }
        let page = PageIndex(start / PAGE);
        let zeros = [0; SMALL];
        let until = Instant::now() + self.object.options.supply_timeout.unwrap_or(PATIENCE);
        while !matches!(self.area.word(page).state(), State::Absent | State::Failed) {
            if self.area.store_bytes(start, &zeros[..(end - start) as usize]).is_ok() {
                return Ok(());
            }
            if Instant::now() >= until {
                let why = std::io::Error::new(std::io::ErrorKind::WouldBlock, "the last page is pinned");
                let error = SupplyError::because(ErrorKind::Timeout, why);
                return Err(self.write_error(WriteStep::SetLength, 0..end, &error));
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
        }
        Ok(())
    }
}

/// All pages of an object of `bytes`.
pub(super) fn everything(length: u64) -> ByteRange {
    ByteRange { start: 0, end: length }
}
