//! Looking up segments.

use super::index::placed;
use super::{AddressSpace, Segment};
use crate::address::VirtAddr;

impl AddressSpace {
    /// The segment that holds `address`.
    pub fn lookup(&self, address: VirtAddr) -> Option<Segment> {
        let last = self.segments.range(..=address.0).next_back().map(placed);
        last.filter(|segment| segment.contains(address))
    }

    /// All segments, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Segment> {
        self.segments.iter().map(placed)
    }

    /// The segments that lie in the `length` bytes at `start`, whole or in part; they are not cut to the
    /// range.
    pub fn iter_range(&self, start: VirtAddr, length: u64) -> impl DoubleEndedIterator<Item = Segment> {
        self.overlapping(start.0, start.0.saturating_add(length))
    }

    pub(super) fn overlapping(&self, start: u64, end: u64) -> impl DoubleEndedIterator<Item = Segment> {
        let first = self.before(start).filter(|segment| segment.end().0 > start && start < end);
        let rest = self.segments.range(start..end.max(start)).map(placed);
        first.into_iter().chain(rest)
    }
}
