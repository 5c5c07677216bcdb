//! Counts of pages for each block of 2 MiB, so that empty stretches are passed over quickly.

use core::ops::Deref;
use core::sync::atomic::{AtomicU32, Ordering};

/// Blocks that share a counter of the second level.
pub(super) const GROUP: u64 = 1024;

/// Two levels of counters, for blocks and for groups of them.
#[derive(Clone, Debug)]
pub struct Blocks<Counts> {
    blocks: Counts,
    groups: Counts,
}

/// Counters of the second level that `blocks` blocks need.
pub const fn groups_of(blocks: usize) -> usize {
    blocks.div_ceil(GROUP as usize)
}

impl<Counts: Deref<Target = [AtomicU32]>> Blocks<Counts> {
    /// Counters for as many blocks as `blocks` has; `groups` has [`groups_of`] that many.
    pub fn new(blocks: Counts, groups: Counts) -> Self {
        assert!(groups.len() >= groups_of(blocks.len()));
        Self { blocks, groups }
    }

    pub(super) fn add(&self, block: u64, pages: u32) {
        self.blocks[block as usize].fetch_add(pages, Ordering::Relaxed);
        self.groups[(block / GROUP) as usize].fetch_add(pages, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, block: u64, pages: u32) {
        self.blocks[block as usize].fetch_sub(pages, Ordering::Relaxed);
        self.groups[(block / GROUP) as usize].fetch_sub(pages, Ordering::Relaxed);
    }

    /// The first block from `from` on whose count is not zero.
    pub fn next(&self, from: u64) -> Option<u64> {
        let mut block = from;
        while (block as usize) < self.blocks.len() {
            if block.is_multiple_of(GROUP)
                && self.groups[(block / GROUP) as usize].load(Ordering::Relaxed) == 0
            {
                block += GROUP;
                continue;
            }
            if self.blocks[block as usize].load(Ordering::Relaxed) != 0 {
                return Some(block);
            }
            block += 1;
        }
        None
    }

    pub(super) fn total(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.load(Ordering::Relaxed))).sum()
    }
}
