//! A page table with a cache that is as stale as hardware may be.

use memobj_core::address::VirtAddr;
use memobj_core::prot::{Access, Prot};
use memobj_vm::fault::{FrameNumber, Mmu};
use std::collections::BTreeMap;

const PAGE: u64 = 4096;

type Entries = BTreeMap<u64, (FrameNumber, Prot)>;

/// Translations of one space. Once used they are cached, and used from the cache until they are flushed.
#[derive(Clone, Debug, Default)]
pub struct SoftMmu {
    table: Entries,
    cache: Entries,
}

impl SoftMmu {
    /// The frame that `access` to `address` reaches; `None` is a fault.
    pub fn translate(&mut self, address: u64, access: Access) -> Option<FrameNumber> {
        let page = address / PAGE;
        let entry = match self.cache.get(&page) {
            Some(cached) => *cached,
            None => *self.table.get(&page)?,
        };
        let allowed = entry.1.allows(access);
        if allowed {
            self.cache.insert(page, entry);
        }
        allowed.then_some(entry.0)
    }
}

fn remove(entries: &mut Entries, start: VirtAddr, length: u64) {
    let (first, end) = (start.0 / PAGE, (start.0 + length) / PAGE);
    let gone: Vec<u64> = entries.range(first..end).map(|(&page, _)| page).collect();
    for page in gone {
        entries.remove(&page);
    }
}

impl Mmu for SoftMmu {
    fn map(&mut self, page: VirtAddr, frame: FrameNumber, prot: Prot) {
        self.table.insert(page.0 / PAGE, (frame, prot));
    }

    fn unmap(&mut self, start: VirtAddr, length: u64) {
        remove(&mut self.table, start, length);
    }

    fn flush(&mut self, start: VirtAddr, length: u64) {
        remove(&mut self.cache, start, length);
    }
}
