//! What is asked of `map`.

use super::{Charge, Growth, Lock, ObjectId, OnExec, OnFork, Sharing, SpaceError};
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

/// Where a segment is to be placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Wherever there is room: the highest address.
    Anywhere,
    /// At this address, rounded down to a page, if there is room, else anywhere.
    Hint(VirtAddr),
    /// Below 2 GiB.
    Low,
    /// Here, instead of what is there.
    Fixed(VirtAddr),
    /// Here, if nothing is there.
    FixedFree(VirtAddr),
}

/// What may be done with an object, as its opener opened it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectView {
    /// The object.
    pub id: ObjectId,
    /// [`Prot::READ`] and [`Prot::WRITE`], as it was opened.
    pub opened: Prot,
    /// What it allows whoever opened it.
    pub kind: ObjectKind,
    /// The largest end of a range of it.
    pub largest: u64,
}

/// What an object allows whoever opened it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// Everything.
    Plain,
    /// Only additions at its end.
    AppendOnly,
    /// Not to be executed.
    NoExecute,
    /// Not to be stored to by anybody.
    Sealed,
    /// Not to be mapped: a directory, a pipe.
    NotMappable,
}

/// What is to be behind a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentContent {
    /// Zeros: of this address space if private; if shared, `memory` is a new object of them, as long as asked for.
    Anonymous {
        /// The name of the new object, not used before; used if the segment is shared.
        memory: ObjectId,
    },
    /// An object from this byte on.
    Object {
        /// The object.
        view: ObjectView,
        /// The byte.
        offset: u64,
    },
    /// Nothing. The segment allows no access, now and later.
    Reserved,
}

/// What is asked of [`AddressSpace::map`](super::AddressSpace::map).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapRequest {
    /// Bytes, to be rounded up to pages.
    pub length: u64,
    /// Where.
    pub place: Place,
    /// What.
    pub source: SegmentContent,
    /// What the bytes may be used for.
    pub prot: Prot,
    /// Who sees the stores; or what was wrong with the flags, which is found late, once there is room.
    pub sharing: Result<Sharing, SpaceError>,
    /// Whether the pages are locked.
    pub lock: Lock,
    /// Whether it grows.
    pub growth: Growth,
    /// Whether memory is set aside.
    pub charge: Charge,
    /// What a forked child has.
    pub on_fork: OnFork,
    /// What a new program has.
    pub on_exec: OnExec,
}

impl MapRequest {
    /// `length` bytes of `source`, anywhere.
    pub const fn new(length: u64, source: SegmentContent, prot: Prot, sharing: Sharing) -> Self {
        Self {
            length,
            place: Place::Anywhere,
            source,
            prot,
            sharing: Ok(sharing),
            lock: Lock::Unlocked,
            growth: Growth::Fixed,
            charge: Charge::Counted,
            on_fork: OnFork::Inherit,
            on_exec: OnExec::Drop,
        }
    }

    /// This, placed at `place`.
    pub const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }
}
