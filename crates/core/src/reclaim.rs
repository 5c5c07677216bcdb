//! Which page gives its frame back.
//!
//! The hand goes over the pages of all objects in address order and counts its sweeps. Each page carries the
//! sweep in which it came (or, once absent, the sweep in which it went) and a small heat.

use crate::page_word::Word;

/// What the hand does with a Clean page that nobody pins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Take its frame.
    Evict,
    /// Leave it, with this heat.
    Keep {
        /// Sweeps that the page is to survive from now on.
        heat: u8,
    },
}

/// The hand's choice for a page with word `word` in sweep `sweep`.
pub const fn choose(word: Word, sweep: u8) -> Choice {
    let _ = sweep;
    match word.heat() {
        0 => Choice::Evict,
        heat => Choice::Keep { heat: heat - 1 },
    }
}

/// The heat that a page gets when it is supplied in sweep `sweep`; `before` is its word while it was absent.
pub const fn heat_on_supply(before: Word, sweep: u8) -> u8 {
    if before.is_ghost() && sweep.wrapping_sub(before.stamp()) <= 1 { 1 } else { 0 }
}
