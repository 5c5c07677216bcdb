//! In which order the pages of one object are used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use memobj_core::address::PageRange;
use memobj_sys::area::Area;
use memobj_sys::region::ZeroedTable;

use super::ObjectCore;
use crate::options::Advice;
use crate::streams::Streams;

/// What was said when the object was opened holds.
const ADVICE_AS_OPENED: u8 = 0;
const ADVICE_RANDOM: u8 = 1;
const ADVICE_SEQUENTIAL: u8 = 2;
const ADVICE_NORMAL: u8 = 3;

fn advice_code(advice: Advice) -> u8 {
    match advice {
        Advice::Random => ADVICE_RANDOM,
        Advice::Sequential => ADVICE_SEQUENTIAL,
        Advice::Normal | Advice::WillNeed | Advice::DontNeed => ADVICE_NORMAL,
    }
}

/// What the caller said of the pages, and what the misses say. Mappings write the first; doors and pins, which have the
/// misses, ask.
#[derive(Debug)]
pub(crate) struct Pattern {
    area: Arc<Area>,
    object: Arc<ObjectCore>,
    /// One byte for each 2 MiB: what the caller said of it.
    said: ZeroedTable<AtomicU8>,
    streams: Streams,
}

impl Pattern {
    pub(crate) fn new(area: &Arc<Area>, object: &Arc<ObjectCore>) -> io::Result<Self> {
        let said = ZeroedTable::new((area.capacity() >> 21) as usize + 1)?;
        Ok(Self { area: Arc::clone(area), object: Arc::clone(object), said, streams: Streams::default() })
    }

    pub(crate) fn advise(&self, pages: PageRange, advice: Advice) {
        let code = advice_code(advice);
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
        let said = self.said.get(block as usize).map(|entry| entry.load(Ordering::Relaxed));
        let said = said.filter(|code| *code != ADVICE_AS_OPENED);
        match said.or(Some(advice_code(self.object.options.advice))) {
            Some(ADVICE_RANDOM) => false,
            Some(ADVICE_SEQUENTIAL) => true,
            _ => self.streams.note(pages),
        }
    }
}
