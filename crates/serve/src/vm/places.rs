//! Sets of small pages.

use std::sync::atomic::{AtomicU64, Ordering};

/// A set of numbers below a bound, which threads share.
#[derive(Debug)]
pub(super) struct Bits {
    words: Vec<AtomicU64>,
}

impl Bits {
    /// The empty set of numbers below `bound`.
    pub(super) fn new(bound: usize) -> Self {
        Self { words: (0..bound.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether `number` is in it. Of a number that cannot be: no.
    pub(super) fn has(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word.load(Ordering::Relaxed) & mask(number) != 0)
    }

    /// Puts `number` in; whether it was not there. A number that cannot be in it is not put in.
    pub(super) fn put(&self, number: usize) -> bool {
        self.words
            .get(number / 64)
            .is_some_and(|word| word.fetch_or(mask(number), Ordering::Relaxed) & mask(number) == 0)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.words.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }
}

fn mask(number: usize) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn numbers_are_put_in_once() {
        let bits = Bits::new(130);
        assert!(bits.put(0) && bits.put(129) && !bits.put(129));
        assert!(bits.has(129) && !bits.has(128) && !bits.has(10_000) && !bits.put(10_000));
        assert_eq!(bits.count(), 2);
    }
}
