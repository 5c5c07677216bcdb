//! Noticing that somebody reads in order.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use memobj_core::address::PageRange;

const ENTRIES: usize = 16;
const COUNT_BITS: u32 = 8;
/// Misses in a row, each where the one before ended, that make a stream.
const LONG_ENOUGH: u64 = 3;

/// The ends of recent misses of one object. Lock-free, for signal handlers; a lost update costs a guess.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    entries: [AtomicU64; ENTRIES],
    next: AtomicUsize,
}

impl Sequences {
    /// Notes a miss of `pages`; says whether it goes on from where others ended.
    pub(crate) fn note(&self, pages: PageRange) -> bool {
        self.steps(pages) >= LONG_ENOUGH
    }

    /// Notes a miss of `pages`; says the how-manieth in a row it is, counted from one.
    pub(crate) fn steps(&self, pages: PageRange) -> u64 {
        let end = pages.end << COUNT_BITS;
        for entry in &self.entries {
            let seen = entry.load(Ordering::Relaxed);
            if seen >> COUNT_BITS == pages.start && seen != 0 {
                let count = (seen & 0xff).saturating_add(1).min(0xff);
                entry.store(end | count, Ordering::Relaxed);
                return count;
            }
        }
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % ENTRIES;
        self.entries[slot].store(end | 1, Ordering::Relaxed);
        1
    }

    /// What ended at page `from` is known to go on to `to`.
    pub(crate) fn extend(&self, from: u64, to: u64) {
        for entry in &self.entries {
            let seen = entry.load(Ordering::Relaxed);
            if seen >> COUNT_BITS == from && seen != 0 {
                return entry.store(to << COUNT_BITS | seen & 0xff, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(start: u64) -> PageRange {
        PageRange { start, end: start + 1 }
    }

    #[test]
    fn interleaved_streams_are_seen_and_random_pages_are_not() {
        let sequences = Sequences::default();
        let seen: Vec<bool> =
            (0..8).flat_map(|step| [sequences.note(page(step)), sequences.note(page(1000 + step))]).collect();
        assert!(seen[..4].iter().all(|yes| !yes));
        assert!(seen[4..].iter().all(|yes| *yes));
        let sequences = Sequences::default();
        assert!((0..1000u64).all(|step| !sequences.note(page(step * 7919 % 10007))));
    }
}
