//! What is asked for before it is allocated.

use std::ops::Range;

use crate::locks::{Rank, RankedMutex};

/// The most that is asked for ahead unless the user says so.
const MOST_BYTES: u64 = 4 << 20;
/// Ahead is at most one part in so many of the budget: several streams have room beside what they pin.
const BUDGET_PARTS: u64 = 8;

/// How far a stream has been asked for ahead of its position.
#[derive(Debug)]
pub(super) struct Ahead {
    window_bytes: u64,
    /// Bytes; everything from the position up to here was asked for.
    asked: RankedMutex<Range<u64>>,
}

impl Ahead {
    pub(super) fn new(wanted_bytes: Option<u64>, budget_bytes: u64) -> Self {
        let window_bytes = wanted_bytes.unwrap_or(MOST_BYTES).min(budget_bytes / BUDGET_PARTS);
        Self { window_bytes, asked: RankedMutex::new(Rank::Stream, 0..0) }
    }

    /// What to ask for now that the position is at `position` of an object of `length` bytes. Half a window or more
    /// at once, or the rest: small allocations do not ask one by one.
    pub(super) fn next(&self, position: u64, length: u64) -> Range<u64> {
        let mut asked = self.asked.lock();
        let goes_on = asked.contains(&position) || asked.end == position;
        let from = if goes_on { asked.end } else { position };
        let to = position.saturating_add(self.window_bytes).min(length);
        // Positions in front of it were sought, and are new.
        let start = position;
        if to <= from || (to - from < self.window_bytes / 2 && to < length) {
            return from..from;
        }
        *asked = start..to;
        from..to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_asked_for_once_by_half_windows_and_to_the_end() {
        let ahead = Ahead::new(Some(100), 8000);
        let asked: Vec<_> =
            (1..40).map(|step| ahead.next(step * 10, 395)).filter(|range| !range.is_empty()).collect();
        assert_eq!(asked.first(), Some(&(10..110)));
        assert!(asked.windows(2).all(|pair| pair[0].end == pair[1].start), "{asked:?}");
        assert_eq!(asked.last().map(|range| range.end), Some(395));
        assert!(asked.len() < 12, "{asked:?}");
    }

    #[test]
    fn another_position_begins_anew_and_the_budget_is_the_bound() {
        let ahead = Ahead::new(None, 800);
        assert_eq!(ahead.next(0, 10_000), 0..100);
        assert_eq!(ahead.next(5000, 10_000), 5000..5100);
        assert_eq!(ahead.next(40, 10_000), 40..140);
        assert!(Ahead::new(Some(0), 800).next(0, 10_000).is_empty());
    }
}
