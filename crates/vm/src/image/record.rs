//! What a caller is told about an image: one record for each segment.

use crate::image::AddressRange;
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RecordKind {
    /// Bytes of the file, or zeros.
    Plain,
    /// Bytes that nobody may access.
    Padding,
    /// The same as [`Plain`](Self::Plain), and the ELF header is at `address + offset`.
    ElfHeader,
}

/// One segment of an image, as mmapobj(2) tells it.
///
/// Bytes of the file are at `[address + offset, + file_bytes)`, zeros behind them up to `address + memory_bytes`.
/// What is mapped beyond that, up to the end of the last page, is not the caller's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ImageRecord {
    /// The first address, that of a page.
    pub address: VirtAddr,
    /// Bytes from there to the end of the segment; not rounded.
    pub memory_bytes: u64,
    /// Bytes that come from the file.
    pub file_bytes: u64,
    /// Where the segment's own bytes begin: bytes from `address` on, less than a page.
    pub offset: u64,
    /// What the bytes may be used for.
    pub prot: Prot,
    /// What the record is about.
    pub kind: RecordKind,
}

impl ImageRecord {
    /// The whole pages of the segment. `page_bytes` is that of the plan; the end saturates for records of no plan.
    pub const fn pages(&self, page_bytes: u64) -> AddressRange {
        let end = match self.address.0.saturating_add(self.memory_bytes).checked_next_multiple_of(page_bytes)
        {
            Some(end) => end,
            None => u64::MAX,
        };
        AddressRange { start: self.address.0, end }
    }
}
