//! Owned mappings: address ranges, zeroed tables, and chunks of memory for I/O.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memobj_core::pages::Writes;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munlock, munmap};

/// Bytes of a 2 MiB frame.
pub const LARGE: usize = 2 << 20;
/// Bytes of the base page.
pub const SMALL: usize = 4096;

/// What a new region is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Address space only; nothing may be accessed.
    Reserve,
    /// Readable, filled through userfaultfd; 4 KiB frames.
    Small,
    /// Readable and writable, filled through userfaultfd or by the engine alone; 4 KiB frames.
    Writable,
    /// Filled by moving 2 MiB frames in, for which the kernel demands a writable mapping.
    Large,
    /// Ordinary zeroed memory of the engine.
    Data,
}

/// An anonymous mapping, unmapped on drop. Children of fork do not inherit it unless it is [`Purpose::Data`].
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a Region is an address range; what may be done with its bytes is up to the types built on it.
unsafe impl Send for Region {}
// SAFETY: as above; no method gives access to bytes.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes (rounded up to 4 KiB), aligned to 2 MiB when `purpose` is an object's pages.
    pub fn new(len: usize, purpose: Purpose) -> io::Result<Self> {
        let len = rounded(len)?;
        let align = if purpose == Purpose::Data && len < LARGE { SMALL } else { LARGE };
        let padded = len.checked_add(align - SMALL).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without MAP_FIXED the kernel chooses unused addresses; nothing of ours is replaced.
        let raw = unsafe { mmap_anonymous(std::ptr::null_mut(), padded, protection_of(purpose), flags) }?;
        let region = Self::trimmed(raw.cast(), padded, len, align)?;
        region.unlock();
        region.prepare(purpose)?;
        Ok(region)
    }

    /// As [`new`](Self::new), but at the address `start`: a multiple of 2 MiB, and not zero. What is mapped there stays.
    ///
    /// `AlreadyExists`: something is mapped in the range. `InvalidInput`: no region begins there.
    pub fn at(start: usize, len: usize, purpose: Purpose) -> io::Result<Self> {
        let len = rounded(len)?;
        if start == 0 || !start.is_multiple_of(LARGE) || start.checked_add(len).is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: MAP_FIXED_NOREPLACE (Linux 4.17) maps unused addresses or fails; nothing is replaced. The pointer is
        // an address for the kernel only.
        let raw = unsafe { mmap_anonymous(start as *mut _, len, protection_of(purpose), flags) }?;
        let pointer = NonNull::new(raw.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        let region = Self { start: pointer, len };
        region.unlock();
        region.prepare(purpose)?;
        Ok(region)
    }

    fn trimmed(raw: *mut u8, padded: usize, len: usize, align: usize) -> io::Result<Self> {
        let start = (raw as usize).next_multiple_of(align);
        let head = start - raw as usize;
        let tail = padded - head - len;
        // SAFETY: head and tail are parts of the mapping made just now that nobody uses.
        unsafe {
            if head > 0 {
                munmap(raw.cast(), head)?;
            }
            if tail > 0 {
                munmap(raw.add(head + len).cast(), tail)?;
            }
            Ok(Self { start: NonNull::new_unchecked(raw.add(head)), len })
        }
    }

    /// A process that locks all its memory (mlockall) must not lock this: the kernel would fill it with zeros at
    /// once, before anybody could register it, and would never give a frame back.
    fn unlock(&self) {
        // SAFETY: changes no byte and no protection of this region's own range.
        let _ = unsafe { munlock(self.start.as_ptr().cast(), self.len) };
    }

    fn prepare(&self, purpose: Purpose) -> io::Result<()> {
        let (protection, huge) = match purpose {
            Purpose::Reserve | Purpose::Data => return Ok(()),
            Purpose::Small => (ProtFlags::READ, Advice::LinuxNoHugepage),
            Purpose::Writable => (rw(), Advice::LinuxNoHugepage),
            Purpose::Large => (rw(), Advice::LinuxHugepage),
        };
        // SAFETY: the range is this region's own, and nobody holds references into it yet.
        unsafe {
            // Advice about huge pages is refused by kernels built without them; then all frames are small.
            let _ = madvise(self.start.as_ptr().cast(), self.len, huge);
            madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontFork)?;
            mprotect_all(self, protection)
        }
    }

    /// Maps `file` from its start over this whole region, shared; writable, if its pages are to be written.
    ///
    /// # Safety
    ///
    /// Nobody may hold references into the region.
    pub(crate) unsafe fn map_file(&self, file: &impl std::os::fd::AsFd, writes: Writes) -> io::Result<()> {
        let protection = match writes {
            Writes::No => ProtFlags::READ,
            Writes::Yes => rw(),
        };
        // SAFETY: the contract of this function.
        unsafe { self.map_as(file, MapFlags::SHARED, protection) }
    }

    /// Maps `file`, which need only be open for reading, from its start over this whole region, to be read. Stores of
    /// others are seen; a page of which this process made a copy, by storing to it, is its own.
    ///
    /// (A shared mapping of a file that is open for reading cannot be registered with a userfaultfd.)
    ///
    /// # Safety
    ///
    /// Nobody may hold references into the region.
    pub(crate) unsafe fn map_file_to_read(&self, file: &impl std::os::fd::AsFd) -> io::Result<()> {
        // SAFETY: the contract of this function.
        unsafe { self.map_as(file, MapFlags::PRIVATE, ProtFlags::READ) }
    }

    /// As [`map_file_to_read`](Self::map_file_to_read), to be stored to: by copies of this process's own.
    ///
    /// # Safety
    ///
    /// Nobody may hold references into the region.
    pub(crate) unsafe fn map_file_to_copy(&self, file: &impl std::os::fd::AsFd) -> io::Result<()> {
        // SAFETY: the contract of this function.
        unsafe { self.map_as(file, MapFlags::PRIVATE, rw()) }
    }

    /// # Safety
    ///
    /// Nobody may hold references into the region.
    unsafe fn map_as(
        &self,
        file: &impl std::os::fd::AsFd,
        sharing: MapFlags,
        protection: ProtFlags,
    ) -> io::Result<()> {
        // SAFETY: MAP_FIXED replaces only this region's own pages, to which the caller knows no references.
        unsafe {
            mmap(
                self.start.as_ptr().cast(),
                self.len,
                ProtFlags::empty(),
                sharing | MapFlags::FIXED | MapFlags::NORESERVE,
                file,
                0,
            )?;
            self.unlock();
            // khugepaged would drop the entries of 2 MiB frames, and with them what a view was told to show.
            let _ = madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxNoHugepage);
            madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontFork)?;
            mprotect_all(self, protection)?;
        }
        Ok(())
    }

    /// Maps the bytes of `file` from `start` on over this whole region, shared, as memory of the engine.
    ///
    /// # Safety
    ///
    /// Nobody may hold references into the region.
    pub(crate) unsafe fn map_data(&self, file: &impl std::os::fd::AsFd, start: u64) -> io::Result<()> {
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: MAP_FIXED replaces only this region's own pages, to which the caller knows no references.
        unsafe {
            mmap(self.start.as_ptr().cast(), self.len, rw(), flags, file, start)?;
            madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontFork)?;
        }
        Ok(())
    }

    /// Replaces this whole region by one of `nothing`, a file without a byte, in one step: every access traps.
    ///
    /// # Safety
    ///
    /// Nobody may hold references into the region.
    pub(crate) unsafe fn map_nothing(&self, nothing: &impl std::os::fd::AsFd) -> io::Result<()> {
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: MAP_FIXED replaces only this region's own pages, to which the caller knows no references.
        unsafe {
            mmap(self.start.as_ptr().cast(), self.len, rw(), flags, nothing, 0)?;
            madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontFork)?;
        }
        Ok(())
    }

    /// Forbids every access.
    ///
    /// # Safety
    ///
    /// Nobody may hold references into the region.
    pub(crate) unsafe fn forbid(&self) -> io::Result<()> {
        // SAFETY: the contract of this function.
        unsafe { mprotect_all(self, ProtFlags::empty()) }
    }

    /// The first address.
    #[inline]
    pub fn start(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// A pointer to byte `offset`, which must lie inside.
    #[inline]
    pub(crate) fn pointer(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len, "offset {offset} in a region of {} bytes", self.len);
        // SAFETY: the offset is inside the mapping or one past its end.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: an empty region cannot be made.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops the frames of `[offset, offset + len)`; private memory reads as missing or zero afterwards.
    ///
    /// # Safety
    ///
    /// Nobody may hold references into the range.
    pub(crate) unsafe fn zap(&self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset + len <= self.len);
        // SAFETY: inside this mapping; the caller knows of no references.
        unsafe { drop_frames(self.pointer(offset), len) }
    }
}

