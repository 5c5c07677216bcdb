//! What a pager counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a pager counts of itself.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) requests: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) flushed: Counter,
    pub(crate) stat_checks: Counter,
}

impl Counters {
    /// All of them, with their names.
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("network_read_bytes", self.read_bytes.get()),
            ("network_written_bytes", self.written_bytes.get()),
            ("requests", self.requests.get()),
            ("reconnects", self.reconnects.get()),
            ("flushed", self.flushed.get()),
            ("stat_checks", self.stat_checks.get()),
        ]
    }
}
