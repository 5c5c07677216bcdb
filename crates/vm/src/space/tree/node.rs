//! Nodes: keeping them sorted, at least half full, and their summaries true.

use super::super::Segment;
use alloc::vec::Vec;

/// The most that a node holds.
pub(super) const MOST: usize = 32;
/// The least that a node holds, but for the root.
const LEAST: usize = MOST / 2;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf(Vec<Segment>),
    Inner(Vec<Child>),
}

/// A node and what is known of it from outside.
#[derive(Clone, Debug)]
pub(super) struct Child {
    /// Where its first segment starts.
    pub(super) first: u64,
    /// Where its last segment ends.
    pub(super) end: u64,
    /// The longest gap between two of its segments.
    pub(super) gap: u64,
    pub(super) node: Node,
}

impl Child {
    fn of(node: Node) -> Self {
        let mut child = Self { first: 0, end: 0, gap: 0, node };
        child.refresh();
        child
    }

    /// Makes the summary true again after a change of the node.
    fn refresh(&mut self) {
        (self.first, self.end, self.gap) = match &self.node {
            Node::Leaf(segments) => summary(segments.iter().map(|it| (it.start.0, it.end().0, 0))),
            Node::Inner(children) => summary(children.iter().map(|it| (it.first, it.end, it.gap))),
        };
    }
}

/// First start, last end and longest gap of parts in order.
fn summary(parts: impl Iterator<Item = (u64, u64, u64)>) -> (u64, u64, u64) {
    let whole = parts.fold(None, |whole, (first, end, gap)| match whole {
        None => Some((first, end, gap)),
        Some((lowest, before, longest)) => Some((lowest, end, u64::max(longest, gap).max(first - before))),
    });
    whole.unwrap_or_default()
}

/// The upper half of `items`, which is full.
fn upper_half<T>(items: &mut Vec<T>) -> Vec<T> {
    let mut right = Vec::with_capacity(MOST);
    right.extend(items.drain(MOST / 2..));
    right
}

/// Evens `left` and `right` out, or puts all into `left` if it fits there.
fn balance<T>(left: &mut Vec<T>, right: &mut Vec<T>) {
    let all = left.len() + right.len();
    if all <= MOST {
        left.append(right);
    } else if left.len() < right.len() {
        left.extend(right.drain(..all / 2 - left.len()));
    } else {
        right.splice(..0, left.drain(all / 2..));
    }
}

/// The child in which `address` belongs.
fn slot(children: &[Child], address: u64) -> usize {
    children.partition_point(|child| child.first <= address).saturating_sub(1)
}

impl Node {
    pub(super) fn leaf() -> Self {
        Node::Leaf(Vec::with_capacity(MOST))
    }

    pub(super) fn floor(&self, address: u64) -> Option<&Segment> {
        let mut node = self;
        loop {
            match node {
                Node::Leaf(segments) => {
                    let after = segments.partition_point(|segment| segment.start.0 <= address);
                    return segments.get(after.checked_sub(1)?);
                }
                Node::Inner(children) => node = &children.get(slot(children, address))?.node,
            }
        }
    }

    pub(super) fn ceiling(&self, address: u64) -> Option<&Segment> {
        match self {
            Node::Leaf(segments) => {
                segments.get(segments.partition_point(|segment| segment.start.0 < address))
            }
            Node::Inner(children) => {
                let at = slot(children, address);
                let here = children.get(at)?.node.ceiling(address);
                here.or_else(|| children.get(at + 1)?.node.ceiling(address))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(segments) => segments.len(),
            Node::Inner(children) => children.len(),
        }
    }

    /// Adds `segment`; if the node was full, its upper half becomes a node of its own.
    pub(super) fn insert(&mut self, segment: Segment) -> Option<Node> {
        match self {
            Node::Leaf(segments) => {
                let right = (segments.len() == MOST).then(|| upper_half(segments));
                let (place, right) = match right {
                    Some(mut right) if right.first().is_some_and(|first| first.start < segment.start) => {
                        insert_sorted(&mut right, segment);
                        (None, Some(right))
                    }
                    other => (Some(segments), other),
                };
                if let Some(segments) = place {
                    insert_sorted(segments, segment);
                }
                right.map(Node::Leaf)
            }
            Node::Inner(children) => {
                let at = slot(children, segment.start.0);
                let split = children[at].node.insert(segment);
                children[at].refresh();
                let new = Child::of(split?);
                if children.len() < MOST {
                    children.insert(at + 1, new);
                    return None;
                }
                let mut right = upper_half(children);
                match (at + 1).checked_sub(children.len()) {
                    Some(at) if at > 0 => right.insert(at, new),
                    _ => children.insert(at + 1, new),
                }
                Some(Node::Inner(right))
            }
        }
    }

    /// Makes this the left child of a new root, `right` the other.
    pub(super) fn grow(&mut self, right: Node) {
        let left = core::mem::replace(self, Node::leaf());
        let mut children = Vec::with_capacity(MOST);
        children.extend([Child::of(left), Child::of(right)]);
        *self = Node::Inner(children);
    }

    /// Makes the only child of a root the root.
    pub(super) fn collapse(&mut self) {
        if let Node::Inner(children) = self
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            *self = only.node;
        }
    }

    pub(super) fn remove(&mut self, start: u64) -> Option<Segment> {
        match self {
            Node::Leaf(segments) => {
                let at = segments.binary_search_by_key(&start, |segment| segment.start.0).ok()?;
                Some(segments.remove(at))
            }
            Node::Inner(children) => {
                let at = slot(children, start);
                let removed = children.get_mut(at)?.node.remove(start)?;
                children[at].refresh();
                if children[at].node.len() < LEAST {
                    refill(children, at);
                }
                Some(removed)
            }
        }
    }

    pub(super) fn replace(&mut self, start: u64, segment: Segment) {
        match self {
            Node::Leaf(segments) => {
                let found = segments.iter_mut().find(|old| old.start.0 == start);
                debug_assert!(found.is_some(), "no segment starts at {start:#x}");
                found.into_iter().for_each(|old| *old = segment);
            }
            Node::Inner(children) => {
                let at = slot(children, start);
                children[at].node.replace(start, segment);
                children[at].refresh();
            }
        }
    }
}

fn insert_sorted(segments: &mut Vec<Segment>, segment: Segment) {
    let at = segments.partition_point(|other| other.start < segment.start);
    segments.insert(at, segment);
}

/// Brings the child at `at` back to at least half full, from a neighbour or together with it.
fn refill(children: &mut Vec<Child>, at: usize) {
    let left = at.saturating_sub(1);
    let [first, second] = match children.get_disjoint_mut([left, left + 1]) {
        Ok(pair) => pair,
        // The only child of a root: the root collapses.
        Err(_) => return,
    };
    match (&mut first.node, &mut second.node) {
        (Node::Leaf(left), Node::Leaf(right)) => balance(left, right),
        (Node::Inner(left), Node::Inner(right)) => balance(left, right),
        // All leaves are at one depth.
        _ => return,
    }
    first.refresh();
    if second.node.len() == 0 {
        children.remove(left + 1);
    } else {
        second.refresh();
    }
}
