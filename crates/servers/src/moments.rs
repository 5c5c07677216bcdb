//! When servers are killed: at random, and the same again from the same seed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

use memobj_sim::Random;

/// A source of random numbers. Its seed is printed; `MEMOBJ_SEED` sets it.
pub fn random() -> Random {
    let named = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = named.unwrap_or_else(|| RandomState::new().build_hasher().finish() % 1_000_000);
    println!("MEMOBJ_SEED={seed}");
    Random::new(seed)
}

/// So many numbers of `range`, in ascending order.
pub fn moments(random: &mut Random, count: usize, range: Range<u64>) -> Vec<u64> {
    let mut moments: Vec<u64> =
        (0..count).map(|_| range.start + random.below(range.end - range.start)).collect();
    moments.sort_unstable();
    moments
}
