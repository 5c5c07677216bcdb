//! Guessing that a page which is loaded will be stored to next.
//!
//! A program that loads and then stores faults twice: for the page, and for the store. Where most pages that are
//! loaded are stored to soon after, they are opened to stores as they come, and the second fault does not happen. The
//! price of a wrong guess is that a page is written back with the bytes that it was read with.

use std::sync::atomic::{AtomicU32, Ordering};

/// Of so many pages one is not opened, whatever the guess, to see what happens to it.
const SAMPLE: u32 = 8;
const WHOLE: u32 = 1024;
/// How slowly the guess follows what is seen: by such a part each time.
const STEP: u32 = 16;
/// With as many stores as pages seen the score settles at half of the whole; three stores for four pages are enough.
const ENOUGH: u32 = WHOLE * 7 / 16;

/// What was seen lately. Lock-free, for signal handlers; a lost update costs a guess.
#[derive(Debug, Default)]
pub(crate) struct Guess {
    score: AtomicU32,
    loaded: AtomicU32,
}

impl Guess {
    /// A page was obtained for a load; says whether to open it to stores at once.
    pub(crate) fn loaded(&self) -> bool {
        let score = self.score.load(Ordering::Relaxed);
        if score >= ENOUGH && !self.loaded.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
            return true;
        }
        self.score.store(score - score / STEP, Ordering::Relaxed);
        false
    }

    /// A store came to a page that had been obtained for a load, and was not open.
    pub(crate) fn stored(&self) {
        let score = self.score.load(Ordering::Relaxed);
        self.score.store(score + (WHOLE - score) / STEP, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of the last thousand of `rounds` pages that is opened, if `stored` of four that are not are stored to.
    fn opened(stored: u32) -> f64 {
        let guess = Guess::default();
        let (mut opened, mut seen) = (0, 0);
        for round in 0..20_000 {
            if guess.loaded() {
                opened += u32::from(round >= 19_000);
                continue;
            }
            seen += 1;
            if seen % 4 < stored {
                guess.stored();
            }
        }
        f64::from(opened) / 1000.0
    }

    #[test]
    fn pages_are_opened_where_nearly_all_are_stored_to() {
        assert!(opened(4) > 0.8, "{}", opened(4));
        assert!(opened(2) == 0.0 && opened(1) == 0.0 && opened(0) == 0.0);
    }
}
