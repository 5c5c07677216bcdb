//! Why an address space could not be changed.

use crate::address::{ObjectOffset, VirtAddr};
use core::fmt;

/// Why a segment could not be mapped or unmapped. Whatever the reason, nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MapError {
    /// A segment is in the way.
    Overlap {
        /// Its first address.
        start: VirtAddr,
        /// Its bytes.
        length: u64,
    },
    /// No free range is long enough.
    NoGap {
        /// The bytes that were asked for.
        length: u64,
    },
    /// A start, length or offset is not a multiple of the page size.
    Misaligned {
        /// The value.
        value: u64,
    },
    /// The range does not lie inside the limits of the address space.
    OutOfRange {
        /// The first address that was asked for.
        start: VirtAddr,
        /// The bytes that were asked for.
        length: u64,
    },
    /// The range of the object does not fit 64-bit offsets.
    OffsetTooLarge {
        /// The first byte of the object.
        offset: ObjectOffset,
        /// The bytes that were asked for.
        length: u64,
    },
    /// The range is empty.
    Empty,
    /// There would be more segments than allowed.
    TooManySegments {
        /// The most that are allowed.
        limit: usize,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            MapError::Overlap { start, length } => {
                write!(f, "a segment of {length:#x} bytes at {:#x} is in the way", start.0)
            }
            MapError::NoGap { length } => write!(f, "no free range of {length:#x} bytes"),
            MapError::Misaligned { value } => write!(f, "{value:#x} is not a multiple of the page size"),
            MapError::OutOfRange { start, length } => {
                write!(f, "{length:#x} bytes at {:#x} leave the address space", start.0)
            }
            MapError::OffsetTooLarge { offset, length } => {
                write!(f, "{length:#x} bytes at offset {:#x} do not fit 64-bit offsets", offset.0)
            }
            MapError::Empty => f.write_str("the range is empty"),
            MapError::TooManySegments { limit } => write!(f, "there would be more than {limit} segments"),
        }
    }
}

impl core::error::Error for MapError {}
