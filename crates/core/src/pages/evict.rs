//! Taking frames back, one block at a time.

use super::{Held, Host, Pages};
use crate::address::{PageIndex, PageRange};
use crate::page_word::{State, Transition, Word};
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
    /// None of the block that begins with page `first`, or of the rest of it from there on.
    pub(super) const fn none(first: u64) -> Self {
        Self { first, bits: [0; 8] }
    }

    fn count(&self) -> u32 {
        self.bits.iter().map(|bits| bits.count_ones()).sum()
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = PageIndex> + '_ {
        let in_part = move |part: usize| {
            let first = self.first + part as u64 * 64;
            (0..64)
                .filter(move |bit| self.bits[part] & (1 << bit) != 0)
                .map(move |bit| PageIndex(first + bit))
        };
        (0..self.bits.len()).filter(|part| self.bits[*part] != 0).flat_map(in_part)
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

    /// Evicts pages of `block`, and gives its tables back if none is left; says whether it has. Never allocates; waits for
    /// nobody.
    ///
    /// If all can go, that is one call of the host for frames and tables.
    pub fn empty_block(&self, block: u64, now: u8, victims: Victims) -> (Evicted, bool) {
        let pages = self.block_range(block);
        let wanted = self.wanted(pages, now, victims);
        if wanted.count() == self.occupied.count(block) && self.host.longest_drop() > 1 {
            return self.empty_at_once(block, &wanted, now);
        }
        (self.evict_wanted(pages, &wanted, now), self.give_back_tables(block))
    }

    /// Gives the tables of `block` back, if all its pages are absent and nobody pins one; says whether it has. Never
    /// allocates; waits for nobody.
    pub fn give_back_tables(&self, block: u64) -> bool {
        self.empty_at_once(block, &Marks::none(self.block_range(block).start), 0).1
    }

    /// Drops the frames of `wanted`, if these are all pages of `block` that are not free, and the tables.
    fn empty_at_once(&self, block: u64, wanted: &Marks, now: u8) -> (Evicted, bool) {
        let pages = self.block_range(block);
        let evict = |page: &PageIndex| self.advance(*page, Transition::Evict).is_ok();
        let mut victims = Marks::none(pages.start);
        wanted.iter().filter(evict).for_each(|page| victims.set(page.0));
        let is_shut = self.occupied.shut(block, victims.count());
        let dropped = is_shut && self.host.drop_block(Held::new(), pages);
        for page in victims.iter() {
            let transition = if dropped { Transition::Evicted { stamp: now } } else { Transition::Spare };
            self.settle(page, transition);
        }
        if dropped {
            self.host.forget_words(Held::new(), &self.words, pages);
        }
        if is_shut {
            self.occupied.open(block, dropped.then_some(&*self.tables));
        }
        let evicted =
            if dropped { self.uncount(block, u64::from(victims.count())) } else { Evicted::default() };
        (evicted, dropped)
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
        self.evict_wanted(pages, &self.wanted(pages, now, victims), now)
    }

    /// Evicts those of `pages` that are `wanted`, if they may go still.
    fn evict_wanted(&self, pages: PageRange, wanted: &Marks, now: u8) -> Evicted {
        let longest = self.host.longest_drop();
        let Some(PageIndex(last)) = wanted.iter().next_back() else { return Evicted::default() };
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

    /// Those of `pages`, which lie in one block, that are to go.
    fn wanted(&self, pages: PageRange, now: u8, victims: Victims) -> Marks {
        let mut wanted = Marks::none(pages.start);
        // Where few pages are not free, most of the words need not be looked at.
        let not_free = self.occupied.count(self.block_of(pages.start)) as usize;
        let words = pages.iter().map(|page| (page, self.word(page))).filter(|(_, word)| !word.is_free());
        let is_wanted = |(page, word): &(PageIndex, Word)| self.is_wanted(*page, *word, now, victims);
        words.take(not_free).filter(is_wanted).for_each(|(page, _)| wanted.set(page.0));
        wanted
    }

    fn is_wanted(&self, page: PageIndex, word: Word, now: u8, victims: Victims) -> bool {
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
        let evicted = self.uncount(self.block_of(run.pages.start), count);
        run.sum.pages += evicted.pages;
        run.sum.released += evicted.released;
    }

    /// Counts `pages` of `block` as gone.
    fn uncount(&self, block: u64, pages: u64) -> Evicted {
        let released = self.host.released_bytes(pages);
        if pages > 0 {
            self.resident.subtract(block, pages as u32);
            self.budget.release(released);
        }
        Evicted { pages, released }
    }
}
