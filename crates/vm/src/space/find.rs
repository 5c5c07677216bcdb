//! Looking up segments.

use super::{AddressSpace, Segment};
use memobj_core::address::VirtAddr;

impl AddressSpace {
    /// The segment that holds `address`.
    pub fn lookup(&self, address: VirtAddr) -> Option<Segment> {
        self.tree.floor(address.0).copied().filter(|segment| segment.contains(address))
    }

    /// The first segment that ends above `address`: the one that holds it or the next.
    pub fn next(&self, address: VirtAddr) -> Option<Segment> {
        self.tree.ends_above(address.0).copied()
    }

    /// All segments, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Segment> {
        self.tree.iter_from(0)
    }

    /// The segments that lie in the `length` bytes at `start`, whole or in part; they are not cut to the range.
    pub fn iter_range(&self, start: VirtAddr, length: u64) -> impl Iterator<Item = Segment> {
        let end = start.0.saturating_add(length);
        let from = self.next(start).map_or(u64::MAX, |segment| segment.start.0);
        self.tree.iter_from(from).take_while(move |segment| segment.start.0 < end)
    }
}
