//! The two indices and the steps that keep them in agreement.

use super::{MapError, Segment, Unplaced};
use crate::address::{PageSize, VirtAddr};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// What an address space may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The lowest address; rounded up to a page.
    pub low: VirtAddr,
    /// One past the highest address; rounded down to a page.
    pub high: VirtAddr,
    /// The most segments.
    pub segments: usize,
}

/// An ordered set of segments that do not overlap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressSpace {
    pub(super) limits: Limits,
    /// Segments by their first address.
    pub(super) segments: BTreeMap<u64, Unplaced>,
    /// Maximal free ranges as (length, start).
    pub(super) gaps: BTreeSet<(u64, u64)>,
}

impl AddressSpace {
    /// An empty address space. Limits that enclose no whole page leave room for nothing.
    pub fn new(limits: Limits) -> Self {
        let page = PageSize::SMALL.bytes();
        let high = limits.high.0 - limits.high.0 % page;
        let low = limits.low.0.checked_next_multiple_of(page).unwrap_or(high).min(high);
        let limits = Limits { low: VirtAddr(low), high: VirtAddr(high), ..limits };
        let mut space = Self { limits, segments: BTreeMap::new(), gaps: BTreeSet::new() };
        space.add_gap(low, high);
        space
    }

    /// The limits, rounded to pages.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How many segments there are.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Checks a range of addresses and returns its end.
    pub(super) fn check(&self, start: VirtAddr, length: u64) -> Result<u64, MapError> {
        check_length(length)?;
        check_aligned(start.0)?;
        match start.0.checked_add(length) {
            Some(end) if start >= self.limits.low && end <= self.limits.high.0 => Ok(end),
            _ => Err(MapError::OutOfRange { start, length }),
        }
    }

    /// The last segment that starts below `address`.
    pub(super) fn before(&self, address: u64) -> Option<Segment> {
        self.segments.range(..address).next_back().map(placed)
    }

    /// The first segment that starts at `address` or above.
    pub(super) fn from(&self, address: u64) -> Option<Segment> {
        self.segments.range(address..).next().map(placed)
    }

    /// The free range around `[start, end)`, which holds no segment.
    fn gap_around(&self, start: u64, end: u64) -> (u64, u64) {
        let low = self.before(start).map_or(self.limits.low, |segment| segment.end());
        let high = self.from(end).map_or(self.limits.high, |segment| segment.start);
        (low.0, high.0)
    }

    fn add_gap(&mut self, start: u64, end: u64) {
        if start < end {
            self.gaps.insert((end - start, start));
        }
    }

    fn remove_gap(&mut self, start: u64, end: u64) {
        if start < end {
            let was_there = self.gaps.remove(&(end - start, start));
            debug_assert!(was_there, "the gap [{start:#x}, {end:#x}) was not indexed");
        }
    }

    /// Puts `segment` where nothing is, without joining it to its neighbours.
    fn put(&mut self, segment: Segment) {
        let (start, end) = (segment.start.0, segment.end().0);
        let (low, high) = self.gap_around(start, end);
        self.remove_gap(low, high);
        self.add_gap(low, start);
        self.add_gap(end, high);
        self.segments.insert(start, segment.unplaced());
    }

    /// Takes `segment`, which is there, away as a whole.
    fn take(&mut self, segment: Segment) {
        let (start, end) = (segment.start.0, segment.end().0);
        self.segments.remove(&start);
        let (low, high) = self.gap_around(start, end);
        self.remove_gap(low, start);
        self.remove_gap(end, high);
        self.add_gap(low, high);
    }

    /// Puts `segment` where nothing is and joins it to the neighbours that it continues.
    pub(super) fn join(&mut self, mut segment: Segment) {
        if let Some(left) = self.before(segment.start.0).filter(|left| left.joins(&segment)) {
            self.take(left);
            segment = Segment { length: left.length + segment.length, ..left };
        }
        if let Some(right) = self.from(segment.end().0).filter(|right| segment.joins(right)) {
            self.take(right);
            segment.length += right.length;
        }
        self.put(segment);
    }

    /// Makes `[start, end)` free, splitting segments at both ends, and returns the pieces that were there.
    pub(super) fn cut(&mut self, start: u64, end: u64) -> Vec<Segment> {
        let touched: Vec<Segment> = self.overlapping(start, end).collect();
        for &segment in &touched {
            self.take(segment);
            let outside = [segment.part(0, start), segment.part(end, u64::MAX)];
            for part in outside.into_iter().flatten() {
                self.put(part);
            }
        }
        touched.iter().filter_map(|segment| segment.part(start, end)).collect()
    }

    /// Accepts what a verb did to `[start, end)`, or puts `removed` back if that makes too many segments.
    ///
    /// Putting the pieces back joins them to what is left of them, so the space is as it was.
    pub(super) fn settle(
        &mut self,
        start: u64,
        end: u64,
        removed: Vec<Segment>,
    ) -> Result<Vec<Segment>, MapError> {
        if self.segments.len() <= self.limits.segments {
            return Ok(removed);
        }
        self.cut(start, end);
        for piece in removed {
            self.join(piece);
        }
        Err(MapError::TooManySegments { limit: self.limits.segments })
    }
}

/// The segment that an entry of the first index stands for.
pub(super) fn placed((&start, unplaced): (&u64, &Unplaced)) -> Segment {
    unplaced.at(VirtAddr(start))
}

pub(super) fn check_aligned(value: u64) -> Result<(), MapError> {
    if value.is_multiple_of(PageSize::SMALL.bytes()) { Ok(()) } else { Err(MapError::Misaligned { value }) }
}

pub(super) fn check_length(length: u64) -> Result<(), MapError> {
    if length == 0 { Err(MapError::Empty) } else { check_aligned(length) }
}
