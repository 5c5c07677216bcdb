//! What a contestant must be able to do.

use std::ops::Range;
use std::path::Path;

use crate::job::Failure;

/// Someone who keeps the pages of a plain file. Opened and populated outside the measured phase.
///
/// All methods may be called from several threads at once, for different pages.
pub trait Storage: Sync + Sized {
    /// What the contestant is told besides the budget: advice for a mapping of the kernel's, the delivery of faults
    /// for one of ours.
    type Setup;

    /// Opens the file at `path` for loads and stores, with `budget_bytes` of memory for its pages where the
    /// contestant bounds itself.
    fn open(path: &Path, budget_bytes: u64, setup: Self::Setup) -> Result<Self, Failure>;

    /// Brings the bytes in `range` into memory, mapped where there is a mapping, and waits.
    fn populate(&self, range: Range<u64>) -> Result<(), Failure>;

    /// Adds one to a word, by a load and a store, and returns what it was. Blocks as a fault does.
    fn add_one(&self, word_index: u64) -> Result<u64, Failure>;

    /// Stores `bytes`, whole pages at a page boundary. They need not be durable when it returns.
    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Failure>;

    /// Makes everything stored before the call durable, in any order.
    fn sync(&self) -> Result<(), Failure>;

    /// Makes everything that this thread stored since its last commit durable; all or nothing, where the contestant
    /// promises it.
    fn commit(&self) -> Result<(), Failure>;

    /// The most memory held in frames, where the contestant counts it.
    fn peak_frame_bytes(&self) -> Option<u64> {
        None
    }
}

/// One page of a transaction.
pub struct PageWrite<'a> {
    /// Which page.
    pub page: u64,
    /// Its new bytes.
    pub bytes: &'a [u8],
}

/// Someone who makes transactions durable.
pub trait Committer: Sync {
    /// Replaces the pages and returns when they are durable. May be called from several threads at once, for
    /// different pages; then it waits for its turn if it must.
    fn commit(&self, pages: &[PageWrite<'_>]) -> Result<(), Failure>;

    /// The most memory held in frames, where the contestant counts it.
    fn peak_frame_bytes(&self) -> Option<u64> {
        None
    }
}

impl<S: Storage> Committer for S {
    fn commit(&self, pages: &[PageWrite<'_>]) -> Result<(), Failure> {
        for write in pages {
            self.write_at(write.page * crate::data::PAGE_BYTES, write.bytes)?;
        }
        Storage::commit(self)
    }

    fn peak_frame_bytes(&self) -> Option<u64> {
        Storage::peak_frame_bytes(self)
    }
}
