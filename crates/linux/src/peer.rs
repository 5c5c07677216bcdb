//! The kernel's own file mappings, as the peer in benchmarks.
//!
//! Nothing in the library uses this module. It exists because the benchmark may not contain unsafe code, and
//! a file mapping is unsafe to construct: another process may change the file. Here that is harmless, since
//! no reference into the mapping is handed out (except inside [`MemmapView`], see there); all access is by
//! volatile loads of one word, or, where the mapping is writable, by atomic loads and stores of one.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, MsyncFlags, ProtFlags};

/// Bytes of the unit in which residency is counted.
const PAGE_BYTES: usize = 4096;

/// What the kernel is told about the coming accesses. Each one only changes speed, never contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapAdvice {
    /// `MADV_NORMAL`: the kernel's own read-ahead.
    Normal,
    /// `MADV_RANDOM`: no read-ahead. Fault-around stays on; only the `fault_around_bytes` debug knob turns it
    /// off.
    Random,
    /// `MADV_SEQUENTIAL`: longer read-ahead, and pages behind are dropped sooner.
    Sequential,
    /// `MADV_WILLNEED`: start reading now, do not wait.
    WillNeed,
    /// `MADV_POPULATE_READ`: read and map now, and wait.
    PopulateRead,
    /// `MADV_DONTNEED`: take the pages out of the page table. They stay in the kernel's page cache.
    Unmap,
}

impl MapAdvice {
    fn to_rustix(self) -> Advice {
        match self {
            Self::Normal => Advice::Normal,
            Self::Random => Advice::Random,
            Self::Sequential => Advice::Sequential,
            Self::WillNeed => Advice::WillNeed,
            Self::PopulateRead => Advice::LinuxPopulateRead,
            Self::Unmap => Advice::LinuxDontNeed,
        }
    }
}

/// A whole file mapped shared and read-only. Unmapped on drop.
///
/// A load past the end of a file that has been truncated meanwhile raises SIGBUS, as for every file mapping.
#[derive(Debug)]
pub struct FileView {
    base: NonNull<c_void>,
    len_bytes: usize,
    /// The largest offset at which eight bytes can be loaded; kept so that a load has one comparison.
    last_load: usize,
}

// SAFETY: the mapping belongs to the process, not to the thread that made it, and `FileView` is the only
// owner.
unsafe impl Send for FileView {}
// SAFETY: shared use is volatile loads and madvise with advice that does not change contents; both are
// thread-safe, and the mapping goes away only in `drop`, which has exclusive access.
unsafe impl Sync for FileView {}

impl FileView {
    /// Maps all of `file`, which must hold eight bytes or more.
    pub fn map(file: &File) -> io::Result<Self> {
        Self::map_for(file, ProtFlags::READ)
    }

