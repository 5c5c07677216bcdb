//! What bytes are allocated for. A mode is a type, so that only bytes to write can be written.

use std::ops::Range;

use super::guard::{ReadBytes, WriteBytes};
use super::guards::{Place, Purpose};
use crate::error::AccessError;
use crate::mapping::{Mapping, Pinned, PinnedMut};

/// What bytes are allocated for: [`ForReading`] or [`ForWriting`].
pub trait Mode: sealed::Pins<Bytes = Self::Guard> {
    /// What holds the bytes.
    type Guard: std::ops::Deref<Target = [u8]>;
}

/// To read. Such guards may overlap one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForReading;

/// To write, and to read what was there. Such a guard has its pages, of 4 KiB each, for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForWriting;

impl Mode for ForReading {
    type Guard = ReadBytes;
}

impl Mode for ForWriting {
    type Guard = WriteBytes;
}

impl sealed::Pins for ForReading {
    type Bytes = ReadBytes;
    type Pin = Pinned;
    const PURPOSE: Purpose = Purpose::Reading;

    fn pin(mapping: &Mapping, range: Range<u64>) -> Result<Pinned, AccessError> {
        mapping.pin(range)
    }

    fn guard(offset: u64, pinned: Option<(Pinned, Place)>) -> ReadBytes {
        ReadBytes::new(offset, pinned)
    }
}

impl sealed::Pins for ForWriting {
    type Bytes = WriteBytes;
    type Pin = PinnedMut;
    const PURPOSE: Purpose = Purpose::Writing;

    fn pin(mapping: &Mapping, range: Range<u64>) -> Result<PinnedMut, AccessError> {
        mapping.pin_mut(range)
    }

    fn guard(offset: u64, pinned: Option<(PinnedMut, Place)>) -> WriteBytes {
        WriteBytes::new(offset, pinned)
    }
}

pub(super) mod sealed {
    use super::{AccessError, Mapping, Place, Purpose, Range};

    /// How a mode gets its bytes. Nobody outside can name it.
    pub trait Pins {
        type Bytes;
        type Pin;
        const PURPOSE: Purpose;

        fn pin(mapping: &Mapping, range: Range<u64>) -> Result<Self::Pin, AccessError>;

        /// The bytes with their place among the stream's guards; none at the end of the object.
        fn guard(offset: u64, pinned: Option<(Self::Pin, Place)>) -> Self::Bytes;
    }
}
