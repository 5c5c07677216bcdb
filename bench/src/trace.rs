//! Page choice: random numbers, the zipf trace, and the exact LRU it is judged by.

use crate::data::mix;

/// A small generator: the sequence of SplitMix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    /// The next 64 bits.
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number in `[0, end)`, as good as uniform for the sizes in use.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// `accesses` page indices, zipf-distributed with exponent 0.99 over `pages`, neighbouring ranks scattered.
pub fn zipf(pages: u64, accesses: u64, seed: u64) -> Vec<u32> {
    let mut below: Vec<f64> = Vec::with_capacity(pages as usize);
    let mut total = 0.0;
    for rank in 1..=pages {
        total += (rank as f64).powf(-0.99);
        below.push(total);
    }
    let mut random = Random::new(seed);
    let mut draw = || {
        let point = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        let rank = below.partition_point(|&sum| sum <= point).min(pages as usize - 1) as u64;
        (rank.wrapping_mul(2_654_435_761).wrapping_add(12_345) % pages) as u32
    };
    (0..accesses).map(|_| draw()).collect()
}

/// No page; the end of a list.
const NONE: u32 = u32::MAX;

/// The exact least-recently-used policy over a fixed number of frames.
struct Lru {
    /// For each page the next older one; `NONE` for the oldest and for absent pages.
    older: Vec<u32>,
    /// For each page the next newer one; `NONE` for the newest and for absent pages.
    newer: Vec<u32>,
    resident: Vec<bool>,
    newest: u32,
    oldest: u32,
    free_frames: u64,
}

/// Whether a simulated access found its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lookup {
    Hit,
    Miss,
}

impl Lru {
    fn new(pages: usize, frames: u64) -> Self {
        Self {
            older: vec![NONE; pages],
            newer: vec![NONE; pages],
            resident: vec![false; pages],
            newest: NONE,
            oldest: NONE,
            free_frames: frames,
        }
    }

    fn access(&mut self, page: u32) -> Lookup {
        let was_resident = self.resident[page as usize];
        if was_resident {
            self.unlink(page);
        } else if self.free_frames > 0 {
            self.free_frames -= 1;
        } else {
            let victim = self.oldest;
            self.unlink(victim);
            self.resident[victim as usize] = false;
        }
        self.resident[page as usize] = true;
        self.link_newest(page);
        if was_resident { Lookup::Hit } else { Lookup::Miss }
    }

    fn unlink(&mut self, page: u32) {
        let (older, newer) = (self.older[page as usize], self.newer[page as usize]);
        if older == NONE {
            self.oldest = newer
        } else {
            self.newer[older as usize] = newer
        }
        if newer == NONE { self.newest = older } else { self.older[newer as usize] = older }
    }

    fn link_newest(&mut self, page: u32) {
        self.older[page as usize] = self.newest;
        self.newer[page as usize] = NONE;
        if self.newest == NONE {
            self.oldest = page
        } else {
            self.newer[self.newest as usize] = page
        }
        self.newest = page;
    }
}

/// The hit rate of exact LRU with `frames` frames over the accesses from `measured_from` on.
pub fn lru_hit_rate(trace: &[u32], pages: u64, frames: u64, measured_from: usize) -> f64 {
    let mut lru = Lru::new(pages as usize, frames);
    for &page in &trace[..measured_from] {
        lru.access(page);
    }
    let measured = &trace[measured_from..];
    let hits = measured.iter().filter(|&&page| lru.access(page) == Lookup::Hit).count();
    hits as f64 / measured.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::{lru_hit_rate, zipf};

    #[test]
    fn lru_keeps_the_most_recent() {
        // Two frames: 0 1 | 0 hit, 2 misses and evicts 1, 0 hit, 1 misses and evicts 2, 2 misses.
        assert_eq!(lru_hit_rate(&[0, 1, 0, 2, 0, 1, 2], 3, 2, 2), 2.0 / 5.0);
        // A cycle longer than the frames never hits; one that fits always does.
        assert_eq!(lru_hit_rate(&[0, 1, 2, 0, 1, 2], 3, 2, 3), 0.0);
        assert_eq!(lru_hit_rate(&[0, 1, 2, 0, 1, 2], 3, 3, 3), 1.0);
    }

    #[test]
    fn zipf_is_skewed_and_in_range() {
        let trace = zipf(1000, 20_000, 7);
        assert!(trace.iter().all(|&page| page < 1000));
        let first_rank = (12_345 % 1000) as u32;
        let share = trace.iter().filter(|&&page| page == first_rank).count() as f64 / 20_000.0;
        // 1 / (sum of k^-0.99 for k up to 1000) = 0.129.
        assert!((0.11..0.15).contains(&share), "share of the first rank: {share}");
    }
}
