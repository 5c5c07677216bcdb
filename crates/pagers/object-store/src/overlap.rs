//! Pieces of an answer that is longer than what was wanted.

use std::ops::Range;

use crate::failure::Failure;

/// Gives `take` what of `bytes`, which begin at `at`, is in `range`.
pub(crate) fn give_overlap(
    at: u64,
    bytes: &[u8],
    range: &Range<u64>,
    take: &mut impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let from = range.start.max(at);
    let skipped = usize::try_from(from - at).unwrap_or(usize::MAX);
    let left = usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
    match bytes.get(skipped..left) {
        Some(bytes) if !bytes.is_empty() => take(from, bytes),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_wanted_is_taken() {
        let taken = |at, bytes: &[u8], range: Range<u64>| {
            let mut taken = None;
            let mut take = |at, bytes: &[u8]| {
                taken = Some((at, bytes.to_vec()));
                Ok(())
            };
            give_overlap(at, bytes, &range, &mut take).unwrap();
            taken
        };
        assert_eq!(taken(10, &[1, 2, 3], 0..20), Some((10, vec![1, 2, 3])));
        assert_eq!(taken(10, &[1, 2, 3], 11..12), Some((11, vec![2])));
        assert_eq!(taken(10, &[1, 2, 3], 13..20), None);
        assert_eq!(taken(10, &[1, 2, 3], 0..10), None);
    }
}
