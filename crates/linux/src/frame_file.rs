//! Files whose pages are frames: shared between mappings, and between processes that are given the descriptor.
//!
//! Whoever is to load only is given a descriptor opened for reading (`FrameFile::for_reading`): it can neither write,
//! punch holes nor truncate. The mode of the file is 0400, so that another user cannot open it for writing by
//! /proc/PID/fd either. Root can, and so can processes of the owner's user, who could trace the owner as well. The length
//! of a memory file is sealed, so that nobody can make its mappings trap by cutting it off. (A seal against writes would
//! refuse holes, which is how pages are evicted.)

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fchmod, fcntl_add_seals, fcntl_get_seals,
    fstat, ftruncate, memfd_create,
};

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
        let descriptor = memfd_create(name.as_c_str(), MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        quietly(|| ftruncate(&descriptor, len))?;
        // An object that grows has been given all of the room that it can grow to.
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        fchmod(&descriptor, Mode::RUSR)?;
        Ok(Self { descriptor, len })
    }

    /// The file of `len` bytes that another process has made by [`new`](Self::new). InvalidData: it is none.
    pub(crate) fn inherit(descriptor: OwnedFd, len: u64) -> io::Result<Self> {
        let is_sealed = fcntl_get_seals(&descriptor).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if !is_sealed || u64::try_from(fstat(&descriptor)?.st_size) != Ok(len) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file that holds no such frames"));
        }
        Ok(Self { descriptor, len })
    }

    /// An empty frame file of at least `len` bytes with 2 MiB frames, the last of which is whole.
    ///
    /// A write to any part of such a frame makes all of it, and what was not written is zero.
    pub fn new_large(folder: &HugeFolder, len: u64) -> io::Result<Self> {
        let len = len.checked_next_multiple_of(LARGE as u64).ok_or(io::ErrorKind::OutOfMemory)?;
        let descriptor = folder.file()?;
        quietly(|| ftruncate(&descriptor, len))?;
        fchmod(&descriptor, Mode::RUSR)?;
        Ok(Self { descriptor, len })
    }

    /// The same file through a description that can only be read, for others. Needs /proc.
    ///
    /// EACCES: this process has changed its user since the file was made.
    pub(crate) fn for_reading(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The same file through the description of the owner, for those who may store.
    pub(crate) fn for_writing(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
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

    /// The parts of `range` that have frames, in order.
    pub(crate) fn frames_in(&self, range: std::ops::Range<u64>) -> io::Result<Vec<std::ops::Range<u64>>> {
        use rustix::fs::{SeekFrom, seek};
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let start = match seek(&self.descriptor, SeekFrom::Data(at)) {
                Ok(start) if start < range.end => start,
                // No data from there on.
                Ok(_) | Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = seek(&self.descriptor, SeekFrom::Hole(start))?.min(range.end);
            found.push(start..end);
            at = end;
        }
        Ok(found)
    }

    /// Whether all of `range` has frames.
    pub(crate) fn is_whole(&self, range: std::ops::Range<u64>) -> bool {
        let hole = rustix::fs::seek(&self.descriptor, rustix::fs::SeekFrom::Hole(range.start));
        hole.is_ok_and(|hole| hole >= range.end)
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
