//! Finding room.

use super::Tree;
use super::node::{Child, Node};

/// What is looked for: `length` bytes inside `[low, high)`.
#[derive(Clone, Copy)]
struct Wanted {
    low: u64,
    high: u64,
    length: u64,
}

impl Wanted {
    /// The highest place in the free range `[from, to)`.
    fn in_gap(self, from: u64, to: u64) -> Option<u64> {
        let (from, to) = (from.max(self.low), to.min(self.high));
        to.checked_sub(self.length).filter(|&start| start >= from)
    }
}

impl Tree {
    /// The highest address from which on `length` bytes inside `[low, high)` are free.
    pub(in super::super) fn highest_gap(&self, low: u64, high: u64, length: u64) -> Option<u64> {
        let wanted = Wanted { low, high, length };
        let mut above = high;
        search(&self.root, wanted, &mut above).or_else(|| wanted.in_gap(low, above))
    }
}

/// Looks between the segments of `node` and between the last one and `above`, from the top; `above` becomes the
/// start of the first.
fn search(node: &Node, wanted: Wanted, above: &mut u64) -> Option<u64> {
    match node {
        Node::Leaf(segments) => segments.iter().rev().find_map(|segment| {
            let place = wanted.in_gap(segment.end().0, *above);
            *above = segment.start.0;
            place
        }),
        Node::Inner(children) => children.iter().rev().find_map(|child| in_child(child, wanted, above)),
    }
}

fn in_child(child: &Child, wanted: Wanted, above: &mut u64) -> Option<u64> {
    let place = wanted.in_gap(child.end, *above);
    let hopeless = child.gap < wanted.length || child.first >= wanted.high || child.end <= wanted.low;
    if place.is_some() || hopeless {
        *above = child.first;
        return place;
    }
    *above = child.end;
    search(&child.node, wanted, above)
}
