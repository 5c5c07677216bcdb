//! How long things took: counts by the logarithm, four to a power of two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PARTS: u32 = 4;
const COUNTS: usize = (64 * PARTS) as usize;

/// See the module.
#[derive(Debug)]
pub(crate) struct Times {
    counts: Vec<AtomicU64>,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: (0..COUNTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Times {
    pub(crate) fn add(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(PARTS.into());
        let power = nanoseconds.ilog2();
        let part = (nanoseconds >> (power - 2)) & 3;
        if let Some(count) = self.counts.get((power * PARTS) as usize + part as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What `hundredths` of a hundred did not take longer than; zero if nothing was added. Up to a fifth too long.
    pub(crate) fn percentile(&self, hundredths: u64) -> Duration {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() * hundredths).div_ceil(100);
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && wanted > 0 {
                let (power, part) = (index as u32 / PARTS, index as u64 % u64::from(PARTS));
                let next = (u64::from(PARTS) + part + 1).checked_shl(power.saturating_sub(2));
                return Duration::from_nanos(next.unwrap_or(u64::MAX));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near() {
        let times = Times::default();
        assert_eq!(times.percentile(50), Duration::ZERO);
        (1..=1000).for_each(|at| times.add(Duration::from_micros(at)));
        for (percent, want) in [(50, 500.0), (99, 990.0)] {
            let found = times.percentile(percent).as_nanos() as f64 / 1000.0;
            assert!(found >= want && found <= want * 1.3, "{percent}: {found}");
        }
    }
}
