//! What a caller can choose.

use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;
use memobj_vm::space::{Place, Sharing};

use crate::object::MemoryObject;
use crate::options::setters;

/// For [`Space::new`](super::Space::new).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceOptions {
    /// Addresses that are set aside, in bytes; rounded up to pages. They cost nothing but addresses.
    pub window_bytes: u64,
    /// Where they begin; anywhere, if `None`.
    pub window_start: Option<VirtAddr>,
    /// The most segments. The kernel has a limit of its own for the process (`vm.max_map_count`), and a verb that
    /// passes it is refused.
    pub segments: usize,
    /// The most bytes that are copied for one copy segment where nothing better goes.
    pub copy_bytes: u64,
}

impl Default for SpaceOptions {
    /// 1 TiB anywhere, 32,768 segments, 64 MiB.
    fn default() -> Self {
        Self { window_bytes: 1 << 40, window_start: None, segments: 1 << 15, copy_bytes: 64 << 20 }
    }
}

setters!(SpaceOptions {
    window_bytes: u64,
    window_start: impl Into<Option<VirtAddr>>,
    segments: usize,
    copy_bytes: u64,
});

/// What is to be behind a segment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum SegmentSource<'a> {
    /// Zeros of its own.
    Anonymous,
    /// An object from this byte on, a multiple of 4 KiB. The segment may pass the end of the object: pages past it trap.
    Object {
        /// The object.
        object: &'a MemoryObject,
        /// The byte.
        offset: u64,
    },
    /// Nothing: addresses that are kept free, to be mapped over.
    Reserved,
}

/// What is asked of [`Space::map`](super::Space::map).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SegmentRequest<'a> {
    /// Bytes, to be rounded up to pages.
    pub length: u64,
    /// Where.
    pub place: Place,
    /// What.
    pub source: SegmentSource<'a>,
    /// What the bytes may be used for.
    pub prot: Prot,
    /// Who sees the stores.
    pub sharing: Sharing,
}

impl<'a> SegmentRequest<'a> {
    /// A segment of `length` bytes wherever there is room.
    #[must_use]
    pub const fn new(length: u64, source: SegmentSource<'a>, prot: Prot, sharing: Sharing) -> Self {
        Self { length, place: Place::Anywhere, source, prot, sharing }
    }

    setters!(only
        length: u64,
        place: Place,
        source: SegmentSource<'a>,
        prot: Prot,
        sharing: Sharing,
    );
}
