//! What an address space consists of.

use super::Attributes;
use core::fmt;
use memobj_core::address::{ObjectOffset, VirtAddr};

/// The name of a memory object in one host; the host gives it out and knows what it means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct ObjectId(pub u64);

/// What is behind a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backing {
    /// Zeros that belong to this address space.
    Anonymous,
    /// A range of an object.
    Object {
        /// The object.
        id: ObjectId,
        /// Its byte at the segment's first address; a multiple of 4 KiB.
        offset: ObjectOffset,
    },
    /// Nothing: addresses that are kept free, to be mapped over. Every access is a trap.
    Reserved,
}

impl Backing {
    /// What is behind the address `bytes` further on; `None` past 64-bit offsets.
    pub const fn advanced(self, bytes: u64) -> Option<Backing> {
        match self {
            Backing::Object { id, offset } => match offset.checked_add(bytes) {
                Some(offset) => Some(Backing::Object { id, offset }),
                None => None,
            },
            other => Some(other),
        }
    }
}

/// A range of addresses, what is behind it, and what may be done with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    /// The first address; a multiple of 4 KiB.
    pub start: VirtAddr,
    /// Bytes; a multiple of 4 KiB, not zero.
    pub length: u64,
    /// What is behind it.
    pub backing: Backing,
    /// What may be done with it, and what becomes of it.
    pub attributes: Attributes,
}

impl Segment {
    /// One past the last address. Segments of an address space end inside 64 bits; others saturate.
    pub const fn end(&self) -> VirtAddr {
        VirtAddr(self.start.0.saturating_add(self.length))
    }

    /// Whether `address` lies in the segment.
    pub const fn contains(&self, address: VirtAddr) -> bool {
        self.start.0 <= address.0 && address.0 - self.start.0 < self.length
    }

    /// The object and its byte that is placed at `address`; `None` outside the segment and without an object.
    pub const fn object_at(&self, address: VirtAddr) -> Option<(ObjectId, ObjectOffset)> {
        if !self.contains(address) {
            return None;
        }
        match self.backing.advanced(address.0 - self.start.0) {
            Some(Backing::Object { id, offset }) => Some((id, offset)),
            _ => None,
        }
    }

    /// Whether `next` continues this segment, so that both are one.
    pub(super) fn joins(&self, next: &Segment) -> bool {
        self.end() == next.start
            && self.attributes == next.attributes
            && self.backing.advanced(self.length) == Some(next.backing)
    }

    /// The part of the segment inside `[start, end)`, or `None` if there is none.
    pub fn part(&self, start: VirtAddr, end: VirtAddr) -> Option<Segment> {
        let first = self.start.0.max(start.0);
        let end = self.end().0.min(end.0);
        if first >= end {
            return None;
        }
        let backing = self.backing.advanced(first - self.start.0)?;
        Some(Segment { start: VirtAddr(first), length: end - first, backing, ..*self })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.start.0, self.end().0);
        write!(f, "[{start:#x}, {end:#x}) {} ", self.attributes)?;
        match self.backing {
            Backing::Anonymous => f.write_str("anonymous"),
            Backing::Reserved => f.write_str("reserved"),
            Backing::Object { id, offset } => write!(f, "{}+{:#x}", id.0, offset.0),
        }
    }
}