/// Gives the frames of a private range back, locked or not.
///
/// # Safety
///
/// The range is mapped and nobody holds references into it.
pub(crate) unsafe fn drop_frames(start: *mut u8, len: usize) -> io::Result<()> {
    // MADV_DONTNEED refuses ranges that a process has locked after they were made (Linux 5.18).
    const MADV_DONTNEED_LOCKED: i32 = 24;
    // SAFETY: the caller's contract.
    let answer = unsafe { libc::madvise(start.cast(), len, MADV_DONTNEED_LOCKED) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes, in whole pages.
fn rounded(len: usize) -> io::Result<usize> {
    Ok(len.checked_next_multiple_of(SMALL).filter(|&len| len > 0).ok_or(io::ErrorKind::OutOfMemory)?)
}

/// What a region is mapped with, before it is prepared.
fn protection_of(purpose: Purpose) -> ProtFlags {
    if purpose == Purpose::Data { rw() } else { ProtFlags::empty() }
}

fn rw() -> ProtFlags {
    ProtFlags::READ | ProtFlags::WRITE
}

/// # Safety
///
/// Nobody may hold references into the region.
unsafe fn mprotect_all(region: &Region, protection: ProtFlags) -> io::Result<()> {
    // SAFETY: the region's own range; contract of this function.
    unsafe { mprotect(region.start.as_ptr().cast(), region.len, protection_flags(protection))? };
    Ok(())
}

fn protection_flags(protection: ProtFlags) -> rustix::mm::MprotectFlags {
    rustix::mm::MprotectFlags::from_bits_retain(protection.bits())
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own; types that hand out references keep it alive meanwhile.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Equal chunks of page-aligned memory for reads, given out and taken back without locks.
#[derive(Debug)]
pub struct ChunkPool {
    region: Region,
    chunk: usize,
    taken: Box<[AtomicU64]>,
    count: usize,
}

/// One chunk, owned until dropped.
#[derive(Debug)]
pub struct Chunk {
    pool: Arc<ChunkPool>,
    index: usize,
}

impl ChunkPool {
    /// `count` chunks of `chunk` bytes, a multiple of 4 KiB.
    pub fn new(count: usize, chunk: usize) -> io::Result<Arc<Self>> {
        assert!(count > 0 && chunk > 0 && chunk.is_multiple_of(SMALL));
        let region = Region::new(count * chunk, Purpose::Data)?;
        let taken = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Arc::new(Self { region, chunk, taken, count }))
    }

    /// A chunk, or `None` while all are taken. Never blocks, never allocates.
    pub fn take(self: &Arc<Self>) -> Option<Chunk> {
        let index = take_bit(&self.taken, self.count)?;
        Some(Chunk { pool: Arc::clone(self), index })
    }

    /// Whether nobody has a chunk at this moment.
    pub fn is_free(&self) -> bool {
        self.taken.iter().all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// Bytes of each chunk.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk
    }
}

/// Sets the first clear bit among `count` and returns its index.
pub(crate) fn take_bit(words: &[AtomicU64], count: usize) -> Option<usize> {
    for (index, word) in words.iter().enumerate() {
        let mut seen = word.load(Ordering::Relaxed);
        while seen != u64::MAX {
            let bit = seen.trailing_ones() as usize;
            if index * 64 + bit >= count {
                return None;
            }
            match word.compare_exchange_weak(seen, seen | 1 << bit, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(index * 64 + bit),
                Err(now) => seen = now,
            }
        }
    }
    None
}

/// Clears a bit that was taken.
pub(crate) fn give_bit(words: &[AtomicU64], index: usize) {
    let before = words[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Release);
    debug_assert!(before & (1 << (index % 64)) != 0, "bit {index} given back twice");
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let pool = &self.pool;
        // SAFETY: the chunk lies inside the region, which the Arc keeps; its bit makes this value its only owner.
        unsafe { std::slice::from_raw_parts(pool.region.pointer(self.index * pool.chunk), pool.chunk) }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        let pool = &self.pool;
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(pool.region.pointer(self.index * pool.chunk), pool.chunk) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        give_bit(&self.pool.taken, self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_distinct_and_come_back() {
        let pool = ChunkPool::new(70, SMALL).unwrap();
        let mut chunks: Vec<_> = (0..70).map(|_| pool.take().unwrap()).collect();
        assert!(pool.take().is_none());
        for (index, chunk) in chunks.iter_mut().enumerate() {
            chunk.fill(index as u8);
        }
        assert!(
            chunks.iter().enumerate().all(|(index, chunk)| chunk.iter().all(|&byte| byte == index as u8))
        );
        chunks.remove(65);
        let again = pool.take();
        assert!(again.is_some() && pool.take().is_none());
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(Region::new(usize::MAX, Purpose::Reserve).is_err());
        assert!(Region::new(0, Purpose::Reserve).is_err());
        assert!(crate::zeroed_table::ZeroedTable::<AtomicU64>::new(usize::MAX / 4).is_err());
    }
}
