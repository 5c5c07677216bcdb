//! Stores, pins for writing, and what makes them last.

use std::fmt;
use std::ops::{Deref, DerefMut, Range, RangeBounds};
use std::sync::Arc;

use memobj_core::address::ByteRange;

use super::{Mapping, SharedWords};
use crate::error::{AccessError, WriteError, WriteStep};
use crate::error::{ErrorKind, SupplyError};
use crate::handles::PartsHandle;
use crate::write::{MutPinned, User, Writes};

/// Bytes of an object that only the holder can pin, copy and write while this lives.
///
/// Dereferences to `&mut [u8]`. Its pages count as changed. They cannot be written back, synced or committed
/// before it is dropped: a sync that meets them waits, and fails with `Timeout` in the end. At most a quarter of the
/// budget can be pinned for writing.
///
/// Of an object that has admitted a guest which may store, the bytes are a copy of the pages, which are pinned for
/// writing all the same; it counts against the budget besides, and is put into the pages when this is dropped. If that
/// fails, an event and the next sync tell.
///
/// # Soundness
///
/// Each page's word holds this pin alone: other pins, copies, write-back and eviction are refused meanwhile. Loads by
/// touch wait, and those that began before have ended. There are no [`SharedWords`] of the object, and no guests that
/// may store; of one that was there before, this is a copy. A guest that only loads sees any mixture of old and new bytes,
/// by loads in assembly from addresses of its own, into which it has no references. Stores through
/// [`Mapping::as_mut_ptr`] take `unsafe`, and are theirs to keep away.
///
/// Its bytes do not outlive it:
///
/// ```compile_fail,E0505
/// # fn leak(mapping: memobj::Mapping) -> Result<(), memobj::AccessError> {
/// let mut pinned = mapping.pin_mut(0..8)?;
/// let bytes: &mut [u8] = &mut pinned;
/// drop(pinned);
/// bytes[0] = 1;
/// # Ok(())
/// # }
/// ```
pub struct PinnedMut {
    pinned: MutPinned,
    /// Keeps users of shared words out. Dropped after the pins, as what is below.
    _user: User,
    /// Keeps the parts registered.
    parts: Arc<PartsHandle>,
}

impl fmt::Debug for PinnedMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedMut").field("len", &self.pinned.bytes.len()).finish_non_exhaustive()
    }
}

impl Drop for PinnedMut {
    fn drop(&mut self) {
        let parts = &self.parts.parts;
        if let Some(writes) = parts.writes.as_ref().filter(|_| parts.owner.is_this_process()) {
            writes.put_back(&mut self.pinned.bytes);
        }
    }
}

impl Deref for PinnedMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pinned.bytes
    }
}

impl DerefMut for PinnedMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.pinned.bytes
    }
}

impl AsRef<[u8]> for PinnedMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for PinnedMut {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Mapping {
    fn writes(&self) -> Result<&Arc<Writes>, AccessError> {
        self.frames().writes.as_ref().ok_or(AccessError::ReadOnly)
    }

    /// Copies `bytes` to `offset`. Every other mapping of the object sees them at once; they reach the pager when
    /// memory is short, or by [`sync`](Self::sync).
    ///
    /// Whole pages are not read first. Blocks while too much is Dirty, and while others pin a page.
    ///
    /// # Errors
    ///
    /// `Pinned` if pins last longer than the object's `pin_timeout`; `Write` if too much is Dirty and cannot be written
    /// back; `Page` if a page of which a part is written cannot be supplied. Bytes before the one that the error names may
    /// have been stored.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), AccessError> {
        let length = bytes.len() as u64;
        let end = offset.checked_add(length).ok_or_else(|| self.past_the_end(offset, length))?;
        let range = self.object_bytes(&(offset..end))?;
        let written = self.writes()?.write_bytes(range.start, bytes);
        written.map_err(|error| self.in_mapping(error))
    }

