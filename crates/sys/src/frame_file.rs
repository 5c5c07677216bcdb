//! Files whose pages are frames: shared between mappings, and between processes that are given the descriptor.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

use crate::huge_folder::HugeFolder;
use crate::quiet::quietly;
use crate::region::LARGE;

/// What the kernel takes as the name of a memory file is 249 bytes long at most.
const MOST_NAME_BYTES: usize = 240;

/// `name` without what a name cannot have, and cut off in front where it is too long: files are known by their ends.
fn short(name: &str) -> String {
    let clean: String = name.chars().filter(|c| *c != '\0').collect();
    let start = clean.len().saturating_sub(MOST_NAME_BYTES);
    let start = (start..=clean.len()).find(|at| clean.is_char_boundary(*at)).unwrap_or(0);
    clean[start..].to_string()
}

/// A memory file with frames of 4 KiB or 2 MiB; page i of the object is page i of the file.
#[derive(Debug)]
pub struct FrameFile {
    descriptor: OwnedFd,
    len: u64,
}

impl FrameFile {
    /// An empty (all holes) frame file of `len` bytes.
    pub fn new(name: &str, len: u64) -> io::Result<Self> {
        let name =
            CString::new(format!("memobj:{}", short(name))).map_err(|_| io::ErrorKind::InvalidInput)?;
        let descriptor = memfd_create(name.as_c_str(), MemfdFlags::CLOEXEC)?;
        quietly(|| ftruncate(&descriptor, len))?;
        Ok(Self { descriptor, len })
    }

    /// An empty frame file of at least `len` bytes with 2 MiB frames, the last of which is whole.
    ///
    /// A write to any part of such a frame makes all of it, and what was not written is zero.
    pub fn new_large(folder: &HugeFolder, len: u64) -> io::Result<Self> {
        let len = len.checked_next_multiple_of(LARGE as u64).ok_or(io::ErrorKind::OutOfMemory)?;
        let descriptor = folder.file()?;
        quietly(|| ftruncate(&descriptor, len))?;
        Ok(Self { descriptor, len })
    }

    /// Writes `bytes` to the 2 MiB frame at `offset`, which the caller owns and no mapping shows yet. What is left
    /// of the frame is zero. On error the frame is given back: nothing may ever show a part of the bytes.
    pub(crate) fn fill_large(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(offset.is_multiple_of(LARGE as u64) && bytes.len() <= LARGE);
        // One call: each call could allocate, and so fail, by itself.
        let written = quietly(|| rustix::io::pwrite(&self.descriptor, bytes, offset));
        if written.is_ok_and(|count| count == bytes.len()) {
            return Ok(());
        }
        self.punch(offset, LARGE as u64)?;
        Err(written.map_or_else(io::Error::from, |_| io::ErrorKind::WriteZero.into()))
    }

    /// Whether 2 MiB frames are really one huge page, found by making one and giving it back. The file is empty.
    pub(crate) fn frames_are_huge(&self) -> io::Result<bool> {
        self.fill_large(0, &[1])?;
        let blocks = rustix::fs::fstat(&self.descriptor)?.st_blocks;
        self.punch(0, LARGE as u64)?;
        Ok(blocks as u64 * 512 >= LARGE as u64)
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

#[cfg(all(test, target_arch = "x86_64"))]
impl FrameFile {
    pub(crate) fn pwrite_for_test(&self, offset: u64, bytes: &[u8]) {
        assert_eq!(rustix::io::pwrite(&self.descriptor, bytes, offset).unwrap(), bytes.len());
    }
}

impl AsFd for FrameFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
