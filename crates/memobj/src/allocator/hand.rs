//! Hands: which block is looked at next.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memobj_linux::area::Area;
use memobj_linux::slots::SlotTable;

const BLOCK_BITS: u32 = 44;
const BLOCK_MASK: u64 = (1 << BLOCK_BITS) - 1;

/// A slot of the members, and a block of the area there.
#[derive(Debug, Default)]
pub(super) struct Hand {
    at: AtomicU64,
    /// How often it has begun anew.
    pub(super) sweeps: AtomicU32,
}

impl Hand {
    /// Moves on to the block that `next_of` finds; each is one caller's. `None` after a whole sweep without any. Safe
    /// in a signal handler.
    pub(super) fn advance(
        &self,
        members: &SlotTable<Area>,
        next_of: impl Fn(&Area, u64) -> Option<u64>,
    ) -> Option<(usize, u64)> {
        let mut wraps = 0;
        loop {
            let hand = self.at.load(Ordering::Relaxed);
            let (slot, block) = ((hand >> BLOCK_BITS) as usize, hand & BLOCK_MASK);
            let found = members.with(slot, |area| next_of(area, block)).flatten();
            let next = match found {
                Some(found) => (slot as u64) << BLOCK_BITS | (found + 1),
                None if slot + 1 < members.end() => (slot as u64 + 1) << BLOCK_BITS,
                None => 0,
            };
            if self.at.compare_exchange(hand, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            if let Some(found) = found {
                return Some((slot, found));
            }
            if next == 0 {
                self.sweeps.fetch_add(1, Ordering::Relaxed);
                wraps += 1;
                if wraps > 1 {
                    return None;
                }
            }
        }
    }
}