    fn map_for(file: &File, protection: ProtFlags) -> io::Result<Self> {
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let len_bytes = usize::try_from(file.metadata()?.len()).map_err(too_long)?;
        let last_load = len_bytes.checked_sub(8).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the address is chosen by the kernel (null hint, no MAP_FIXED), so no existing memory is
        // replaced.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len_bytes, protection, MapFlags::SHARED, file, 0)?
        };
        let base = NonNull::new(base).ok_or(io::ErrorKind::Other)?;
        Ok(Self { base, len_bytes, last_load })
    }

    /// The length at the time of mapping.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes as u64
    }

    /// Gives `advice` for the bytes in `range`, which starts at a page boundary.
    pub fn advise(&self, range: Range<u64>, advice: MapAdvice) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len_bytes(), "advise outside the mapping");
        let len_bytes = (range.end - range.start) as usize;
        // SAFETY: the start lies inside the mapping (asserted), which `self` owns; every `MapAdvice` leaves the bytes
        // of a shared file mapping as they are, `Unmap` included, because the page cache still has them.
        unsafe {
            let start = self.base.as_ptr().byte_add(range.start as usize);
            rustix::mm::madvise(start, len_bytes, advice.to_rustix())?;
        }
        Ok(())
    }

    /// Loads the eight bytes at `offset_bytes`, a multiple of eight, as the machine holds them. May fault.
    #[inline]
    pub fn load_u64(&self, offset_bytes: u64) -> u64 {
        let offset = offset_bytes as usize;
        assert!(offset <= self.last_load, "load outside the mapping");
        assert!(offset.is_multiple_of(8), "load must be aligned");
        // SAFETY: the eight bytes lie inside the mapping and are aligned (asserted above; the base is
        // page-aligned). The load is volatile, so a concurrent change of the file yields some value, never
        // undefined behaviour.
        unsafe { self.base.as_ptr().byte_add(offset).cast::<u64>().read_volatile() }
    }

    /// The wrapping sum of every `step_words`-th of the words in `words`, counted from the start of the file. The
    /// bounds are checked once, as a scan with a raw pointer would. May fault.
    pub fn sum_u64(&self, words: Range<u64>, step_words: u64) -> u64 {
        assert!(words.start <= words.end && words.end <= self.len_bytes() / 8, "sum outside the mapping");
        // SAFETY: all words of the range lie inside the mapping (asserted), which `self` keeps; the base is
        // page-aligned.
        unsafe { crate::volatile::sum_words(self.base.as_ptr().cast(), words, step_words) }
    }

    /// How many pages of the file are in the kernel's page cache now.
    pub fn resident_pages(&self) -> io::Result<u64> {
        let mut states = vec![0_u8; self.len_bytes.div_ceil(PAGE_BYTES)];
        // SAFETY: the range is the whole mapping, owned by `self`; `states` has one byte for each of its
        // pages.
        let result = unsafe { libc::mincore(self.base.as_ptr(), self.len_bytes, states.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(states.iter().filter(|state| **state & 1 != 0).count() as u64)
    }
}

impl Drop for FileView {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping made in `map_for`; no pointer into it outlives `self`,
        // since none is handed out.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr(), self.len_bytes) };
        debug_assert!(result.is_ok(), "munmap of an owned mapping failed");
    }
}

/// A whole file mapped shared, for loads and stores. Unmapped on drop.
///
/// Stores reach the file whenever the kernel likes, and for certain in [`WritableFileView::sync`].
#[derive(Debug)]
pub struct WritableFileView {
    /// Never hands out a load of its own: all access to a writable mapping is atomic.
    view: FileView,
}

impl WritableFileView {
    /// Maps all of `file`, which must be open for reading and writing and hold eight bytes or more.
    pub fn map(file: &File) -> io::Result<Self> {
        Ok(Self { view: FileView::map_for(file, ProtFlags::READ | ProtFlags::WRITE)? })
    }

    /// The length at the time of mapping.
    pub fn len_bytes(&self) -> u64 {
        self.view.len_bytes()
    }

    /// Gives `advice` for the bytes in `range`, which starts at a page boundary.
    pub fn advise(&self, range: Range<u64>, advice: MapAdvice) -> io::Result<()> {
        self.view.advise(range, advice)
    }

    /// Loads the eight bytes at `offset_bytes`, a multiple of eight, as the machine holds them. May fault.
    #[inline]
    pub fn load_u64(&self, offset_bytes: u64) -> u64 {
        self.word(offset_bytes).load(Ordering::Relaxed)
    }

    /// Stores the eight bytes at `offset_bytes`, a multiple of eight. May fault.
    #[inline]
    pub fn store_u64(&self, offset_bytes: u64, value: u64) {
        self.word(offset_bytes).store(value, Ordering::Relaxed);
    }

    /// Stores `bytes` at `offset_bytes`, both multiples of eight, word by word. May fault.
    pub fn store_bytes(&self, offset_bytes: u64, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        assert!(rest.is_empty(), "stores are of whole words");
        for (index, word) in words.iter().enumerate() {
            self.store_u64(offset_bytes + 8 * index as u64, u64::from_ne_bytes(*word));
        }
    }

