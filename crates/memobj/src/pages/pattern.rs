//! In which order the pages of one object are used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use memobj_core::address::PageRange;
use memobj_linux::area::Area;
use memobj_linux::zeroed_table::ZeroedTable;

use super::ObjectCore;
use crate::options::Advice;
use crate::sequences::Sequences;

/// What can have been said of a block, by number. First: nothing since the object was opened.
const SAID: [Option<Advice>; 4] =
    [None, Some(Advice::Normal), Some(Advice::Random), Some(Advice::Sequential)];

/// What the caller said of the pages, and what the misses say. Mappings write the first; doors and pins, which have the
/// misses, ask.
#[derive(Debug)]
pub(crate) struct Pattern {
    area: Arc<Area>,
    object: Arc<ObjectCore>,
    /// One byte for each 2 MiB: what the caller said of it.
    said: ZeroedTable<AtomicU8>,
    sequences: Sequences,
}

impl Pattern {
    pub(crate) fn new(area: &Arc<Area>, object: &Arc<ObjectCore>) -> io::Result<Self> {
        let said = ZeroedTable::new((area.capacity() >> 21) as usize + 1)?;
        Ok(Self { area: Arc::clone(area), object: Arc::clone(object), said, sequences: Sequences::default() })
    }

    pub(crate) fn advise(&self, pages: PageRange, advice: Advice) {
        let code = SAID.iter().position(|said| *said == Some(advice)).unwrap_or(0) as u8;
        let shift = self.area.page_size().shift();
        if pages.is_empty() {
            return;
        }
        if pages.start == 0 && pages.end >= self.area.pages() {
            self.object.advise_next(advice);
        }
        for block in (pages.start << shift) >> 21..=((pages.end << shift) - 1) >> 21 {
            if let Some(entry) = self.said.get(block as usize) {
                entry.store(code, Ordering::Relaxed);
            }
        }
    }

    /// Notes a miss and says whether to read ahead of it. Safe in a signal handler.
    pub(crate) fn is_sequential(&self, pages: PageRange) -> bool {
        let block = (pages.start << self.area.page_size().shift()) >> 21;
        let said =
            self.said.get(block as usize).and_then(|said| SAID[usize::from(said.load(Ordering::Relaxed))]);
        match said.unwrap_or(self.object.options.advice) {
            Advice::Random => false,
            Advice::Sequential => true,
            _ => self.sequences.note(pages),
        }
    }
}
