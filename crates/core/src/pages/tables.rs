//! What pages cost beside their frames: words and page tables, for each block that has a page.
//!
//! A block of 2 MiB whose pages are all absent needs neither. So its words and its page table are given back, once a
//! cache has too many such tables. The words' memory reads as zeros then: the pages are absent, and what reclaim
//! remembered of them is forgotten.
//!
//! ```text
//!   claim, hold:     count the page, unless the block is being given back
//!   page is free:    uncount it. Free is absent, and not pinned.
//!   give back:       all that are counted are ours, Evicting -> LEAVING -> the host drops frames and page tables, and
//!                    when nothing is counted any more the words -> neither TABLED nor LEAVING
//! ```
//!
//! Nobody changes the word of a free page but by counting it first. So while a block is LEAVING nobody changes its words.

use core::ops::Deref;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::blocks::GROUP;

/// Pages that are not free.
const COUNT: u32 = 0xfff;
/// The block may have words and page tables.
const TABLED: u32 = 1 << 12;
/// They are being given back.
const LEAVING: u32 = 1 << 13;
/// How often they were given back, modulo 2^18.
const EPOCH_ONE: u32 = 1 << 14;

/// Bytes that are counted for the tables of one block: its words, and one page table.
pub const TABLE_BYTES: u64 = 8192;

/// Counts the tables of all objects of a cache. A target: who needs a table gets it, and has others given back.
#[derive(Debug)]
pub struct Tables {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl Tables {
    /// None yet; more than `limit_bytes` are too many.
    pub const fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, used_bytes: AtomicU64::new(0) }
    }

    /// Bytes of tables.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether some should be given back.
    pub fn are_too_many(&self) -> bool {
        self.used_bytes() > self.limit_bytes
    }

    fn add(&self) {
        self.used_bytes.fetch_add(TABLE_BYTES, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, blocks: u64) {
        self.used_bytes.fetch_sub(blocks * TABLE_BYTES, Ordering::Relaxed);
    }
}

/// One entry for each block, and a count of tabled ones for each group of blocks.
#[derive(Debug)]
pub(super) struct Occupied<Counts> {
    blocks: Counts,
    groups: Counts,
}

impl<Counts: Deref<Target = [AtomicU32]>> Occupied<Counts> {
    pub(super) fn new(blocks: Counts, groups: Counts) -> Self {
        Self { blocks, groups }
    }

    /// Counts one page more. `false`: not now, the block is being given back.
    pub(super) fn enter(&self, block: u64, tables: &Tables) -> bool {
        let next = |entry: u32| (entry & LEAVING == 0).then_some((entry | TABLED) + 1);
        let entered = self.blocks[block as usize].fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if entered.is_ok_and(|before| before & TABLED == 0) {
            self.groups[(block / GROUP) as usize].fetch_add(1, Ordering::Relaxed);
            tables.add();
        }
        entered.is_ok()
    }

    /// Counts one page less.
    pub(super) fn exit(&self, block: u64) {
        let before = self.blocks[block as usize].fetch_sub(1, Ordering::AcqRel);
        assert!(before & COUNT > 0, "block {block} counts a page too few: {before:#x}");
    }

    /// Keeps everybody out of `block`, if it has tables and counts just `count` pages. `false`: it does not.
    pub(super) fn shut(&self, block: u64, count: u32) -> bool {
        let shut = |now: u32| {
            let is_so = now & (COUNT | TABLED | LEAVING) == TABLED | count;
            is_so.then(|| (now | LEAVING).wrapping_add(EPOCH_ONE))
        };
        self.blocks[block as usize].fetch_update(Ordering::AcqRel, Ordering::Acquire, shut).is_ok()
    }

    /// Lets everybody into `block` again, which is shut. It has no tables any more, if `tables` are given to uncount them.
    pub(super) fn open(&self, block: u64, tables: Option<&Tables>) {
        let Some(tables) = tables else {
            self.blocks[block as usize].fetch_and(!LEAVING, Ordering::AcqRel);
            return;
        };
        self.blocks[block as usize].fetch_and(!(TABLED | LEAVING), Ordering::AcqRel);
        self.groups[(block / GROUP) as usize].fetch_sub(1, Ordering::Relaxed);
        tables.subtract(1);
    }

    /// How many pages of `block` are not free.
    pub(super) fn count(&self, block: u64) -> u32 {
        self.blocks[block as usize].load(Ordering::Acquire) & COUNT
    }

    /// Whether `block` may have words that are not zero. Memory of others is better not looked at: it would be taken.
    #[inline]
    pub(super) fn has_tables(&self, block: u64) -> bool {
        self.blocks[block as usize].load(Ordering::Acquire) & TABLED != 0
    }

    /// Changes whenever the words of `block` have been given back.
    pub(super) fn epoch(&self, block: u64) -> u32 {
        self.blocks[block as usize].load(Ordering::Acquire) / EPOCH_ONE
    }

    /// The first block from `from` on that has tables.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        let mut block = from;
        while (block as usize) < self.blocks.len() {
            if block.is_multiple_of(GROUP)
                && self.groups[(block / GROUP) as usize].load(Ordering::Relaxed) == 0
            {
                block += GROUP;
                continue;
            }
            if self.blocks[block as usize].load(Ordering::Relaxed) & TABLED != 0 {
                return Some(block);
            }
            block += 1;
        }
        None
    }

    /// How many blocks have tables.
    pub(super) fn total(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.load(Ordering::Relaxed))).sum()
    }
}