    /// Writes all dirty pages of the mapping to the file and waits until they are durable (`MS_SYNC`).
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the range is the whole mapping, owned by `view`; writing it back changes no byte of it.
        unsafe { rustix::mm::msync(self.view.base.as_ptr(), self.view.len_bytes, MsyncFlags::SYNC)? };
        Ok(())
    }

    #[inline]
    fn word(&self, offset_bytes: u64) -> &AtomicU64 {
        let offset = offset_bytes as usize;
        assert!(offset <= self.view.last_load, "access outside the mapping");
        assert!(offset.is_multiple_of(8), "access must be aligned");
        // SAFETY: the eight bytes lie inside the mapping and are aligned (asserted; the base is page-aligned); they
        // stay mapped, readable and writable, as long as `view`, from which the reference borrows; and this type,
        // which owns the mapping, reaches them by atomics only.
        unsafe { AtomicU64::from_ptr(self.view.base.as_ptr().byte_add(offset).cast()) }
    }
}

/// The same file mapped by the `memmap2` crate.
#[cfg(feature = "peer")]
#[derive(Debug)]
pub struct MemmapView {
    map: memmap2::Mmap,
    /// As in [`FileView`], so that both loads cost the same.
    last_load: usize,
}

#[cfg(feature = "peer")]
impl MemmapView {
    /// Maps all of `file`, which must hold eight bytes or more.
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: memmap2 asks that nobody changes the file while it is mapped. `MemmapView` hands out no
        // slice; its loads below are volatile, so a change yields some value and the slice contents are never
        // assumed stable.
        let map = unsafe { memmap2::Mmap::map(file)? };
        let last_load = map.len().checked_sub(8).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { map, last_load })
    }

    /// The length at the time of mapping.
    pub fn len_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Gives `advice` for the bytes in `range`. `Unmap` is not supported, since memmap2 cannot know that it
    /// is harmless.
    pub fn advise(&self, range: Range<u64>, advice: MapAdvice) -> io::Result<()> {
        let advice = match advice {
            MapAdvice::Normal => memmap2::Advice::Normal,
            MapAdvice::Random => memmap2::Advice::Random,
            MapAdvice::Sequential => memmap2::Advice::Sequential,
            MapAdvice::WillNeed => memmap2::Advice::WillNeed,
            MapAdvice::PopulateRead => memmap2::Advice::PopulateRead,
            MapAdvice::Unmap => return Err(io::ErrorKind::Unsupported.into()),
        };
        assert!(range.start <= range.end && range.end <= self.len_bytes(), "advise outside the mapping");
        self.map.advise_range(advice, range.start as usize, (range.end - range.start) as usize)
    }

    /// Loads the eight bytes at `offset_bytes`, a multiple of eight, as the machine holds them. May fault.
    #[inline]
    pub fn load_u64(&self, offset_bytes: u64) -> u64 {
        let offset = offset_bytes as usize;
        assert!(offset <= self.last_load, "load outside the mapping");
        assert!(offset.is_multiple_of(8), "load must be aligned");
        // SAFETY: the eight bytes lie inside the mapping (asserted); memmap2 maps at a page boundary and the
        // offset is a multiple of eight (asserted), so the pointer is aligned.
        unsafe { self.map.as_ptr().add(offset).cast::<u64>().read_volatile() }
    }

    /// The wrapping sum of every `step_words`-th of the words in `words`, counted from the start of the file. The
    /// bounds are checked once, as a scan with a raw pointer would. May fault.
    pub fn sum_u64(&self, words: Range<u64>, step_words: u64) -> u64 {
        assert!(words.start <= words.end && words.end <= self.len_bytes() / 8, "sum outside the mapping");
        // SAFETY: all words of the range lie inside the mapping (asserted), which `self` keeps; the base is
        // page-aligned.
        unsafe { crate::volatile::sum_words(self.map.as_ptr().cast(), words, step_words) }
    }
}
