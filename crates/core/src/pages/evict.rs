//! Taking frames back, one block at a time.

use super::{Held, Host, Pages};
use crate::address::{PageIndex, PageRange};
use crate::page_word::{State, Transition};
use crate::reclaim::{Choice, choose};

/// What [`Pages::evict_block`] took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Evicted {
    /// Pages that are Absent now.
    pub pages: u64,
    /// Bytes that went back to the budget. Frames that are kept for other pages do not.
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

/// A set of pages of one block.
pub(super) struct Marks {
    first: u64,
    bits: [u64; 8],
}

impl Marks {
    /// None yet of those from `first` on.
    pub(super) const fn none(first: u64) -> Self {
        Self { first, bits: [0; 8] }
    }

    pub(super) fn set(&mut self, page: u64) {
        let index = page - self.first;
        self.bits[(index / 64) as usize] |= 1 << (index % 64);
    }

    pub(super) fn has(&self, page: u64) -> bool {
        let index = page - self.first;
        self.bits[(index / 64) as usize] & (1 << (index % 64)) != 0
    }
}

/// Pages of one block that are Evicting: a run of victims, and pages among them that are held off.
struct Run {
    /// From the first victim to the last.
    pages: PageRange,
    victims: Marks,
    sum: Evicted,
}

impl<H: Host> Pages<H> {
    /// Evicts pages of `block`, `now` being the tick of the cache's clock. Never allocates; waits for nobody.
    ///
    /// Absent pages between two victims are held off while the run is dropped with one call: a page filled in between
    /// would be dropped unseen, and its reader would fault for ever.
    pub fn evict_block(&self, block: u64, now: u8, victims: Victims) -> Evicted {
        self.evict_range(self.block_range(block), now, victims)
    }

    /// Evicts all pages of `pages` that are Clean and not pinned.
    pub fn evict_all(&self, pages: PageRange, now: u8) -> Evicted {
        let mut sum = Evicted::default();
        let mut from = self.block_of(pages.start);
        while let Some(block) = self.resident.next(from) {
            let part = self.part_of_block(block, pages);
            if part.is_empty() {
                break;
            }
            let evicted = self.evict_range(part, now, Victims::All);
            sum.pages += evicted.pages;
            sum.released += evicted.released;
            from = block + 1;
        }
        sum
    }

    /// `pages` lie in one block.
    fn evict_range(&self, pages: PageRange, now: u8, victims: Victims) -> Evicted {
        let longest = self.host.longest_drop();
        let mut wanted = Marks::none(pages.start);
        let last = pages.iter().filter(|page| self.is_wanted(*page, now, victims)).fold(None, |_, page| {
            wanted.set(page.0);
            Some(page.0)
        });
        let Some(last) = last else { return Evicted::default() };
        let mut run = Run {
            pages: PageRange { start: pages.start, end: pages.start },
            victims: Marks::none(pages.start),
            sum: Evicted::default(),
        };
        for page in (PageRange { start: pages.start, end: last + 1 }).iter() {
            if wanted.has(page.0) && self.advance(page, Transition::Evict).is_ok() {
                run.victims.set(page.0);
                run.pages.end = page.0 + 1;
                if run.pages.len() < longest {
                    continue;
                }
                self.drop_run(&mut run, page.0 + 1, now);
            } else if !run.pages.is_empty() && self.advance(page, Transition::Hold).is_ok() {
                continue;
            } else {
                self.drop_run(&mut run, page.0, now);
            }
            run.pages = PageRange { start: page.0 + 1, end: page.0 + 1 };
        }
        self.drop_run(&mut run, last + 1, now);
        run.sum
    }

    fn is_wanted(&self, page: PageIndex, now: u8, victims: Victims) -> bool {
        let word = self.word(page);
        if word.state() != State::Clean || word.pins() > 0 {
            return false;
        }
        match (victims, choose(word, now)) {
            (Victims::All, _) | (_, Choice::Evict) => true,
            (Victims::Chosen, Choice::Keep { heat }) => {
                if heat != word.heat() {
                    let _ = self.advance(page, Transition::SetHeat { heat });
                }
                false
            }
        }
    }

    /// Drops the frames of `run`, whose pages and those held off behind it up to `held_end` are all Evicting, and lets
    /// them go.
    fn drop_run(&self, run: &mut Run, held_end: u64, now: u8) {
        if run.pages.is_empty() {
            return;
        }
        let dropped = self.host.drop_frames(Held::new(), run.pages);
        let mut count = 0;
        for page in (PageRange { start: run.pages.start, end: held_end }).iter() {
            let transition = match (run.victims.has(page.0), dropped) {
                (true, true) => Transition::Evicted { stamp: now },
                (true, false) => Transition::Spare,
                (false, _) => Transition::Release,
            };
            count += u64::from(transition == Transition::Evicted { stamp: now });
            self.settle(page, transition);
        }
        if count > 0 {
            self.resident.subtract(self.block_of(run.pages.start), count as u32);
            let released = self.host.released_bytes(count);
            self.budget.release(released);
            run.sum.pages += count;
            run.sum.released += released;
        }
    }
}
