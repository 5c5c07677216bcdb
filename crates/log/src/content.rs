//! What the log knows about the object: which image of which page counts, and how long the object is. The same
//! transitions are made while appending and while recovering.

use alloc::collections::BTreeMap;

use super::format::{BLOCK_BYTES, Mark, NO_CUT, RecordHeader, image_sum};
use super::layout::offset;

const PAGE: u64 = BLOCK_BYTES as u64;

/// Where the log holds the newest bytes of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image {
    pub(super) block: u32,
    pub(super) check: u32,
}

impl Image {
    /// The offset of the image in the log storage, in bytes.
    pub fn offset(self) -> u64 {
        offset(u64::from(self.block))
    }

    /// Whether `bytes`, a whole page, is the image. If not, it was lost, or its place was used again meanwhile.
    pub fn matches(self, bytes: &[u8]) -> bool {
        image_sum(bytes) as u32 == self.check
    }
}

/// Where the newest bytes of a page are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Location {
    /// In the log.
    Log(Image),
    /// In place: the first `length_bytes` bytes (at most 4096, perhaps 0) of the page in the data storage. The
    /// rest of the page is zero, whatever the data storage holds there.
    Data {
        /// How many bytes of the data storage count.
        length_bytes: usize,
    },
}

/// The pages and lengths.
#[derive(Debug)]
pub(super) struct Content {
    /// Newest committed images that are not in place yet.
    pub(super) committed: BTreeMap<u64, Image>,
    /// Newest uncommitted images.
    pub(super) pending: BTreeMap<u64, Image>,
    /// Uncommitted shrinking: committed bytes at or beyond it are gone for readers.
    pub(super) pending_cut: u64,
    /// The length of the object at the last commit.
    pub(super) committed_length: u64,
    /// Bytes of the data storage at or beyond it do not count: they read as zeros.
    pub(super) data_end: u64,
    /// The smallest cut committed since the running checkpoint looked.
    pub(super) cut_since_plan: u64,
}

impl Content {
    /// An object that is in place, `length` bytes long.
    pub(super) fn new(length: u64) -> Self {
        Self {
            committed: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_cut: NO_CUT,
            committed_length: length,
            data_end: length,
            cut_since_plan: NO_CUT,
        }
    }

    /// Applies a record whose header is at `block` of the storage.
    pub(super) fn apply(&mut self, record: &RecordHeader, block: u64) {
        if record.abandons {
            self.abandon();
        }
        cut(&mut self.pending, record.pending_cut);
        self.pending_cut = self.pending_cut.min(record.committed_cut);
        for (at, entry) in (block + 1..).zip(&record.entries) {
            self.pending.insert(entry.page, Image { block: at as u32, check: entry.sum as u32 });
        }
        if let Mark::Commit { length } = record.mark {
            self.commit(length);
        }
    }

    fn commit(&mut self, length: u64) {
        cut(&mut self.committed, self.pending_cut);
        self.data_end = self.data_end.min(self.pending_cut);
        self.cut_since_plan = self.cut_since_plan.min(self.pending_cut);
        self.pending_cut = NO_CUT;
        self.committed_length = length;
        while let Some((page, image)) = self.pending.pop_first() {
            self.committed.insert(page, image);
        }
    }

    /// Drops what is pending. Returns whether there was anything.
    pub(super) fn abandon(&mut self) -> bool {
        let anything = !self.pending.is_empty() || self.pending_cut != NO_CUT;
        self.pending.clear();
        self.pending_cut = NO_CUT;
        anything
    }

    /// Where the newest bytes of `page` are.
    pub(super) fn locate(&self, page: u64) -> Location {
        if let Some(&image) = self.pending.get(&page) {
            return Location::Log(image);
        }
        if page >= self.pending_cut.div_ceil(PAGE) {
            return Location::Data { length_bytes: 0 };
        }
        if let Some(&image) = self.committed.get(&page) {
            return Location::Log(image);
        }
        let left = self.data_end.saturating_sub(page.saturating_mul(PAGE));
        Location::Data { length_bytes: left.min(PAGE) as usize }
    }
}

/// Drops the pages that lie wholly at or beyond `length` bytes.
fn cut(images: &mut BTreeMap<u64, Image>, length: u64) {
    let end = length.div_ceil(PAGE);
    while images.last_key_value().is_some_and(|(&page, _)| page >= end) {
        images.pop_last();
    }
}
