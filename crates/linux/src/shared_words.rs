//! Words in a memory file, shared with processes that have its descriptor: what they say outlives the process that wrote it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::quiet::quietly;

/// Words that are read and written in one step each. Zero at first.
#[derive(Debug)]
pub struct SharedWords {
    file: OwnedFd,
    start: *mut u8,
    count: usize,
}

// SAFETY: the memory is mapped as long as this, and is accessed as atomic words only.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Makes `count` words, in a new memory file. All of it is in memory from the beginning, so that no store to it can fail.
    pub fn new(count: usize) -> io::Result<Self> {
        let length = (count as u64) * 8;
        let file = memfd_create(c"memobj:state", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        quietly(|| ftruncate(&file, length))?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file, count)
    }

    /// The words of a file that another process has made by [`new`](Self::new). InvalidData: it is none of so many words.
    pub fn open(file: OwnedFd, count: usize) -> io::Result<Self> {
        let is_sealed = fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        let length = fstat(&file)?.st_size;
        if !is_sealed || length != (count as i64) * 8 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file that is no shared state"));
        }
        Self::map(file, count)
    }

    fn map(file: OwnedFd, count: usize) -> io::Result<Self> {
        let length = count.checked_mul(8).filter(|length| *length > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), length, prot, flags, &file, 0)? };
        Ok(Self { file, start: start.cast(), count })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "word {index} of {}", self.count);
        // SAFETY: the word lies in the mapping, is aligned, and is accessed as an atomic only; the file cannot be cut off.
        unsafe { AtomicU64::from_ptr(self.start.cast::<u64>().add(index)) }
    }

    /// Word `index`.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    pub fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    /// Sets word `index`.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    pub fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }

    /// Sets bits of word `index`, and returns what it was.
    ///
    /// # Panics
    ///
    /// If there is no such word.
    pub fn set_bits(&self, index: usize, bits: u64) -> u64 {
        self.word(index).fetch_or(bits, Ordering::AcqRel)
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }
}

impl AsFd for SharedWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, of which nobody has a reference any more.
        let _ = unsafe { munmap(self.start.cast(), self.count * 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_writes_another_reads() {
        let words = SharedWords::new(1000).unwrap();
        words.set(999, 7);
        assert_eq!(words.set_bits(0, 0b101), 0);
        let file = words.as_fd().try_clone_to_owned().unwrap();
        let other = SharedWords::open(file, 1000).unwrap();
        drop(words);
        assert_eq!((other.get(999), other.get(0), other.set_bits(0, 2), other.get(0)), (7, 5, 5, 7));
    }

    #[test]
    fn other_files_are_refused() {
        let words = SharedWords::new(10).unwrap();
        let file = || words.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(SharedWords::open(file(), 11).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let unsealed = memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&unsealed, 80).unwrap();
        assert_eq!(SharedWords::open(unsealed, 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
