//! Walking the segments.

use super::super::Segment;
use super::node::{Child, Node};
use alloc::vec::Vec;

/// Segments, lowest first.
#[derive(Clone, Debug)]
pub(in super::super) struct Iter<'a> {
    leaf: core::slice::Iter<'a, Segment>,
    /// What is left of the nodes above, the root first.
    rest: Vec<core::slice::Iter<'a, Child>>,
}

impl<'a> Iter<'a> {
    pub(super) fn new(root: &'a Node, from: u64) -> Self {
        let mut iter = Self { leaf: [].iter(), rest: Vec::new() };
        iter.enter(root, from);
        iter
    }

    fn enter(&mut self, mut node: &'a Node, from: u64) {
        loop {
            match node {
                Node::Leaf(segments) => {
                    let at = segments.partition_point(|segment| segment.start.0 < from);
                    self.leaf = segments[at..].iter();
                    return;
                }
                Node::Inner(children) => {
                    let at = children.partition_point(|child| child.first <= from).saturating_sub(1);
                    let mut rest = children[at..].iter();
                    let Some(child) = rest.next() else { return };
                    self.rest.push(rest);
                    node = &child.node;
                }
            }
        }
    }
}

impl Iterator for Iter<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        loop {
            if let Some(segment) = self.leaf.next() {
                return Some(*segment);
            }
            match self.rest.last_mut()?.next() {
                Some(child) => self.enter(&child.node, 0),
                None => drop(self.rest.pop()),
            }
        }
    }
}
