//! Sets of bytes.

use std::collections::BTreeMap;
use std::ops::Range;

/// More ranges than this are merged with what is between them.
const MOST: usize = 4096;

/// A set of ranges in bounded memory: where too many are added, what is between some of them belongs to it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The starts of the ranges that `range` overlaps or, with `slack` 1, touches.
    fn near(&self, range: &Range<u64>, slack: u64) -> Vec<u64> {
        let end = range.end.saturating_add(slack);
        let from = range.start.saturating_sub(slack);
        let before = self.0.range(..end).rev();
        before.take_while(|(_, its_end)| **its_end > from).map(|(start, _)| *start).collect()
    }

    pub(crate) fn overlaps(&self, range: &Range<u64>) -> bool {
        !range.is_empty() && !self.near(range, 0).is_empty()
    }

    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range.clone();
        for near in self.near(&range, 1) {
            let its_end = self.0.remove(&near).unwrap_or(near);
            (start, end) = (start.min(near), end.max(its_end));
        }
        self.0.insert(start, end);
        if self.0.len() > MOST {
            self.merge_pairs();
        }
    }

    /// Takes exactly `range` out.
    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        for start in self.near(range, 0) {
            let end = self.0.remove(&start).unwrap_or(start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if end > range.end {
                self.0.insert(range.end, end);
            }
        }
    }

    /// Adds all of `other`, and empties it.
    pub(crate) fn take_from(&mut self, other: &mut Ranges) {
        for (start, end) in std::mem::take(&mut other.0) {
            self.add(start..end);
        }
    }

    fn merge_pairs(&mut self) {
        let all: Vec<_> = std::mem::take(&mut self.0).into_iter().collect();
        let pairs = all.chunks(2).filter_map(|pair| Some((pair.first()?.0, pair.last()?.1)));
        self.0 = pairs.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_set_of_its_bytes(steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60)) {
            let (mut ranges, mut bytes) = (Ranges::default(), [false; 100]);
            for (adds, start, count) in steps {
                let range = start..start + count;
                if adds { ranges.add(range.clone()) } else { ranges.remove(&range) }
                range.for_each(|byte| bytes[byte as usize] = adds);
                for (byte, is_in) in bytes.iter().enumerate() {
                    prop_assert_eq!(ranges.overlaps(&(byte as u64..byte as u64 + 1)), *is_in);
                }
            }
        }
    }

    #[test]
    fn stays_small_and_loses_nothing() {
        let mut ranges = Ranges::default();
        (0..100_000).for_each(|index| ranges.add(3 * index..3 * index + 1));
        assert!(ranges.0.len() <= MOST);
        assert!((0..100_000).all(|index| ranges.overlaps(&(3 * index..3 * index + 1))));
        let mut all = Ranges::default();
        all.take_from(&mut ranges);
        assert!(ranges.is_empty() && all.overlaps(&(299_997..299_998)));
    }
}
