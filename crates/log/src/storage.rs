//! What the commit log needs of a file.

use alloc::sync::Arc;

use memobj_core::address::ByteRange;

/// Bytes that survive a crash once they were synced: a file, a device, a model of one.
///
/// Methods may block and may be called from several threads at once; writes that overlap are not. Offsets are
/// multiples of 4 KiB and so are lengths of transfers, but for the last page of a data storage whose length is
/// not. Buffers are aligned to 4 KiB in memory, except those that a caller passes to `CommitLog::read_page`.
pub trait Storage {
    /// Why an operation failed.
    type Error;

    /// Reads `into.len()` bytes at `offset`, all or an error. They lie below the length.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes all of `bytes` at `offset`, or fails; after an error any part may have been written. They lie
    /// below the length. What was written is read at once, and durable after a `sync` that began later.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Makes durable what was written, the length, and room that was reserved (fdatasync is enough). After an
    /// error it is unknown which bytes are durable, and a later Ok says nothing about those written before the
    /// error. (Lengths and room are not lost in this way: file systems journal them, and stop when that fails.)
    fn sync(&self) -> Result<(), Self::Error>;

    /// The length in bytes.
    fn length(&self) -> Result<u64, Self::Error>;

    /// Makes the storage `length` bytes long. New bytes are zero. Room reserved at or beyond `length` may be lost.
    fn set_length(&self, length: u64) -> Result<(), Self::Error>;

    /// Obtains real blocks for `range`, so that no write there fails for want of room. Changes neither bytes nor
    /// the length; `range` may lie beyond the length. The room outlives a crash after a `sync` that began later.
    /// A log storage may write zeros instead, so that the first use of the room is as cheap as the second.
    fn reserve(&self, range: ByteRange) -> Result<Reserved, Self::Error>;

    /// Makes the bytes of `range`, which ends at a page or at the length, zero, and durably so after a `sync` that
    /// began later. Needs no room: holes stay holes, and blocks stay with the storage. Must not skip what reads as
    /// zero but has blocks: zeros of an earlier call may be gone from the device after a failed `sync`.
    fn zero(&self, range: ByteRange) -> Result<(), Self::Error>;
}

/// What `Storage::reserve` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserved {
    /// Every block was there. Only a storage that knows for certain says so; it saves a sync.
    Already,
    /// Blocks were added, or it is not known.
    New,
}

macro_rules! forward {
    ($pointer:ty) => {
        impl<S: Storage + ?Sized> Storage for $pointer {
            type Error = S::Error;

            fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), S::Error> {
                (**self).read_at(offset, into)
            }
            fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), S::Error> {
                (**self).write_at(offset, bytes)
            }
            fn sync(&self) -> Result<(), S::Error> {
                (**self).sync()
            }
            fn length(&self) -> Result<u64, S::Error> {
                (**self).length()
            }
            fn set_length(&self, length: u64) -> Result<(), S::Error> {
                (**self).set_length(length)
            }
            fn reserve(&self, range: ByteRange) -> Result<Reserved, S::Error> {
                (**self).reserve(range)
            }
            fn zero(&self, range: ByteRange) -> Result<(), S::Error> {
                (**self).zero(range)
            }
        }
    };
}

forward!(&S);
forward!(Arc<S>);
