//! The index of an address space: a balanced tree of segments that knows its gaps.
//!
//! ```text
//!   inner   | first end gap | first end gap | ...     at most 32 in a node, at least 16 but in the root
//!               |
//!   leaf    | segment | segment | ...                 in the order of their addresses, not overlapping
//! ```
//!
//! Each child says where its first segment starts, where its last one ends, and how long the longest gap between
//! two of its segments is. So one tree answers both questions: what is at an address, and where is room. All nodes
//! are allocated at full size and at least half full, but for the root: at most 112 bytes for each segment in the
//! leaves and 8 above and beside.

mod gaps;
mod iter;
mod node;

use super::Segment;
use node::Node;

pub(super) use iter::Iter;

/// Segments that do not overlap, in the order of their addresses.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: Node,
    len: usize,
}

impl Tree {
    /// No segments.
    pub(super) fn new() -> Self {
        Self { root: Node::leaf(), len: 0 }
    }

    /// How many segments there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The last segment that starts at `address` or below.
    pub(super) fn floor(&self, address: u64) -> Option<&Segment> {
        self.root.floor(address)
    }

    /// The first segment that starts at `address` or above.
    pub(super) fn ceiling(&self, address: u64) -> Option<&Segment> {
        self.root.ceiling(address)
    }

    /// The first segment that ends above `address`.
    pub(super) fn ends_above(&self, address: u64) -> Option<&Segment> {
        self.floor(address).filter(|segment| segment.end().0 > address).or_else(|| self.ceiling(address))
    }

    /// The segments that start at `address` or above, lowest first.
    pub(super) fn iter_from(&self, address: u64) -> Iter<'_> {
        Iter::new(&self.root, address)
    }

    /// Adds `segment`, whose addresses are free.
    pub(super) fn insert(&mut self, segment: Segment) {
        if let Some(right) = self.root.insert(segment) {
            self.root.grow(right);
        }
        self.len += 1;
    }

    /// Takes the segment that starts at `start` away.
    pub(super) fn remove(&mut self, start: u64) -> Option<Segment> {
        let removed = self.root.remove(start)?;
        self.root.collapse();
        self.len -= 1;
        Some(removed)
    }

    /// Replaces the segment that starts at `start` by `segment`, which starts at or above it, after the segment
    /// before, and ends before the next.
    pub(super) fn replace(&mut self, start: u64, segment: Segment) {
        self.root.replace(start, segment);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
