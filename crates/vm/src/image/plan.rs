//! What a host does to map an image.

use crate::image::ImageRecord;
use alloc::vec::Vec;
use core::fmt;
use memobj_core::address::{ObjectOffset, VirtAddr};
use memobj_core::prot::Prot;

/// A half-open range `[start, end)` of addresses, never reversed.
///
/// In a plan they are counted from the first byte of the image ([`Placement::Anywhere`]), or are addresses
/// ([`Placement::Fixed`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AddressRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// Where an image goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Where there is room for `length_bytes`, such that the byte `base_bytes` further on has an address that is a
    /// multiple of `align_bytes`. Addresses of the plan are counted from the first byte.
    Anywhere {
        /// Bytes of the whole image, padding and holes included; a multiple of the page size.
        length_bytes: u64,
        /// From the first byte to what phdrs call address zero: the padding; a multiple of the page size.
        base_bytes: u64,
        /// A power of two, at least a page.
        align_bytes: u64,
    },
    /// At the addresses of the plan. Each range that is reserved must be free.
    Fixed,
}

/// One thing to do. Ranges called `pages` are whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Take `pages`, which must be free; nobody may access them yet. Later steps stay inside what was taken.
    Reserve {
        /// What to take.
        pages: AddressRange,
    },
    /// Map the file over `pages`, private, from its byte `offset` on, a multiple of the page size. The file may end
    /// before the pages do.
    MapFile {
        /// Where.
        pages: AddressRange,
        /// The first byte of the file.
        offset: ObjectOffset,
        /// What the bytes may be used for.
        prot: Prot,
    },
    /// Zero `bytes`, the end of the last page of the [`MapFile`](Step::MapFile) before, whatever its protection,
    /// which stays. Fails if the file has no byte in that page.
    ZeroTail {
        /// What to zero: less than a page, up to the end of a page.
        bytes: AddressRange,
        /// The byte of the file at the beginning of that page.
        offset: ObjectOffset,
        /// The protection of the page.
        prot: Prot,
    },
    /// Map zeros over `pages`, private.
    MapZero {
        /// Where.
        pages: AddressRange,
        /// What the bytes may be used for.
        prot: Prot,
    },
    /// Copy bytes of the file to `bytes`, inside the [`MapZero`](Step::MapZero) before. All must be there.
    ReadFile {
        /// Where.
        bytes: AddressRange,
        /// The first byte of the file.
        offset: ObjectOffset,
    },
    /// Change what `pages` may be used for.
    Protect {
        /// Where.
        pages: AddressRange,
        /// What for.
        prot: Prot,
    },
    /// Give `pages` back: a hole of the image.
    Release {
        /// What to give back.
        pages: AddressRange,
    },
}

/// How to map one file, all or nothing.
///
/// A host places the image, does the steps in order, and when one fails gives back all that was reserved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImagePlan {
    /// Where the image goes.
    pub placement: Placement,
    /// What callers are told, by ascending address; pages of records are disjoint.
    pub records: Vec<ImageRecord>,
    /// What to do.
    pub steps: Vec<Step>,
}

impl AddressRange {
    /// Bytes in the range.
    pub const fn length_bytes(self) -> u64 {
        self.end - self.start
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The range `bytes` further on, for images that are placed; ends saturate.
    pub const fn moved(self, bytes: u64) -> Self {
        Self { start: self.start.saturating_add(bytes), end: self.end.saturating_add(bytes) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start, self.end)
    }
}

impl Step {
    /// The step with all addresses `bytes` further on.
    pub const fn moved(self, bytes: u64) -> Self {
        match self {
            Step::Reserve { pages } => Step::Reserve { pages: pages.moved(bytes) },
            Step::MapFile { pages, offset, prot } => {
                Step::MapFile { pages: pages.moved(bytes), offset, prot }
            }
            Step::ZeroTail { bytes: tail, offset, prot } => {
                Step::ZeroTail { bytes: tail.moved(bytes), offset, prot }
            }
            Step::MapZero { pages, prot } => Step::MapZero { pages: pages.moved(bytes), prot },
            Step::ReadFile { bytes: place, offset } => Step::ReadFile { bytes: place.moved(bytes), offset },
            Step::Protect { pages, prot } => Step::Protect { pages: pages.moved(bytes), prot },
            Step::Release { pages } => Step::Release { pages: pages.moved(bytes) },
        }
    }
}

impl ImagePlan {
    /// The records of the image placed at `start`; as they are for [`Placement::Fixed`].
    pub fn records_at(&self, start: VirtAddr) -> Vec<ImageRecord> {
        let move_bytes = match self.placement {
            Placement::Anywhere { .. } => start.0,
            Placement::Fixed => 0,
        };
        let moved = |record: &ImageRecord| {
            let address = VirtAddr(record.address.0.saturating_add(move_bytes));
            ImageRecord { address, ..*record }
        };
        self.records.iter().map(moved).collect()
    }
}
