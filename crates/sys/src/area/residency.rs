//! How many pages are resident in each block, so that the reclaim hand passes over empty stretches quickly.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::region::ZeroedTable;

const GROUP: u64 = 1024;

#[derive(Debug)]
pub(super) struct Residency {
    blocks: ZeroedTable<AtomicU32>,
    groups: ZeroedTable<AtomicU32>,
}

impl Residency {
    pub(super) fn new(blocks: usize) -> io::Result<Self> {
        Ok(Self {
            blocks: ZeroedTable::new(blocks)?,
            groups: ZeroedTable::new(blocks.div_ceil(GROUP as usize))?,
        })
    }

    pub(super) fn add(&self, block: u64, pages: u32) {
        self.blocks[block as usize].fetch_add(pages, Ordering::Relaxed);
        self.groups[(block / GROUP) as usize].fetch_add(pages, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, block: u64, pages: u32) {
        self.blocks[block as usize].fetch_sub(pages, Ordering::Relaxed);
        self.groups[(block / GROUP) as usize].fetch_sub(pages, Ordering::Relaxed);
    }

    pub(super) fn next(&self, from: u64) -> Option<u64> {
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