    /// Pins `range` for writing: no other thread pins, copies, or writes back these pages meanwhile.
    ///
    /// Whole pages are pinned: accesses to the same 4 KiB wait. Blocks until the pages are there and not pinned.
    /// [`touch_at`](Self::touch_at) waits for the pin. Plain loads and stores through [`as_mut_ptr`](Self::as_mut_ptr) do
    /// not wait: code that has an address must keep away from what is pinned.
    ///
    /// # Errors
    ///
    /// `Pinned` if other pins last longer than the object's `pin_timeout`, `InUse` while there are
    /// [`shared_words`](Self::shared_words) of the object, and what [`pin`](Self::pin) answers.
    pub fn pin_mut(&self, range: impl RangeBounds<u64>) -> Result<PinnedMut, AccessError> {
        self.pin_to_write(self.within(range), Writes::pin_mut)
    }

    /// As [`pin_mut`](Self::pin_mut), for bytes that the caller is going to write, all of them: the pager is not asked for
    /// the old ones.
    ///
    /// Whole pages that are absent become zeros, which count as changes; the pager is not called for them. Pages that are
    /// there begin as what they were, and so do pages of which `range` has a part only: these are read if they are absent.
    /// So each byte begins as zero or as what it was; a caller that does not write one cannot know which it leaves. A last
    /// page that the end of the object cuts short is whole if `range` goes to the end.
    ///
    /// Blocks, and fails, as `pin_mut` does. Whole pages that have failed are errors. After an error the bytes are as they
    /// were, unless it is `InUse` because a guest which may store was let in meanwhile: then pages may be zeros.
    pub fn pin_new(&self, range: impl RangeBounds<u64>) -> Result<PinnedMut, AccessError> {
        self.pin_to_write(self.within(range), Writes::pin_new)
    }

    fn pin_to_write(
        &self,
        range: Range<u64>,
        pin: fn(&Writes, ByteRange) -> Result<MutPinned, AccessError>,
    ) -> Result<PinnedMut, AccessError> {
        let bytes = self.object_bytes(&range)?;
        let writes = self.writes()?;
        let user = writes.users.pin_mut().ok_or(AccessError::InUse)?;
        let pinned = pin(writes, bytes).map_err(|error| self.in_mapping(error))?;
        Ok(PinnedMut { pinned, _user: user, parts: Arc::clone(&self.parts) })
    }

    /// The words of the mapping, for atomic loads and stores that fault on demand and trap on failed pages. A length that is no multiple
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
    /// whatever its range. Bytes that the system accepted and then failed to make durable are written again if memory
    /// still has them; those it has no longer are reported by every sync of them until [`discard`](Self::discard).
    /// Of an object that is committed to ([`Writing::Atomic`](crate::Writing::Atomic)) this commits everything.
    pub fn sync(&self, range: impl RangeBounds<u64>) -> Result<(), WriteError> {
        let range = self.within(range);
        let parts = self.frames();
        let bytes = self.object_bytes(&range).map_err(|error| self.sync_refused(&range, error))?;
        // What is private is nobody's to keep.
        match parts.writes.as_ref().filter(|_| parts.object.keeps_changes) {
            Some(writes) => {
                let object = &parts.object;
                object.timed(&object.reporter.counters.syncs, || writes.sync(bytes))
            }
            None => Ok(()),
        }
    }

    fn sync_refused(&self, range: &Range<u64>, error: AccessError) -> WriteError {
        let kind = match error {
            AccessError::Detached => ErrorKind::Detached,
            _ => ErrorKind::Truncated,
        };
        let error = SupplyError::because(kind, error);
        self.frames().object.write_error(WriteStep::Sync, range.clone(), &error)
    }

    /// Drops the changes in `range` that were not written back, by whole pages, and takes note of lost bytes there.
    /// Returns how many pages had changes. Nothing else ever drops changes of an object in use.
    ///
    /// Of an object that is written in place some may have been written back meanwhile: those stay. Of an object that
    /// is committed to ([`Writing::Atomic`](crate::Writing::Atomic)) everything goes back to the last commit, its length
    /// too, or nothing: `range` must be all of it, anything less is `Denied`. Blocks while pages are pinned or being
    /// written, as long as the object's time-out says; `Timeout` means that nothing has changed.
    pub fn discard(&self, range: impl RangeBounds<u64>) -> Result<u64, AccessError> {
        let pages = self.pages(&self.within(range))?;
        Ok(self.writes()?.discard(pages)?)
    }
}
