//! The address space, and the steps of which its verbs are made.

use super::tree::Tree;
use super::{Limits, Segment, SpaceError, Usage};
use alloc::vec::Vec;
use memobj_core::address::{PageSize, VirtAddr};

pub(super) const PAGE: u64 = PageSize::SMALL.bytes();

/// An ordered set of segments that do not overlap.
#[derive(Clone, Debug)]
pub struct AddressSpace {
    pub(super) limits: Limits,
    pub(super) usage: Usage,
    pub(super) tree: Tree,
    /// Whether segments that are mapped later are locked.
    pub(super) lock_later: super::Lock,
}

impl PartialEq for AddressSpace {
    fn eq(&self, other: &Self) -> bool {
        (self.limits, self.usage, self.lock_later) == (other.limits, other.usage, other.lock_later)
            && self.iter().eq(other.iter())
    }
}

impl Eq for AddressSpace {}

impl AddressSpace {
    /// An empty address space. Limits that enclose no whole page leave room for nothing.
    pub fn new(limits: Limits) -> Self {
        let high = limits.high.0 - limits.high.0 % PAGE;
        let low = round_up(limits.low.0).unwrap_or(high).min(high);
        let limits = Limits { low: VirtAddr(low), high: VirtAddr(high), ..limits };
        Self { limits, usage: Usage::default(), tree: Tree::new(), lock_later: super::Lock::Unlocked }
    }

    /// The limits, rounded to pages.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Sets other limits; what is there stays, if it passes them. The addresses stay as they are.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = Limits { low: self.limits.low, high: self.limits.high, ..limits };
    }

    /// What is used of the limits.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// How many segments there are.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last segment that starts below `address`.
    pub(super) fn before(&self, address: u64) -> Option<Segment> {
        self.tree.floor(address.checked_sub(1)?).copied()
    }

    /// Puts `segment` where nothing is and joins it to the neighbours that it continues.
    pub(super) fn put(&mut self, segment: Segment) {
        self.usage = self.usage.plus(Usage::of(&segment));
        let left = self.before(segment.start.0).filter(|left| left.joins(&segment));
        let end = segment.end().0;
        let right = self.tree.floor(end).copied();
        let right = right.filter(|right| right.start.0 == end && segment.joins(right));
        if let Some(right) = right {
            self.tree.remove(right.start.0);
        }
        let length = segment.length + right.map_or(0, |right| right.length);
        match left {
            Some(left) => {
                let whole = Segment { length: left.length + length, ..left };
                self.tree.replace(left.start.0, whole);
            }
            None => self.tree.insert(Segment { length, ..segment }),
        }
    }

    /// Takes `part`, a part of a segment that is there, away.
    pub(super) fn take(&mut self, part: Segment) {
        let Some(whole) = self.lookup(part.start) else { return };
        self.usage = self.usage.minus(Usage::of(&part));
        let left = whole.part(VirtAddr(0), part.start);
        let right = whole.part(part.end(), VirtAddr(u64::MAX));
        match (left, right) {
            (None, None) => drop(self.tree.remove(whole.start.0)),
            (Some(rest), None) | (None, Some(rest)) => self.tree.replace(whole.start.0, rest),
            (Some(left), Some(right)) => {
                self.tree.replace(whole.start.0, left);
                self.tree.insert(right);
            }
        }
    }

    /// The parts of segments in `[start, end)`, lowest first.
    pub(super) fn parts(&self, start: u64, end: u64) -> impl Iterator<Item = Segment> {
        self.iter_range(VirtAddr(start), end.saturating_sub(start))
            .filter_map(move |segment| segment.part(VirtAddr(start), VirtAddr(end)))
    }

    /// The parts in `[start, end)`, to change the space while going over them.
    pub(super) fn collect(&self, start: u64, end: u64) -> Vec<Segment> {
        self.parts(start, end).collect()
    }

    /// Gives `part`, a part of a segment that is there, other attributes.
    ///
    /// Refused, with nothing changed, if the pieces that this makes are too many. A piece that joins a neighbour at
    /// an edge needs no piece more there.
    pub(super) fn alter(&mut self, part: Segment, after: Segment) -> Result<(), SpaceError> {
        if part == after {
            return Ok(());
        }
        let Some(whole) = self.lookup(part.start) else { return Ok(()) };
        let joins_left = self.before(part.start.0).is_some_and(|left| left.joins(&after));
        let right = self.tree.floor(part.end().0).copied();
        let joins_right = right.is_some_and(|right| after.joins(&right));
        let more = usize::from(whole.start < part.start && !joins_left)
            + usize::from(part.end() < whole.end() && !joins_right);
        if more > 0 {
            self.check_count(more)?;
        }
        self.take(part);
        self.put(after);
        Ok(())
    }

    /// Whether `more` segments can be added.
    pub(super) fn check_count(&self, more: usize) -> Result<(), SpaceError> {
        let limit = self.limits.segments;
        match self.len().checked_add(more) {
            Some(count) if count <= limit => Ok(()),
            _ => Err(SpaceError::TooManySegments { limit }),
        }
    }

    /// Whether `more` fits the limits once `less` is gone.
    pub(super) fn check_usage(&self, more: Usage, less: Usage) -> Result<(), SpaceError> {
        let checked = self.limits.check(self.usage.minus(less), more);
        checked.map_err(|(what, limit)| SpaceError::LimitReached { what, limit })
    }

    /// Whether `more` bytes can be locked.
    pub(super) fn check_locked(&self, more: u64) -> Result<(), SpaceError> {
        let limit = self.limits.locked_bytes;
        let locked = self.usage.locked_bytes.saturating_add(more);
        if limit == u64::MAX || locked <= limit { Ok(()) } else { Err(SpaceError::LockLimit { limit }) }
    }
}

/// `length` rounded up to pages; `None` if that does not fit.
pub(super) fn round_up(length: u64) -> Option<u64> {
    length.checked_next_multiple_of(PAGE)
}

pub(super) fn check_aligned(value: u64) -> Result<(), SpaceError> {
    if value.is_multiple_of(PAGE) { Ok(()) } else { Err(SpaceError::Misaligned { value }) }
}
