//! A set of bytes as ranges that do not touch.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes, as ranges in order: start and end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds `range`; ranges that touch become one.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // The last that begins at or before the end; and so on, as long as they reach the start.
        while let Some((&other_start, &other_end)) = self.0.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            start = start.min(other_start);
            end = end.max(other_end);
            self.0.remove(&other_start);
        }
        self.0.insert(start, end);
    }

    /// Removes everything from `end` on.
    pub(crate) fn truncate(&mut self, end: u64) {
        let _behind = self.0.split_off(&end);
        if let Some((_, last_end)) = self.0.iter_mut().next_back() {
            *last_end = end.min(*last_end);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// The first stretch of `range`, which is not empty: all in the set, or all not in it.
    pub(crate) fn first_stretch(&self, range: &Range<u64>) -> (Range<u64>, bool) {
        let holding = self.0.range(..=range.start).next_back().filter(|(_, end)| **end > range.start);
        if let Some((_, &end)) = holding {
            return (range.start..end.min(range.end), true);
        }
        let next = self.0.range(range.start..range.end).next().map_or(range.end, |(&start, _)| start);
        (range.start..next, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[Range<u64>]) -> RangeSet {
        let mut set = RangeSet::default();
        ranges.iter().for_each(|range| set.add(range.clone()));
        set
    }

    /// Against bytes, one by one.
    #[test]
    fn it_is_the_set_of_its_bytes() {
        let mut random = memobj_sim::Random::new(5);
        for _ in 0..300 {
            let (mut set, mut bytes) = (RangeSet::default(), [false; 64]);
            for _ in 0..8 {
                let start = random.below(64);
                let end = start + random.below(65 - start);
                set.add(start..end);
                (start..end).for_each(|at| bytes[at as usize] = true);
                if random.below(4) == 0 {
                    let end = random.below(65);
                    set.truncate(end);
                    (end..64).for_each(|at| bytes[at as usize] = false);
                }
            }
            let mut at = 0;
            while at < 64 {
                let (stretch, is_inside) = set.first_stretch(&(at..64));
                assert!(stretch.start == at && stretch.end > at);
                assert!(stretch.clone().all(|at| bytes[at as usize] == is_inside), "{set:?} {stretch:?}");
                at = stretch.end;
            }
            let ranges: Vec<_> = set.iter().collect();
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
        }
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert!(set(&[0..4, 8..12, 4..8]).iter().eq(std::iter::once(0..12)));
        assert!(set(std::slice::from_ref(&(3..3))).is_empty());
    }
}
