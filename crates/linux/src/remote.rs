//! A guest's side: a view of frames that another process owns.
//!
//! ```text
//!   the owner lives      missing page, page not shown, store to a protected page: the faulting thread sleeps until
//!                        the owner has done something about it
//!   the owner is gone    nobody would wake it. So the whole range is replaced by one that traps, and sleepers are woken
//! ```
//!
//! The userfaultfd stays open on this side as long as the range exists. With its last descriptor all registrations
//! go, and loads of pages that are not there would read zeros.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::area::{GuestAccess, Writes};
use crate::frame_file::FrameFile;
use crate::region::{Purpose, Region, SMALL};
use crate::signal;
use crate::uffd::{Announce, Userfaultfd};
use crate::volatile::SharedWords;

/// A range of addresses that shows the frames of another process.
#[derive(Debug)]
pub struct RemoteView {
    // Dropped before the userfaultfd.
    region: Region,
    uffd: Userfaultfd,
    /// A file without a byte, of which every page traps.
    nothing: FrameFile,
    access: GuestAccess,
}

impl RemoteView {
    /// Maps the first `bytes` bytes of `frames`, at the address `start` if there is one, as [`Region::at`] does. Nothing
    /// may be touched before the owner has registered the range.
    ///
    /// InvalidData: the file is shorter.
    pub fn new(frames: &OwnedFd, bytes: u64, access: GuestAccess, start: Option<usize>) -> io::Result<Self> {
        let len = rustix::fs::fstat(frames)?.st_size;
        if u64::try_from(len).is_ok_and(|len| len < bytes)
            || bytes == 0
            || !bytes.is_multiple_of(SMALL as u64)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file of frames that is too short"));
        }
        let uffd = Userfaultfd::open(Announce::Queued)?;
        let nothing = FrameFile::new("nothing", 0)?;
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let region = match start {
            Some(start) => Region::at(start, bytes, Purpose::Reserve)?,
            None => Region::new(bytes, Purpose::Reserve)?,
        };
        // SAFETY: the region is new; nobody holds references into it.
        unsafe {
            match access {
                // The owner has opened it for reading.
                GuestAccess::Load => region.map_file_to_read(frames)?,
                GuestAccess::LoadAndCopy => region.map_file_to_copy(frames)?,
                GuestAccess::Store => region.map_file(frames, Writes::Yes)?,
            }
        }
        Ok(Self { region, uffd, nothing, access })
    }

    /// The address of the first byte.
    pub fn start(&self) -> usize {
        self.region.start()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty()
    }

    /// The userfaultfd, for the owner.
    pub fn faults(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }

    /// Lets a range, which lies inside or is refused, trap no longer: the next access faults.
    pub fn lift_poison(&self, start: u64, len: u64) -> io::Result<()> {
        let end = start.checked_add(len).filter(|end| *end <= self.region.len() as u64);
        if end.is_none() || !start.is_multiple_of(SMALL as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: no references into the range are ever given out; the frames are the file's, and stay there.
        unsafe { self.region.zap(start as usize, (len as usize).next_multiple_of(SMALL)) }
    }

    /// Makes every address trap (SIGBUS) from now on, and wakes those who sleep on a fault, who trap too.
    pub fn trap_all(&self) {
        // SAFETY: no references into the range are ever given out; what is mapped there is somebody else's to keep.
        let trapping = unsafe { self.region.map_nothing(&self.nothing) };
        if trapping.is_err() {
            // Want of memory for one mapping. Then accesses are violations (SIGSEGV) instead.
            // SAFETY: as above.
            let _ = unsafe { self.region.forbid() };
        }
        self.uffd.wake(self.region.start(), self.region.len());
    }

    /// Copies the bytes from `offset` on, inside the range, by plain loads that fault like anybody's. A trap ends the
    /// copy: the error is the offset that trapped.
    pub fn load(&self, offset: u64, buffer: &mut [u8]) -> Result<(), u64> {
        assert!(offset.checked_add(buffer.len() as u64).is_some_and(|end| end <= self.region.len() as u64));
        // SAFETY: the range is mapped as long as `self`.
        let copied = unsafe { signal::copy_trapping(buffer, self.region.pointer(offset as usize)) };
        if copied == buffer.len() { Ok(()) } else { Err(offset + copied as u64) }
    }

    /// Copies `bytes` to `offset`, inside the range, by plain stores, which end as loads do. `self` can be stored to.
    pub fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), u64> {
        assert!(offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.region.len() as u64));
        assert!(self.access != GuestAccess::Load);
        // SAFETY: the range is mapped writable as long as `self`, and nobody has references into it: the owner keeps
        // pins for writing out while it has guests that store, and what it pins for reading is protected.
        let copied = unsafe { signal::store_trapping(self.region.pointer(offset as usize), bytes) };
        if copied == bytes.len() { Ok(()) } else { Err(offset + copied as u64) }
    }

    /// The address of byte `offset`, which lies inside, or one past the end.
    pub fn pointer(&self, offset: u64) -> *const u8 {
        self.region.pointer(offset as usize)
    }

    /// The first `words` words, for loads and stores by atomic steps; `None` if they are not to be stored to, or not
    /// there.
    pub fn shared_words(&self, words: u64) -> Option<SharedWords<'_>> {
        if self.access == GuestAccess::Load
            || words.checked_mul(8).is_none_or(|len| len > self.region.len() as u64)
        {
            return None;
        }
        // SAFETY: the region is page aligned, at least so long, and mapped writable as long as `self`; references are
        // as in `store`.
        Some(unsafe { SharedWords::new(self.region.pointer(0).cast(), words) })
    }
}
