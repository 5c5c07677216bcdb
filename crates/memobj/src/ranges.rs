//! Ranges of bytes in all the forms that the language has.

use std::ops::{Bound, Range, RangeBounds};

/// `range` from its first byte to the byte behind its last, of something that is `length` bytes long. `length` is asked for
/// only where `range` has no end. What no object can have is left to the caller to refuse.
#[inline]
pub(crate) fn bytes_in(range: impl RangeBounds<u64>, length: impl FnOnce() -> u64) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        // No object is so long that the byte behind it has no number.
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => length().max(start),
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: impl RangeBounds<u64>) -> Range<u64> {
        bytes_in(range, || 100)
    }

    #[test]
    fn all_forms_of_ranges_become_half_open_ones() {
        assert_eq!(of(3..7), 3..7);
        assert_eq!(of(3..=7), 3..8);
        assert_eq!(of(3..), 3..100);
        assert_eq!(of(..7), 0..7);
        assert_eq!(of(..=7), 0..8);
        assert_eq!(of(..), 0..100);
        assert_eq!(of((Bound::Excluded(3), Bound::Excluded(7))), 4..7);
        #[expect(clippy::reversed_empty_ranges, reason = "left as it is, to be refused")]
        let reversed = 7..3;
        assert_eq!(of(reversed.clone()), reversed);
        assert_eq!(of(..=u64::MAX), 0..u64::MAX);
        assert_eq!(of(200..), 200..200, "an empty range past the end, for which the caller has an error");
    }
}
