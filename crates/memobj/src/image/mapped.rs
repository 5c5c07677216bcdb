//! An image in memory.

use std::fmt;
use std::io;

use memobj_core::address::VirtAddr;
use memobj_linux::image::ImageMemory;
use memobj_vm::image::ImageRecord;

/// The segments of an image in this process. They are unmapped on drop, unless [`leak`](Self::leak)ed.
///
/// Whoever uses the addresses keeps the guard: memobj hands out no references into them.
///
/// # Soundness
///
/// Addresses are numbers; using one takes `unsafe`. [`read_at`](Self::read_at) has the kernel copy, which refuses what is
/// not mapped. Only what this guard has mapped is ever unmapped by it.
pub struct MappedImage {
    memory: ImageMemory,
    records: Vec<ImageRecord>,
}

impl fmt::Debug for MappedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedImage").field("segments", &self.records.len()).finish_non_exhaustive()
    }
}

impl MappedImage {
    pub(super) fn new(memory: ImageMemory, records: Vec<ImageRecord>) -> Self {
        Self { memory, records }
    }

    /// One record for each segment, with its addresses in this process.
    pub fn records(&self) -> &[ImageRecord] {
        &self.records
    }

    /// Copies what is at `address`, wherever that is in this process, to `buffer`. Never traps.
    ///
    /// # Errors
    ///
    /// EFAULT where nobody may read, or the file has ended.
    pub fn read_at(&self, address: VirtAddr, buffer: &mut [u8]) -> io::Result<()> {
        memobj_linux::image::copy_from(address.0 as usize, buffer)
    }

    /// Unmaps the segment of record `index` and removes the record.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there is no such record; what munmap(2) says, and then it is still mapped.
    pub fn unmap_segment(&mut self, index: usize) -> io::Result<()> {
        let record = self.records.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        let pages = record.pages(4096);
        self.memory.release(pages.start as usize..pages.end as usize)?;
        self.records.remove(index);
        Ok(())
    }

    /// Leaves everything mapped for the rest of the process's life, or until munmap(2).
    pub fn leak(self) -> Vec<ImageRecord> {
        self.memory.leak();
        self.records
    }
}
