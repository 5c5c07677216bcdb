//! Pages that the pager accepted and has not made durable yet.

use std::sync::atomic::{AtomicU64, Ordering};

use memobj_core::address::PageRange;
use memobj_linux::area::{Kept, Mark};
use memobj_linux::zeroed_table::ZeroedTable;

const BITS: u64 = 64;
/// Words that one bit of the summary stands for: so that an object of terabytes is looked through quickly.
const GROUP: u64 = 64;

/// One bit for each page, and one for each group that has a bit set.
#[derive(Debug)]
pub(crate) struct Unsynced {
    words: ZeroedTable<AtomicU64>,
    summary: ZeroedTable<AtomicU64>,
    /// What was taken and is not durable yet, where a process that follows has to know it.
    taken: Option<ZeroedTable<AtomicU64>>,
}

impl Unsynced {
    pub(crate) fn new(pages: u64) -> std::io::Result<Self> {
        let words = pages.div_ceil(BITS);
        let summary = words.div_ceil(GROUP).div_ceil(BITS);
        let table = |words: u64| ZeroedTable::new(words as usize);
        Ok(Self { words: table(words)?, summary: table(summary)?, taken: None })
    }

    /// In tables that outlive the process. What is marked there was left by another, which has ended.
    pub(crate) fn kept(tables: &Kept) -> std::io::Result<Self> {
        let left = [tables.marked(Mark::Unsynced)?, tables.marked(Mark::Syncing)?];
        let new = Self::new(tables.pages())?;
        let taken = tables.marks(Mark::Syncing)?;
        let kept = Self { words: tables.marks(Mark::Unsynced)?, taken: Some(taken), ..new };
        left.into_iter().flatten().for_each(|run| kept.add(run));
        Ok(kept)
    }

    /// What was taken is durable, or was added again. Nobody takes more meanwhile.
    pub(crate) fn settle(&self, taken: &[PageRange]) {
        let Some(table) = &self.taken else { return };
        for page in taken.iter().flat_map(|run| run.iter()) {
            table[(page.0 / BITS) as usize].fetch_and(!(1 << (page.0 % BITS)), Ordering::Release);
        }
    }

    pub(crate) fn add(&self, pages: PageRange) {
        for page in pages.iter() {
            let word = page.0 / BITS;
            let group = word / GROUP;
            self.words[word as usize].fetch_or(1 << (page.0 % BITS), Ordering::Relaxed);
            self.summary[(group / BITS) as usize].fetch_or(1 << (group % BITS), Ordering::Release);
        }
    }

    /// Takes all pages out. A page that is added meanwhile is either among them or stays.
    pub(crate) fn take(&self) -> Vec<PageRange> {
        let mut pages: Vec<PageRange> = Vec::new();
        for (index, word) in self.summary.iter().enumerate() {
            let mut groups = word.swap(0, Ordering::Acquire);
            while groups != 0 {
                let group = index as u64 * BITS + u64::from(groups.trailing_zeros());
                groups &= groups - 1;
                self.take_group(group, &mut pages);
            }
        }
        pages
    }

    fn take_group(&self, group: u64, pages: &mut Vec<PageRange>) {
        let end = ((group + 1) * GROUP).min(self.words.len() as u64);
        for word in group * GROUP..end {
            // A page that is added from here on has its group noted anew.
            let mut bits = self.words[word as usize].load(Ordering::Acquire);
            if let Some(taken) = &self.taken {
                // First, so that a page is marked at each moment.
                taken[word as usize].fetch_or(bits, Ordering::AcqRel);
            }
            self.words[word as usize].fetch_and(!bits, Ordering::AcqRel);
            while bits != 0 {
                let page = word * BITS + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                match pages.last_mut() {
                    Some(run) if run.end == page => run.end += 1,
                    _ => pages.push(PageRange { start: page, end: page + 1 }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_taken_once_and_in_order() {
        let unsynced = Unsynced::new(1 << 30).unwrap();
        let runs = [(0, 1), (63, 65), (4095, 4100), ((1 << 30) - 1, 1 << 30)];
        let runs = runs.map(|(start, end)| PageRange { start, end });
        for run in runs.iter().rev() {
            unsynced.add(*run);
        }
        assert_eq!(unsynced.take(), runs);
        assert!(unsynced.take().is_empty());
    }

    #[test]
    fn what_is_not_settled_is_found_by_the_next_process() {
        let run = |start, end| PageRange { start, end };
        let tables = Kept::new(10_000).unwrap();
        let unsynced = Unsynced::kept(&tables).unwrap();
        unsynced.add(run(5, 70));
        unsynced.add(run(9_999, 10_000));
        assert_eq!(unsynced.take(), [run(5, 70), run(9_999, 10_000)]);
        unsynced.add(run(100, 101));
        drop(unsynced);
        let unsynced = Unsynced::kept(&tables).unwrap();
        let all = [run(5, 70), run(100, 101), run(9_999, 10_000)];
        assert_eq!(unsynced.take(), all);
        unsynced.settle(&all);
        assert!(Unsynced::kept(&tables).unwrap().take().is_empty());
    }
}
