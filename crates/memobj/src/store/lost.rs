//! Changes that are lost, and what is kept of them until `discard` takes note.

use std::ops::Range;

use memobj_core::address::PageIndex;
use memobj_sys::area::GonePage;

use super::{FrameStore, WriteState};
use crate::error::{ErrorKind, SupplyError, WriteError, WriteStep};
use crate::event::Event;

/// Ranges of lost bytes that one object keeps apart; beyond, neighbours are told as one.
const MOST_LOST: usize = 1024;

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
        self.cache.tell.event(Event::WriteFailed(lost));
        self.cache.room.unwritten.made_progress();
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

    /// Remembers that the bytes of `range` are lost: by `step`, which failed with `error`. Says how it will be told.
    pub(crate) fn add_lost(
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

    pub(crate) fn write_error(&self, step: WriteStep, range: Range<u64>, error: &SupplyError) -> WriteError {
        WriteError::new(&self.object.name, step, range, error)
    }
}

/// Whether both are about the same bytes already.
fn trouble_is_full(last: &WriteError, next: &WriteError) -> bool {
    last.range.start <= next.range.start && next.range.end <= last.range.end
}
