//! Allocated bytes.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::guards::Place;
use crate::mapping::{Pinned, PinnedMut};

/// Bytes of a stream to read, in place: they stay and do not change while this lives. Dropping it frees them.
///
/// # Soundness
///
/// It is a [`Pinned`], and as sound as that is, whether its stream lives or not. Its bytes do not outlive it:
///
/// ```compile_fail,E0505
/// # use memobj::stream::{ForReading, Stream, StreamError};
/// # fn leak(stream: &Stream) -> Result<(), StreamError> {
/// let guard = stream.alloc(ForReading, 8)?;
/// let bytes: &[u8] = &guard;
/// drop(guard);
/// assert_eq!(bytes[0], 0);
/// # Ok(())
/// # }
/// ```
pub struct ReadBytes {
    // Unpinned before its place is free: whoever gets the place next does not wait for this.
    bytes: Option<Pinned>,
    _place: Option<Place>,
    offset: u64,
}

impl fmt::Debug for ReadBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBytes")
            .field("offset", &self.offset)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Bytes of a stream to read and write, in place. What is in them when this is dropped is part of the stream then.
///
/// They begin as they were, zeros where the stream was extended. While this lives nobody else can allocate, pin, copy
/// or write back its pages.
///
/// # Soundness
///
/// It is a [`PinnedMut`], and as sound as that is, whether its stream lives or not. Its bytes do not outlive it:
///
/// ```compile_fail,E0505
/// # use memobj::stream::{ForWriting, Stream, StreamError};
/// # fn leak(stream: &Stream) -> Result<(), StreamError> {
/// let mut guard = stream.alloc(ForWriting, 8)?;
/// let bytes: &mut [u8] = &mut guard;
/// drop(guard);
/// bytes[0] = 1;
/// # Ok(())
/// # }
/// ```
pub struct WriteBytes {
    // As above.
    bytes: Option<PinnedMut>,
    _place: Option<Place>,
    offset: u64,
}

impl fmt::Debug for WriteBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBytes")
            .field("offset", &self.offset)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl ReadBytes {
    pub(super) fn new(offset: u64, pinned: Option<(Pinned, Place)>) -> Self {
        let (bytes, place) = pinned.unzip();
        Self { bytes, _place: place, offset }
    }

    /// Where in the object the bytes are.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl WriteBytes {
    pub(super) fn new(offset: u64, pinned: Option<(PinnedMut, Place)>) -> Self {
        let (bytes, place) = pinned.unzip();
        Self { bytes, _place: place, offset }
    }

    /// Where in the object the bytes are.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Deref for ReadBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

impl Deref for WriteBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

impl DerefMut for WriteBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.as_deref_mut().unwrap_or_default()
    }
}
