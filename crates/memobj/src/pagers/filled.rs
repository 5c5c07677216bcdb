//! Which bytes of a range are filled.

use std::ops::Range;

/// Ranges that ascend and do not touch.
#[derive(Debug, Default)]
pub(super) struct Filled(Vec<Range<u64>>);

impl Filled {
    /// Adds `part`.
    pub(super) fn add(&mut self, part: Range<u64>) {
        if part.is_empty() {
            return;
        }
        let first = self.0.partition_point(|known| known.end < part.start);
        let last = self.0.partition_point(|known| known.start <= part.end);
        let joined = &self.0[first..last];
        let start = joined.first().map_or(part.start, |known| known.start.min(part.start));
        let end = joined.last().map_or(part.end, |known| known.end.max(part.end));
        self.0.splice(first..last, std::iter::once(start..end));
    }

    /// Whether no byte of `range` is missing.
    pub(super) fn is_all_of(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.0.iter().any(|known| known.start <= range.start && range.end <= known.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_come_to_the_whole_and_a_missing_byte_is_missed() {
        let mut random = 7_u64;
        for _ in 0..1000 {
            let mut cuts: Vec<u64> = (0..6)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (random >> 33) % 99 + 1
                })
                .collect();
            cuts.extend([0, 100]);
            cuts.sort_unstable();
            let mut pieces: Vec<Range<u64>> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
            pieces.retain(|piece| !piece.is_empty());
            let middle = random as usize % pieces.len();
            pieces.rotate_left(middle);
            let last = pieces.pop().unwrap();
            let mut filled = Filled::default();
            pieces.iter().for_each(|piece| filled.add(piece.clone()));
            assert!(!filled.is_all_of(&(0..100)), "without {last:?}");
            filled.add(last);
            assert!(filled.is_all_of(&(0..100)) && filled.0.len() == 1);
        }
    }
}
