//! Changes that are lost: the pager took them and did not make them durable, or their memory was dropped from outside.
//! Each sync of them says so, until `discard` has taken note.
//!
//! Pages whose memory was dropped while they had changes are Failed until then: what the pager has is not what was
//! stored, and must not be read as if it were.

use std::ops::Range;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex};
use memobj_sys::area::GonePage;

use super::{WriteState, WriteStep};
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::event::Event;
use crate::pins::PinDeadline;
use crate::store::FrameStore;

/// Ranges of lost bytes that one object keeps apart; beyond, neighbours are told as one.
const MOST_LOST: usize = 1024;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl FrameStore {
    /// The memory of a page was dropped while it had changes. It fails, and that is told.
    pub(crate) fn lose(&self, gone: GonePage) {
        let Some(writes) = &self.writes else { return };
        let bytes = gone.bytes();
        let range = bytes.start..bytes.end;
        let error = self.lost_changes();
        // Before the page is Failed: a sync that finds nothing Dirty finds it here.
        let lost = self.add_lost(writes, WriteStep::WriteBack, range.clone(), &error);
        self.keep_error(gone.page(), self.error(range, &error, 0));
        gone.fail();
        self.cache.tell(Event::WriteFailed(lost));
        self.cache.cleaner.made_progress();
    }

    /// What reads of such a page are answered.
    pub(crate) fn lost_changes(&self) -> SupplyError {
        let why = "somebody has dropped the memory of the page, and with it its changes";
        SupplyError::because(ErrorKind::Integrity, std::io::Error::other(why))
    }

    /// Whether `page`, which is Failed, is so because its changes are lost.
    pub(crate) fn has_lost_changes(&self, page: PageIndex) -> bool {
        let Some(writes) = &self.writes else { return false };
        let start = page.0 << self.area.page_size().shift();
        let trouble = writes.trouble();
        trouble.lost.iter().any(|lost| lost.step == WriteStep::WriteBack && lost.range.contains(&start))
    }

    /// Lets `page` be read as the pager has it; whether it was Failed. An error if it is held for too long.
    fn lift_page(&self, page: PageIndex, until: PinDeadline) -> Result<bool, PageIndex> {
        while !self.retry_page(page) {
            if !self.area.word(page).has_failed() {
                return Ok(false);
            }
            if until.is_over(self) {
                return Err(page);
            }
            self.area.wait_as_writer(page, Some(LOOK_AGAIN));
        }
        Ok(true)
    }

    /// Lets pages of `range` whose changes are lost be read as the pager has them. Returns how many there were; or the
    /// first that is pinned, or still being written, for too long.
    pub(super) fn lift_lost(&self, writes: &WriteState, range: &Range<u64>) -> Result<u64, PageIndex> {
        let until = self.pin_deadline();
        let lost: Vec<Range<u64>> = writes.trouble().lost.iter().map(|error| error.range.clone()).collect();
        let mut lifted = 0;
        for lost in lost {
            let bytes = ByteRange { start: lost.start.max(range.start), end: lost.end.min(range.end) };
            if bytes.start >= bytes.end {
                continue;
            }
            for page in self.pages_with_errors(self.area.page_size().pages_of(bytes)) {
                lifted += u64::from(self.lift_page(page, until)?);
            }
        }
        Ok(lifted)
    }

    /// Bytes that may be lost and overlap `range`.
    pub(super) fn lost_in(&self, writes: &WriteState, range: &Range<u64>) -> Option<WriteError> {
        let overlaps = |error: &&WriteError| error.range.start < range.end && range.start < error.range.end;
        writes.trouble().lost.iter().find(overlaps).cloned()
    }

    /// Remembers that the bytes of `range` are lost: by `step`, which failed with `error`. Says how it will be told.
    pub(super) fn add_lost(
        &self,
        writes: &WriteState,
        step: WriteStep,
        range: Range<u64>,
        error: &SupplyError,
    ) -> WriteError {
        let mut error = self.write_error(step, range, error);
        error.lost = true;
        let told = error.clone();
        let mut trouble = writes.trouble();
        match trouble.lost.last_mut() {
            Some(last)
                if last.step == step
                    && (last.range.end == error.range.start || trouble_is_full(last, &error)) =>
            {
                last.range.end = error.range.end.max(last.range.end);
            }
            _ => trouble.lost.push(error),
        }
        if trouble.lost.len() > MOST_LOST {
            trouble.lost.sort_by_key(|error| error.range.start);
            let last = trouble.lost.pop();
            if let (Some(last), Some(before)) = (last, trouble.lost.last_mut()) {
                before.range.end = before.range.end.max(last.range.end);
            }
        }
        told
    }

    /// Takes note of what `range` has lost, and leaves what neighbours have.
    pub(super) fn forget_lost(&self, writes: &WriteState, range: &Range<u64>) {
        let mut trouble = writes.trouble();
        for error in std::mem::take(&mut trouble.lost) {
            let lost = error.range.clone();
            let parts = [lost.start..lost.end.min(range.start), lost.start.max(range.end)..lost.end];
            for range in parts.into_iter().filter(|part| part.start < part.end) {
                trouble.lost.push(WriteError { range, ..error.clone() });
            }
        }
    }
}

/// Whether both are about the same bytes already.
fn trouble_is_full(last: &WriteError, next: &WriteError) -> bool {
    last.range.start <= next.range.start && next.range.end <= last.range.end
}
