//! Why an address space could not be changed.

use super::Limited;
use core::fmt;
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

/// Why a verb was refused, wholly or from some address on; the verb says what has changed by then.
///
/// The numbers that system calls answer with are in [`abi`](super::abi).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SpaceError {
    /// The range is empty.
    Empty,
    /// An address, or the offset in an object, is not a multiple of the page size.
    Misaligned {
        /// The value.
        value: u64,
    },
    /// The length cannot be rounded up to pages, or is more than all addresses.
    TooLong {
        /// The length.
        length: u64,
    },
    /// The range leaves the address space.
    OutOfRange {
        /// The first address that was asked for.
        start: VirtAddr,
        /// The bytes that were asked for.
        length: u64,
    },
    /// No free range is long enough, or the addresses behind the segment are taken.
    NoRoom {
        /// The bytes that were asked for.
        length: u64,
    },
    /// The address is below those that the caller may choose.
    TooLow {
        /// The address.
        start: VirtAddr,
    },
    /// A segment is in the way.
    Taken {
        /// Its first address.
        start: VirtAddr,
        /// Its bytes.
        length: u64,
    },
    /// There would be more segments than allowed.
    TooManySegments {
        /// The most that are allowed.
        limit: usize,
    },
    /// There would be more of something than allowed.
    LimitReached {
        /// What it is.
        what: Limited,
        /// The bytes that are allowed.
        limit: u64,
    },
    /// Nothing may be locked.
    LockForbidden,
    /// More would be locked than allowed.
    LockLimit {
        /// The bytes that are allowed.
        limit: u64,
    },
    /// The range of the object passes what offsets can be.
    OffsetTooLarge {
        /// The first byte of the object.
        offset: u64,
        /// The bytes that were asked for.
        length: u64,
    },
    /// The flags cannot be had together, or are none.
    BadFlags,
    /// A flag is not known, and the caller wants to be told.
    UnknownFlags,
    /// The object was not opened for what the segment needs.
    ObjectDenied {
        /// What was missing.
        missing: Prot,
    },
    /// The object only takes additions at its end.
    AppendOnly,
    /// The object may not be executed.
    NoExecute,
    /// The object is sealed against stores.
    Sealed,
    /// The object cannot be mapped.
    NotMappable,
    /// Nothing is mapped at an address of the range.
    Hole {
        /// The address.
        address: VirtAddr,
    },
    /// A segment cannot be given this protection.
    ProtDenied {
        /// The segment's first address.
        start: VirtAddr,
        /// The most that it can have.
        max_prot: Prot,
    },
    /// A segment is not of the kind that this can be done with.
    WrongKind {
        /// The segment's first address.
        start: VirtAddr,
    },
    /// A segment is locked, and this can be done with others only.
    IsLocked {
        /// The segment's first address.
        start: VirtAddr,
    },
    /// The pages of the range cannot be made resident, from this address on.
    NotResident {
        /// The address.
        address: VirtAddr,
    },
    /// The range is not one segment.
    SeveralSegments {
        /// Where the first one ends.
        end: VirtAddr,
    },
    /// The old and the new range overlap.
    Overlaps,
    /// The old range is to stay, and the new one has another length.
    KeptResized,
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use SpaceError::*;
        match *self {
            Empty => f.write_str("the range is empty"),
            Misaligned { value } => write!(f, "{value:#x} is not a multiple of the page size"),
            TooLong { length } => write!(f, "{length:#x} bytes are more than there are addresses"),
            OutOfRange { start, length } => {
                write!(f, "{length:#x} bytes at {:#x} leave the address space", start.0)
            }
            NoRoom { length } => write!(f, "no room for {length:#x} bytes"),
            TooLow { start } => write!(f, "{:#x} is below what this caller may choose", start.0),
            Taken { start, length } => {
                write!(f, "a segment of {length:#x} bytes at {:#x} is in the way", start.0)
            }
            TooManySegments { limit } => write!(f, "there would be more than {limit} segments"),
            LimitReached { what, limit } => write!(f, "{what:?} would be more than {limit} bytes"),
            LockForbidden => f.write_str("this caller may not lock memory"),
            LockLimit { limit } => write!(f, "more than {limit} bytes would be locked"),
            OffsetTooLarge { offset, length } => {
                write!(f, "{length:#x} bytes at offset {offset:#x} pass the largest offset")
            }
            BadFlags => f.write_str("the flags do not go together"),
            UnknownFlags => f.write_str("a flag is not known"),
            ObjectDenied { missing } => write!(f, "the object was not opened for {missing}"),
            AppendOnly => f.write_str("the object can only be added to"),
            NoExecute => f.write_str("the object may not be executed"),
            Sealed => f.write_str("the object is sealed against stores"),
            NotMappable => f.write_str("the object cannot be mapped"),
            Hole { address } => write!(f, "nothing is mapped at {:#x}", address.0),
            ProtDenied { start, max_prot } => {
                write!(f, "the segment at {:#x} can have {max_prot} at most", start.0)
            }
            WrongKind { start } => write!(f, "not for a segment such as that at {:#x}", start.0),
            IsLocked { start } => write!(f, "the segment at {:#x} is locked", start.0),
            NotResident { address } => write!(f, "the page at {:#x} cannot be resident", address.0),
            SeveralSegments { end } => write!(f, "the first segment ends at {:#x}", end.0),
            Overlaps => f.write_str("the old and the new range overlap"),
            KeptResized => f.write_str("a range that stays cannot change its length"),
        }
    }
}

impl core::error::Error for SpaceError {}
