//! Tables of atomics that cost memory only where they were touched; and files for those that outlive their process.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use memobj_core::page_word::PageWord;
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, SeekFrom, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create, seek,
};

use crate::quiet::quietly;
use crate::region::{Purpose, Region, SMALL};

/// Types for which all zero bits are a valid value that may be shared between threads.
///
/// # Safety
///
/// The implementor promises exactly that, that the type needs no drop, and that its default is zero.
pub unsafe trait Zeroed: Default + Sync + Send {}
// SAFETY: an atomic integer; zero is valid.
unsafe impl Zeroed for AtomicU8 {}
// SAFETY: as above.
unsafe impl Zeroed for AtomicU32 {}
// SAFETY: as above.
unsafe impl Zeroed for AtomicU64 {}
// SAFETY: a transparent atomic integer whose zero is a page that was never resident.
unsafe impl Zeroed for PageWord {}

/// Tables up to this long are on the heap: a mapping takes 4 KiB, and several system calls.
const HEAP_BYTES: usize = SMALL;

/// A table of atomics that costs memory only where it was touched.
#[derive(Debug)]
pub struct ZeroedTable<T>(Memory<T>);

#[derive(Debug)]
enum Memory<T> {
    Heap(Box<[T]>),
    Mapped {
        region: Region,
        len: usize,
        marker: PhantomData<T>,
    },
    /// As `Mapped`, of a part of a file.
    Kept {
        region: Region,
        len: usize,
        file: Arc<KeptTables>,
        start: u64,
    },
}

impl<T: Zeroed> ZeroedTable<T> {
    /// A table of `len` zeroed entries.
    pub fn new(len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        if bytes > HEAP_BYTES {
            let region = Region::new(bytes, Purpose::Data)?;
            return Ok(Self(Memory::Mapped { region, len, marker: PhantomData }));
        }
        let mut entries = Vec::new();
        entries.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        entries.resize_with(len, T::default);
        Ok(Self(Memory::Heap(entries.into_boxed_slice())))
    }

    /// The table of `len` entries that begins at byte `start`, a multiple of 4 KiB, of `file`. Zero at first, and later what
    /// whoever had the file before has left. No other table may overlap it.
    pub fn kept(file: &Arc<KeptTables>, start: u64, len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let end = start.checked_add(bytes as u64).filter(|end| *end <= file.len);
        if bytes == 0 || end.is_none() || !start.is_multiple_of(SMALL as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let region = Region::new(bytes, Purpose::Data)?;
        // SAFETY: the region is new; nobody holds references into it.
        unsafe { region.map_data(&file.descriptor, start)? };
        Ok(Self(Memory::Kept { region, len, file: Arc::clone(file), start }))
    }

    /// Gives the memory of these entries back, as far as they share no 4 KiB with others: they are zero then. Nobody may
    /// rely on what they were.
    pub fn forget(&self, entries: Range<usize>) {
        let (Memory::Mapped { region, len, .. } | Memory::Kept { region, len, .. }) = &self.0 else { return };
        let start = (entries.start * size_of::<T>()).next_multiple_of(SMALL);
        let end = match entries.end >= *len {
            true => region.len(),
            false => entries.end * size_of::<T>() / SMALL * SMALL,
        };
        if start >= end {
            return;
        }
        if let Memory::Kept { file, start: begin, .. } = &self.0 {
            // What is refused leaves them as they are.
            let _ = file.punch(begin + start as u64, (end - start) as u64);
        } else {
            // SAFETY: entries are atomics (`Zeroed`), for which another value that is valid is a store of somebody else's.
            // Refused (by locked memory) it leaves them as they are, which the caller said does not matter.
            let _ = unsafe { region.zap(start, end - start) };
        }
    }
}

impl<T: Zeroed> Deref for ZeroedTable<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Memory::Heap(entries) => entries,
            // SAFETY: the region is readable and writable, at least len entries long and page aligned; zero is a
            // valid T (`Zeroed`), as is whatever another process has left of it (`kept`); only shared references are ever given out.
            Memory::Mapped { region, len, .. } | Memory::Kept { region, len, .. } => unsafe {
                std::slice::from_raw_parts(region.start() as *const T, *len)
            },
        }
    }
}

/// A memory file for tables. Who has its descriptor has what they say, whatever became of the process that wrote it.
#[derive(Debug)]
pub struct KeptTables {
    descriptor: OwnedFd,
    len: u64,
}

impl KeptTables {
    /// A new file of `len` bytes, which are zero.
    pub fn new(len: u64) -> io::Result<Self> {
        let descriptor = memfd_create(c"memobj:tables", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        quietly(|| ftruncate(&descriptor, len))?;
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { descriptor, len })
    }

    /// The file that another process has made by [`new`](Self::new). InvalidData: it is none of so many bytes.
    pub fn open(descriptor: OwnedFd, len: u64) -> io::Result<Self> {
        let is_sealed = fcntl_get_seals(&descriptor).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if !is_sealed || u64::try_from(fstat(&descriptor)?.st_size) != Ok(len) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file that holds no such tables"));
        }
        Ok(Self { descriptor, len })
    }

    /// The parts of `range` that are not all zeros, for all that is known, ascending.
    pub fn used_parts(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let (mut parts, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let start = match seek(&self.descriptor, SeekFrom::Data(at)) {
                Ok(start) if start < range.end => start,
                Ok(_) | Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            at = seek(&self.descriptor, SeekFrom::Hole(start))?.min(range.end);
            parts.push(start..at);
        }
        Ok(parts)
    }

    fn punch(&self, start: u64, len: u64) -> io::Result<()> {
        Ok(fallocate(&self.descriptor, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, len)?)
    }
}

impl AsFd for KeptTables {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn what_one_process_has_left_is_what_the_next_finds() {
        const PAGES: u64 = 3;
        let file = Arc::new(KeptTables::new(PAGES * SMALL as u64).unwrap());
        let table = ZeroedTable::<AtomicU64>::kept(&file, SMALL as u64, 1024).unwrap();
        table[0].store(7, Relaxed);
        table[1023].store(8, Relaxed);
        let descriptor = file.as_fd().try_clone_to_owned().unwrap();
        drop((table, file));
        let file = Arc::new(KeptTables::open(descriptor, PAGES * SMALL as u64).unwrap());
        let used = |file: &KeptTables| {
            let parts = file.used_parts(0..PAGES * SMALL as u64).unwrap();
            parts
                .into_iter()
                .map(|part| (part.start / SMALL as u64, part.end / SMALL as u64))
                .collect::<Vec<_>>()
        };
        assert_eq!(used(&file), [(1, 3)]);
        let table = ZeroedTable::<AtomicU64>::kept(&file, SMALL as u64, 1024).unwrap();
        assert_eq!((table[0].load(Relaxed), table[1023].load(Relaxed)), (7, 8));
        table.forget(512..1024);
        // A look at them takes memory again.
        assert_eq!(used(&file), [(1, 2)]);
        assert_eq!((table[0].load(Relaxed), table[1023].load(Relaxed)), (7, 0));
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let file = Arc::new(KeptTables::new(8192).unwrap());
        let again = || file.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(KeptTables::open(again(), 4096).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let device = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(KeptTables::open(device.into(), 0).unwrap_err().kind(), io::ErrorKind::InvalidData);
        for (start, len) in [(0, 1025), (4096, 513), (1, 1), (0, 0), (u64::MAX - 4095, 1)] {
            assert!(ZeroedTable::<AtomicU64>::kept(&file, start, len).is_err(), "{start} {len}");
        }
    }
}
