//! When a request has waited so long that it is sent a second time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::counters::Counters;

/// So many recent requests are remembered.
const REMEMBERED: usize = 256;
/// So many have to be seen before one is called slow.
const FEWEST: usize = 16;
/// Nothing is slow that takes less.
const SHORTEST: Duration = Duration::from_millis(10);
/// One of so many requests may be sent twice.
const ONE_OF: u64 = 20;

/// How long recent requests waited for their first byte.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Mutex<VecDeque<Duration>>);

impl Latencies {
    /// Remembers a request that got its first byte after `latency`.
    pub(crate) fn note(&self, latency: Duration) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(latency);
    }

    /// After what time a request is slow: the 98th percentile. `None` if too few were seen.
    pub(crate) fn slow_after(&self) -> Option<Duration> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() < FEWEST {
            return None;
        }
        let mut sorted: Vec<Duration> = recent.iter().copied().collect();
        drop(recent);
        let rank = (sorted.len() * 98).div_ceil(100).saturating_sub(1);
        let (_, slow, _) = sorted.select_nth_unstable(rank);
        Some((*slow).max(SHORTEST))
    }
}

/// Whether another request may be sent twice, and counts it if so.
pub(crate) fn take_turn(counters: &Counters) -> bool {
    let may = (counters.hedged.get() + 1) * ONE_OF <= counters.requests.get();
    if may {
        counters.hedged.add(1);
    }
    may
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_what_98_of_100_are_not() {
        let latencies = Latencies::default();
        (1..16).for_each(|ms| latencies.note(Duration::from_millis(ms)));
        assert_eq!(latencies.slow_after(), None);
        latencies.note(Duration::from_millis(16));
        assert_eq!(latencies.slow_after(), Some(Duration::from_millis(16)));
        (1..=100).for_each(|ms| latencies.note(Duration::from_millis(100 * ms)));
        (0..156).for_each(|_| latencies.note(Duration::from_millis(50)));
        // Of 256 remembered, 100 are slower than 50 ms; rank 251 of 256 is the 95th of these.
        assert_eq!(latencies.slow_after(), Some(Duration::from_millis(9500)));
        (0..256).for_each(|_| latencies.note(Duration::from_micros(50)));
        assert_eq!(latencies.slow_after(), Some(SHORTEST));
    }

    #[test]
    fn one_of_twenty_is_sent_twice() {
        let counters = Counters::default();
        counters.requests.add(19);
        assert!(!take_turn(&counters));
        counters.requests.add(1);
        assert!(take_turn(&counters) && !take_turn(&counters));
        counters.requests.add(20);
        assert!(take_turn(&counters) && !take_turn(&counters));
    }
}
