//! How long things took: counts by the logarithm, four to a power of two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PARTS: u32 = 4;
const COUNTS: usize = (64 * PARTS) as usize;

/// How long things took, by threads that do not wait for one another.
#[derive(Debug)]
pub struct Times {
    counts: Vec<AtomicU64>,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: (0..COUNTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Times {
    /// One more took `time`. Never blocks, never allocates.
    pub fn add(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(PARTS.into());
        let power = nanoseconds.ilog2();
        let part = (nanoseconds >> (power - 2)) & 3;
        if let Some(count) = self.counts.get((power * PARTS) as usize + part as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many took how long: nanoseconds, and the count of those that took less than that, and as much as the bound before or
    /// more. Bounds without any are left out.
    pub fn counts(&self) -> Vec<(u64, u64)> {
        let counts =
            self.counts.iter().enumerate().map(|(index, count)| (index, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).map(|(index, count)| (bound(index), count)).collect()
    }

    /// What `hundredths` of a hundred did not take longer than; zero if nothing was added. Up to a fifth too long.
    pub fn percentile(&self, hundredths: u64) -> Duration {
        percentile(&self.counts(), hundredths)
    }
}

/// The bound that `hundredths` of a hundred of `counts` lie below, as [`Times::counts`] tells them; zero if there are none.
pub fn percentile(counts: &[(u64, u64)], hundredths: u64) -> Duration {
    let all = counts.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
    let wanted = all.saturating_mul(hundredths).div_ceil(100);
    let mut seen = 0u64;
    for (bound, count) in counts {
        seen = seen.saturating_add(*count);
        if seen >= wanted && wanted > 0 {
            return Duration::from_nanos(*bound);
        }
    }
    Duration::ZERO
}

/// What the times that are counted at `index` are less than.
fn bound(index: usize) -> u64 {
    let (power, part) = (index as u32 / PARTS, index as u64 % u64::from(PARTS));
    (u64::from(PARTS) + part + 1).checked_shl(power.saturating_sub(2)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near() {
        let times = Times::default();
        assert_eq!(times.percentile(50), Duration::ZERO);
        (1..=1000).for_each(|at| times.add(Duration::from_micros(at)));
        assert_eq!(times.counts().iter().map(|(_, count)| count).sum::<u64>(), 1000);
        assert_eq!(super::percentile(&[(10, u64::MAX), (20, u64::MAX)], 99), Duration::from_nanos(10));
        for (percent, want) in [(50, 500.0), (99, 990.0)] {
            let found = times.percentile(percent).as_nanos() as f64 / 1000.0;
            assert!(found >= want && found <= want * 1.3, "{percent}: {found}");
        }
    }
}
