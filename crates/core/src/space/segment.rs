//! What an address space consists of.

use crate::address::{ObjectOffset, VirtAddr};
use crate::prot::Prot;
use core::fmt;

/// The name of a memory object in one host; the host gives it out and knows what it means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct ObjectId(pub u64);

/// Who sees the stores into a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sharing {
    /// Everybody who has the object.
    Shared,
    /// Only this segment, from the first store into a page on.
    Private,
}

/// A segment without its place: what [`map_anywhere`](super::AddressSpace::map_anywhere) finds a place for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Unplaced {
    /// Bytes; a multiple of 4 KiB, not zero.
    pub length: u64,
    /// The object behind the segment.
    pub object: ObjectId,
    /// The byte of the object at the segment's first address; a multiple of 4 KiB.
    pub offset: ObjectOffset,
    /// What the bytes may be used for.
    pub prot: Prot,
    /// Who sees the stores.
    pub sharing: Sharing,
}

/// A range of an object that is placed at a range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    /// The first address; a multiple of 4 KiB.
    pub start: VirtAddr,
    /// Bytes; a multiple of 4 KiB, not zero.
    pub length: u64,
    /// The object behind the segment.
    pub object: ObjectId,
    /// The byte of the object at `start`; a multiple of 4 KiB.
    pub offset: ObjectOffset,
    /// What the bytes may be used for.
    pub prot: Prot,
    /// Who sees the stores.
    pub sharing: Sharing,
}

impl Unplaced {
    /// This, placed at `start`.
    pub const fn at(self, start: VirtAddr) -> Segment {
        let Unplaced { length, object, offset, prot, sharing } = self;
        Segment { start, length, object, offset, prot, sharing }
    }
}

impl Segment {
    /// This without its place.
    pub const fn unplaced(self) -> Unplaced {
        let Segment { start: _, length, object, offset, prot, sharing } = self;
        Unplaced { length, object, offset, prot, sharing }
    }

    /// One past the last address. Segments of an address space end inside 64 bits; others saturate.
    pub const fn end(&self) -> VirtAddr {
        VirtAddr(self.start.0.saturating_add(self.length))
    }

    /// Whether `address` lies in the segment.
    pub const fn contains(&self, address: VirtAddr) -> bool {
        self.start.0 <= address.0 && address.0 - self.start.0 < self.length
    }

    /// The byte of the object that is placed at `address`; `None` outside the segment.
    pub const fn offset_of(&self, address: VirtAddr) -> Option<ObjectOffset> {
        if self.contains(address) { self.offset.checked_add(address.0 - self.start.0) } else { None }
    }

    /// Whether `next` continues this segment, so that both are one.
    pub(super) fn joins(&self, next: &Segment) -> bool {
        self.end() == next.start
            && self.object == next.object
            && self.offset.checked_add(self.length) == Some(next.offset)
            && self.prot == next.prot
            && self.sharing == next.sharing
    }

    /// The part of the segment inside `[start, end)`, or `None` if there is none.
    pub(super) fn part(&self, start: u64, end: u64) -> Option<Segment> {
        let first = self.start.0.max(start);
        let end = self.end().0.min(end);
        if first >= end {
            return None;
        }
        let offset = self.offset.checked_add(first - self.start.0)?;
        Some(Segment { start: VirtAddr(first), length: end - first, offset, ..*self })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sharing = match self.sharing {
            Sharing::Shared => "s",
            Sharing::Private => "p",
        };
        let (start, end) = (self.start.0, self.end().0);
        write!(f, "[{start:#x}, {end:#x}) {}{sharing} {}+{:#x}", self.prot, self.object.0, self.offset.0)
    }
}
