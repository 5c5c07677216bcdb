//! Files whose pages are frames: shared between mappings, and between processes that are given the descriptor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

/// A memory file with 4 KiB frames; page i of the object is page i of the file.
#[derive(Debug)]
pub struct FrameFile {
    descriptor: OwnedFd,
    len: u64,
}

impl FrameFile {
    /// An empty (all holes) frame file of `len` bytes.
    pub fn new(name: &str, len: u64) -> io::Result<Self> {
        let clean: String = name.chars().filter(|c| *c != '\0').take(100).collect();
        let name = CString::new(format!("memobj:{clean}")).map_err(|_| io::ErrorKind::InvalidInput)?;
        let descriptor = memfd_create(name.as_c_str(), MemfdFlags::CLOEXEC)?;
        ftruncate(&descriptor, len)?;
        Ok(Self { descriptor, len })
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the 4 KiB at `offset` have a frame.
    pub(crate) fn has_frame(&self, offset: u64) -> bool {
        rustix::fs::seek(&self.descriptor, rustix::fs::SeekFrom::Data(offset))
            .is_ok_and(|found| found == offset)
    }

    /// Gives the frames of `[offset, offset + len)` back; every mapping of them misses from then on.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(fallocate(&self.descriptor, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
    }
}

impl AsFd for FrameFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
