//! Changes of one object that are lost: the pager accepted them and did not make them durable, or their memory was dropped
//! from outside. Each sync of them says so, until `discard` takes note.
//!
//! Pages whose memory was dropped while they had changes are Failed until then: what the pager has is not what was
//! stored, and must not be read as if it were.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memobj_linux::zeroed_table::ZeroedTable;

use crate::error::{ErrorKind, SupplyError, WriteError, WriteStep};
use crate::locks::{Rank, RankedMutex};

/// Ranges of lost bytes that one object keeps apart; beyond, neighbours are told as one.
const MOST_LOST: usize = 1024;

/// A list of ranges. Writes and the finder of dropped memory add to it; who syncs, reads or retries asks.
#[derive(Debug)]
pub(crate) struct Lost {
    object: Arc<str>,
    ranges: RankedMutex<Vec<WriteError>>,
    /// What a process that follows has to know of it: pages of 4 KiB.
    marks: Option<ZeroedTable<AtomicU64>>,
}

const PAGE: u64 = 4096;
const BITS: u64 = 64;

impl Lost {
    pub(super) fn new(object: &Arc<str>, marks: Option<ZeroedTable<AtomicU64>>) -> Self {
        Self { object: Arc::clone(object), ranges: RankedMutex::new(Rank::Lost, Vec::new()), marks }
    }

    /// Marks pages that `range` overlaps, or takes their marks back. Under the lock of the ranges.
    fn mark(&self, range: &Range<u64>, is_lost: bool) {
        let Some(marks) = &self.marks else { return };
        let end = range.end.div_ceil(PAGE).min(marks.len() as u64 * BITS);
        for page in range.start / PAGE..end {
            let (word, bit) = (&marks[(page / BITS) as usize], 1 << (page % BITS));
            match is_lost {
                true => word.fetch_or(bit, Ordering::AcqRel),
                // Words that were never touched take no memory.
                false if word.load(Ordering::Acquire) & bit == 0 => continue,
                false => word.fetch_and(!bit, Ordering::AcqRel),
            };
        }
    }

    pub(super) fn take(&mut self) -> Vec<WriteError> {
        std::mem::take(self.ranges.get_mut())
    }

    /// What reads of a page are answered whose changes were dropped with its memory.
    pub(crate) fn answer() -> SupplyError {
        let why = "somebody has dropped the memory of the page, and with it its changes";
        SupplyError::because(ErrorKind::Integrity, std::io::Error::other(why))
    }

    /// The same, of a page whose changes were lost before this process had it.
    pub(crate) fn left_behind() -> SupplyError {
        let why = "changes of the page were lost before this process took it over from another";
        SupplyError::because(ErrorKind::Integrity, std::io::Error::other(why))
    }

    /// Whether the page that starts at byte `start`, and is Failed, is so because its changes are lost.
    pub(crate) fn has_page_at(&self, start: u64) -> bool {
        let is_it = |lost: &WriteError| lost.step == WriteStep::WriteBack && lost.range.contains(&start);
        self.ranges.lock().iter().any(is_it)
    }

    /// Bytes that may be lost and overlap `range`.
    pub(crate) fn overlapping(&self, range: &Range<u64>) -> Option<WriteError> {
        let overlaps = |error: &&WriteError| error.range.start < range.end && range.start < error.range.end;
        self.ranges.lock().iter().find(overlaps).cloned()
    }

    /// All ranges, in no order.
    pub(crate) fn all(&self) -> Vec<Range<u64>> {
        self.ranges.lock().iter().map(|error| error.range.clone()).collect()
    }

    /// Remembers that the bytes of `range` are lost: by `step`, which failed with `error`. Says how it will be told.
    pub(crate) fn add(&self, step: WriteStep, range: Range<u64>, error: &SupplyError) -> WriteError {
        let mut error = WriteError::new(&self.object, step, range, error);
        error.lost = true;
        let told = error.clone();
        let Range { start, end } = error.range;
        let is_told_by = |last: &Range<u64>| last.end == start || last.start <= start && end <= last.end;
        let mut ranges = self.ranges.lock();
        self.mark(&error.range, true);
        match ranges.last_mut() {
            Some(last) if last.step == step && is_told_by(&last.range) => {
                last.range.end = end.max(last.range.end);
            }
            _ => ranges.push(error),
        }
        if ranges.len() > MOST_LOST {
            ranges.sort_by_key(|error| error.range.start);
            let last = ranges.pop();
            if let (Some(last), Some(before)) = (last, ranges.last_mut()) {
                before.range.end = before.range.end.max(last.range.end);
            }
        }
        told
    }

    /// Takes note of what `range` has lost, and leaves what neighbours have.
    pub(crate) fn forget(&self, range: &Range<u64>) {
        let mut ranges = self.ranges.lock();
        for error in std::mem::take(&mut *ranges) {
            let lost = error.range.clone();
            self.mark(&lost, false);
            let parts = [lost.start..lost.end.min(range.start), lost.start.max(range.end)..lost.end];
            for range in parts.into_iter().filter(|part| part.start < part.end) {
                ranges.push(WriteError { range, ..error.clone() });
            }
        }
        // Those that overlap the same page are still told.
        ranges.iter().for_each(|left| self.mark(&left.range, true));
    }
}
