//! Changes that are lost: the pager took them and did not make them durable, or their memory was dropped from outside.
//! Each sync of them says so, until `discard` has taken note.
//!
//! Pages whose memory was dropped while they had changes are Failed until then: what the pager has is not what was
//! stored, and must not be read as if it were.

use std::ops::Range;
use std::time::Duration;

use memobj_core::address::{ByteRange, PageIndex};

use crate::error::WriteError;
use crate::pins::PinDeadline;
use crate::store::{FrameStore, WriteState};

const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl FrameStore {
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
