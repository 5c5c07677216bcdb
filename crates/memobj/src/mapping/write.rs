//! Stores, pins for writing, and what makes them last.

use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use memobj_sys::area::PinnedBytesMut;

use super::{Mapping, SharedWords};
use crate::error::{AccessError, WriteError, WriteStep};
use crate::error::{ErrorKind, SupplyError};
use crate::object::StoreHandle;
use crate::write::{MutPinShare, WriteState};

/// Bytes of an object that only the holder can pin, copy and write while this lives.
///
/// Dereferences to `&mut [u8]`. Its pages count as changed. They cannot be written back, synced or committed
/// before it is dropped: a sync that meets them waits, and fails with `Timeout` in the end. At most a quarter of the
/// budget can be pinned for writing.
#[derive(Debug)]
pub struct PinnedMut {
    bytes: PinnedBytesMut,
    _share: MutPinShare,
    // Keeps the frame store registered. Dropped after the bytes.
    _user: PinUser,
}

/// Keeps users of shared words out, until dropped.
#[derive(Debug)]
struct PinUser(Arc<StoreHandle>);

impl Drop for PinUser {
    fn drop(&mut self) {
        if let Some(writes) = &self.0.store.writes {
            writes.users.end_pin_mut();
        }
    }
}

impl Deref for PinnedMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for PinnedMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Mapping {
    fn writes(&self) -> Result<&WriteState, AccessError> {
        self.frames().writes.as_ref().ok_or(AccessError::ReadOnly)
    }

    /// Copies `bytes` to `offset`. Every other mapping of the object sees them at once; they reach the pager when
    /// memory is wanted, or by [`sync`](Self::sync).
    ///
    /// Whole pages are not read first. Blocks while too much is Dirty, and while others pin a page; an error if that
    /// takes longer than the object's time-out, or if nothing can be written back. After an error the bytes before
    /// the one that it names may have been stored.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), AccessError> {
        let length = bytes.len() as u64;
        let end = offset.checked_add(length).ok_or_else(|| self.past_the_end(offset, length))?;
        let range = self.object_bytes(&(offset..end))?;
        self.frames().write_bytes(self.writes()?, range.start, bytes)
    }

    /// Pins `range` for writing: nobody else pins, copies, or writes back these pages meanwhile.
    ///
    /// Whole pages are pinned: neighbours in the same 4 KiB wait. Blocks until the pages are there and nobody pins
    /// them; `Pinned` if others do for longer than the object's time-out, `InUse` while there are
    /// [`shared_words`](Self::shared_words) of the object. Plain loads and stores through
    /// [`as_mut_ptr`](Self::as_mut_ptr), and [`touch_at`](Self::touch_at), are not held off.
    pub fn pin_mut(&self, range: Range<u64>) -> Result<PinnedMut, AccessError> {
        let bytes = self.object_bytes(&range)?;
        let writes = self.writes()?;
        writes.users.pin_mut().ok_or(AccessError::InUse)?.keep();
        let user = PinUser(Arc::clone(&self.store));
        let pinned = self.frames().pin_mut(writes, bytes)?;
        let bytes = pinned.set.into_bytes(bytes).map_err(|_| AccessError::TooManyPins)?;
        Ok(PinnedMut { bytes, _share: pinned.share, _user: user })
    }

    /// The words of the mapping, for loads and stores that fault and trap like anybody's. A length that is no multiple
    /// of eight leaves its last bytes out.
    ///
    /// `InUse` while something of the object is pinned for writing; `PinOnly` if the mapping cannot be touched, or
    /// does not start at a multiple of eight in the object.
    pub fn shared_words(&self) -> Result<SharedWords<'_>, AccessError> {
        let writes = self.writes()?;
        let user = writes.users.words().ok_or(AccessError::InUse)?;
        let words = |announce| self.frames().area.shared_words(announce, self.range.start, self.len() / 8);
        let words = self.announce.and_then(words).ok_or(AccessError::PinOnly)?;
        Ok(SharedWords::new(words, Some(user)))
    }

    /// The address of the first byte, for plain loads and stores. Null if the object is read only or the mapping
    /// cannot be touched.
    ///
    /// The first store to a page faults, as loads of absent pages do; what [`as_ptr`](Self::as_ptr) says of loads
    /// holds for stores. A store to a page that is pinned for reading waits until the pins end; whoever has the address
    /// keeps away from pages that are pinned for writing, which are open to stores.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        match self.frames().writes {
            Some(_) => self.as_ptr().cast_mut(),
            None => std::ptr::null_mut(),
        }
    }

    /// Makes durable what was stored to `range` before this call, by whatever mapping.
    ///
    /// `Ok` means durable: the bytes, and what is needed to find them. An error that names this range leaves its
    /// pages Dirty, to be tried again; an error of a write in the background is reported once, to the next sync,
    /// whatever its range. Bytes that the system took and then failed to make durable are written again if memory
    /// still has them; those it has no longer are reported by every sync of them until [`discard`](Self::discard).
    /// Of an object that is committed to ([`Writing::Atomic`](crate::Writing::Atomic)) this commits everything.
    pub fn sync(&self, range: Range<u64>) -> Result<(), WriteError> {
        let store = self.frames();
        let bytes = self.object_bytes(&range).map_err(|error| self.sync_refused(&range, error))?;
        match (&store.writes, store.this.upgrade()) {
            // What is private is nobody's to keep.
            _ if !store.object.keeps_changes => Ok(()),
            (Some(writes), Some(store)) => store.sync(writes, bytes),
            _ => Ok(()),
        }
    }

    fn sync_refused(&self, range: &Range<u64>, error: AccessError) -> WriteError {
        let kind = match error {
            AccessError::Detached => ErrorKind::Detached,
            _ => ErrorKind::Truncated,
        };
        let error = SupplyError::because(kind, error);
        WriteError::new(&self.frames().object.name, WriteStep::Sync, range.clone(), &error)
    }

    /// Drops the changes in `range` that were not written back, by whole pages, and takes note of lost bytes there.
    /// Returns how many pages had changes. Nothing else ever drops changes of an object in use.
    ///
    /// Of an object that is written in place some may have been written back meanwhile: those stay. Of an object that
    /// is committed to ([`Writing::Atomic`](crate::Writing::Atomic)) everything goes back to the last commit, its length
    /// too, or nothing: `range` must be all of it, anything less is `Denied`. Blocks while pages are pinned or being
    /// written, as long as the object's time-out says; `Timeout` means that nothing has changed.
    pub fn discard(&self, range: Range<u64>) -> Result<u64, AccessError> {
        let pages = self.pages(&range)?;
        let writes = self.writes()?;
        match self.frames().this.upgrade() {
            Some(store) => Ok(store.discard(writes, pages)?),
            None => Ok(0),
        }
    }
}
