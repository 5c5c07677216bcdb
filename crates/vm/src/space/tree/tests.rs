//! The tree against a sorted list.

extern crate std;

use super::super::{Attributes, Backing, Segment};
use super::node::{MOST, Node};
use super::*;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;
use proptest::prelude::*;

fn segment(start: u64, length: u64) -> Segment {
    Segment { start: VirtAddr(start), length, backing: Backing::Anonymous, attributes: Attributes::default() }
}

/// Depth, if all leaves are at the same and every node but the root is at least half full.
fn depth(node: &Node, is_root: bool) -> usize {
    match node {
        Node::Leaf(segments) => {
            assert!(is_root || segments.len() >= MOST / 2, "{} in a leaf", segments.len());
            assert_eq!(segments.capacity(), MOST);
            1
        }
        Node::Inner(children) => {
            assert!(is_root || children.len() >= MOST / 2, "{} in an inner node", children.len());
            assert_eq!(children.capacity(), MOST);
            let depths: Vec<usize> = children.iter().map(|child| depth(&child.node, false)).collect();
            assert!(depths.windows(2).all(|pair| pair[0] == pair[1]));
            depths[0] + 1
        }
    }
}

fn highest_gap(list: &BTreeMap<u64, u64>, low: u64, high: u64, length: u64) -> Option<u64> {
    (low..=high.checked_sub(length)?).rev().find(|&start| {
        let before = list.range(..start + length).next_back();
        before.is_none_or(|(_, &end)| end <= start)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_agrees_with_a_list(
        steps in prop::collection::vec((0..4000u64, 1..4u64, 0..5u8), 1..3000),
        wanted in prop::collection::vec((0..4000u64, 0..4000u64, 1..30u64), 20),
    ) {
        let (mut tree, mut list) = (Tree::new(), BTreeMap::<u64, u64>::new());
        // Removal gets the upper hand in the second half, so that nodes shrink and join.
        let half = steps.len() / 2;
        for (index, (start, length, kind)) in steps.into_iter().enumerate() {
            if kind >= if index < half { 4 } else { 1 } {
                let key = list.range(start..).next().map_or(start, |(&key, _)| key);
                prop_assert_eq!(tree.remove(key).map(|it| it.end().0), list.remove(&key));
            } else if highest_gap(&list, start, start + length, length).is_some() {
                tree.insert(segment(start, length));
                list.insert(start, start + length);
            }
            let floor = list.range(..=start).next_back().map(|(&start, _)| start);
            prop_assert_eq!(tree.floor(start).map(|it| it.start.0), floor);
            let ceiling = list.range(start..).next().map(|(&start, _)| start);
            prop_assert_eq!(tree.ceiling(start).map(|it| it.start.0), ceiling);
        }
        depth(&tree.root, true);
        prop_assert_eq!(tree.len(), list.len());
        for (from, to, length) in wanted {
            let expected = highest_gap(&list, from.min(to), from.max(to), length);
            prop_assert_eq!(tree.highest_gap(from.min(to), from.max(to), length), expected);
            let rest: Vec<u64> = tree.iter_from(from).map(|it| it.start.0).collect();
            prop_assert_eq!(rest, list.range(from..).map(|(&start, _)| start).collect::<Vec<_>>());
        }
    }
}
