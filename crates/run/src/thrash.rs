//! Notices that the budget is too small for what runs: the same pages are read again and again.
//!
//! It is counted which pages were ever supplied, and how many pages were supplied in all. Their difference are pages that
//! were read again. Once they are many times the budget and many times the pages that there are, one line says so, and
//! which budget would hold all that was touched.

use std::collections::HashMap;
use std::ops::Range;

use memobj_linux::locks::{Rank, RankedMutex};

use crate::options::LEAST_BUDGET_BYTES;

const PAGE: u64 = 4096;
/// The least part that is counted: windows are of whole pages.
const BITS: u64 = 64;
/// So many times the budget, and the pages that there are, must have been read again.
const AGAIN: u64 = 8;
/// Fewer pages that were read again are nothing to speak of.
const LEAST: u64 = 4096;
/// Frames that cannot hold what is touched: pins and what is on its way.
const MARGIN: f64 = 1.25;

/// See the module.
#[derive(Debug)]
pub(crate) struct Thrash {
    budget_bytes: u64,
    state: RankedMutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// For each file, by its index in the history, and each 64 pages of it, which were supplied.
    seen: HashMap<(usize, u64), u64>,
    pages: u64,
    supplied: u64,
    /// The budget that was told of last, in MiB.
    told: u64,
}

impl Thrash {
    pub(crate) fn new(budget_bytes: u64) -> Self {
        Self { budget_bytes, state: RankedMutex::new(Rank::Thrash, State::default()) }
    }

    /// The bytes `range` of a file were asked for, and `supplied` pages of them were read. Returns what to tell: once, and
    /// again when twice as much would be needed.
    pub(crate) fn supplied(&self, file: usize, range: Range<u64>, supplied: u64) -> Option<String> {
        let mut state = self.state.lock();
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            let word = state.seen.entry((file, page / BITS)).or_default();
            let bit = 1 << (page % BITS);
            let is_new = *word & bit == 0;
            *word |= bit;
            state.pages += u64::from(is_new);
        }
        state.supplied += supplied;
        let again = state.supplied.saturating_sub(state.pages);
        let needed = state.pages * PAGE;
        let is_much =
            again > AGAIN * (self.budget_bytes / PAGE) && again > AGAIN * state.pages && again > LEAST;
        if needed <= self.budget_bytes || !is_much {
            return None;
        }
        let (supplied, pages) = (state.supplied, state.pages);
        let enough = ((needed as f64 * MARGIN) as u64).max(LEAST_BUDGET_BYTES).div_ceil(1 << 20);
        if enough < state.told * 2 {
            return None;
        }
        state.told = enough;
        Some(format!(
            "the budget of {} KiB is too small for what runs: {pages} pages of files were read {supplied} times; \
             --budget {enough}M would hold all that was touched so far",
            self.budget_bytes >> 10
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_read_again_and_again_are_told_once() {
        let thrash = Thrash::new(16 * PAGE);
        let round = |page: u64| thrash.supplied(0, page * PAGE..(page + 1) * PAGE, 1);
        let told: Vec<String> = (0..9000).filter_map(|round_of| round(round_of % 100)).collect();
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains("100 pages of files were read 41") && told[0].contains("--budget 4M"),
            "{told:?}"
        );
    }

    #[test]
    fn what_fits_or_is_read_once_is_fine() {
        let thrash = Thrash::new(16 * PAGE);
        for page in 0..100_000 {
            assert_eq!(thrash.supplied(0, page * PAGE..(page + 1) * PAGE, 1), None);
        }
        let thrash = Thrash::new(16 * PAGE);
        for page in 0..100_000 {
            assert_eq!(thrash.supplied(1, page % 16 * PAGE..(page % 16 + 1) * PAGE, 1), None);
        }
    }
}
