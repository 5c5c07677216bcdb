//! Taking frames back, one block at a time.

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::page_word::{State, Transition};
use memobj_core::reclaim::{Choice, choose};

use super::Area;

/// What [`Area::evict_block`] took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Evicted {
    /// Pages that are Absent now.
    pub pages: u64,
    /// Bytes that went back to the budget. Large local frames go to the pool, not to the budget.
    pub released: u64,
}

/// Who is asked which pages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victims {
    /// Those that the reclaim choice gives up.
    Chosen,
    /// All that are Clean and not pinned.
    All,
}

/// Which pages of a block are being evicted, as opposed to held off.
#[derive(Default)]
struct Marks([u64; 8]);

impl Marks {
    fn set(&mut self, index: u64) {
        self.0[(index / 64) as usize] |= 1 << (index % 64);
    }

    fn get(&self, index: u64) -> bool {
        self.0[(index / 64) as usize] & (1 << (index % 64)) != 0
    }
}

impl Area {
    /// Evicts pages of `block`, `now` being the tick of the cache's clock. Never allocates; waits for nobody.
    ///
    /// Absent pages between two victims are held off while the run is zapped with one system call: a page filled
    /// in between would be zapped unseen, and its reader would fault for ever.
    pub fn evict_block(&self, block: u64, now: u8, victims: Victims) -> Evicted {
        self.evict_range(self.block_range(block), now, victims)
    }

    /// Evicts all pages of `pages` that are Clean and not pinned.
    pub fn evict_all(&self, pages: PageRange, now: u8) -> Evicted {
        let mut sum = Evicted::default();
        let mut from = self.block_of(pages.start);
        while let Some(block) = self.residency.next(from) {
            let range = self.block_range(block);
            let part = PageRange { start: range.start.max(pages.start), end: range.end.min(pages.end) };
            if part.start >= part.end {
                break;
            }
            let evicted = self.evict_range(part, now, Victims::All);
            sum.pages += evicted.pages;
            sum.released += evicted.released;
            from = block + 1;
        }
        sum
    }

    fn evict_range(&self, pages: PageRange, now: u8, victims: Victims) -> Evicted {
        if self.pool.is_some() {
            return self.evict_large(pages, now, victims);
        }
        let mut marks = Marks::default();
        let mut sum = Evicted::default();
        let mut run = PageRange { start: pages.start, end: pages.start };
        for page in pages.iter() {
            if self.take_victim(page, now, victims) {
                marks.set(page.0 - pages.start);
                run.end = page.0 + 1;
            } else if run.is_empty() || self.advance(page, Transition::Hold).is_err() {
                self.zap_run(run, page.0, pages.start, &marks, now, &mut sum);
                run = PageRange { start: page.0 + 1, end: page.0 + 1 };
            }
        }
        self.zap_run(run, pages.end, pages.start, &marks, now, &mut sum);
        sum
    }

    fn take_victim(&self, page: PageIndex, now: u8, victims: Victims) -> bool {
        let word = self.word(page);
        if word.state() != State::Clean || word.pins() > 0 {
            return false;
        }
        match (victims, choose(word, now)) {
            (Victims::All, _) | (_, Choice::Evict) => self.advance(page, Transition::Evict).is_ok(),
            (Victims::Chosen, Choice::Keep { heat }) => {
                if heat != word.heat() {
                    let _ = self.advance(page, Transition::SetHeat { heat });
                }
                false
            }
        }
    }

    /// Zaps `run`, whose pages and those held off behind it up to `held_end` are all Evicting, and lets them go.
    fn zap_run(&self, run: PageRange, held_end: u64, base: u64, marks: &Marks, now: u8, sum: &mut Evicted) {
        if run.is_empty() {
            return;
        }
        let zapped = self.zap_frames(run);
        let mut count = 0;
        for page in (PageRange { start: run.start, end: held_end }).iter() {
            let transition = match (marks.get(page.0 - base), zapped) {
                (true, true) => Transition::Evicted { stamp: now },
                (true, false) => Transition::Spare,
                (false, _) => Transition::Release,
            };
            count += u64::from(transition == Transition::Evicted { stamp: now });
            let done = self.advance(page, transition);
            debug_assert!(done.is_ok(), "page {page} left Evicting under its owner: {done:?}");
        }
        if count > 0 {
            self.residency.subtract(self.block_of(run.start), count as u32);
            let released = count << self.page_size.shift();
            self.budget.release(released);
            sum.pages += count;
            sum.released += released;
        }
    }

    pub(super) fn zap_frames(&self, run: PageRange) -> bool {
        let start = self.offset_in_view(run.start);
        let len = (run.len() as usize) << self.page_size.shift();
        match &self.frame_file {
            Some(file) => file.punch(start as u64, len as u64).is_ok(),
            // SAFETY: every page of the run is Evicting and ours, so none is pinned: no references exist.
            None => unsafe { self.views[0].region.zap(start, len).is_ok() },
        }
    }

    fn evict_large(&self, pages: PageRange, now: u8, victims: Victims) -> Evicted {
        let mut sum = Evicted::default();
        for page in pages.iter() {
            if !self.take_victim(page, now, victims) {
                continue;
            }
            let moved = self.move_out(page);
            let transition = if moved { Transition::Evicted { stamp: now } } else { Transition::Spare };
            if moved {
                self.residency.subtract(self.block_of(page.0), 1);
                sum.pages += 1;
            }
            let _ = self.advance(page, transition);
        }
        sum
    }

    fn move_out(&self, page: PageIndex) -> bool {
        let Some(pool) = &self.pool else { return false };
        let (start, len) = (self.offset_in_view(page.0), self.mapped_bytes(page));
        let region = &self.views[0].region;
        if len < self.page_size.bytes() as usize {
            // The last page was copied in; its small frames go to the kernel, and one large frame's worth with them.
            // SAFETY: the page is Evicting and ours: no references exist.
            let zapped = unsafe { region.zap(start, len).is_ok() };
            if zapped {
                pool.forget(1);
            }
            return zapped;
        }
        // SAFETY: as above.
        unsafe { pool.move_out(region.start() + start).is_ok() }
    }
}
