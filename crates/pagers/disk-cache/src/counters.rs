//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Of one object.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) damaged: Counter,
    pub(crate) failures: Counter,
}

/// Of one handle of a directory.
#[derive(Debug, Default)]
pub(crate) struct HandleCounters {
    pub(crate) evicted_bytes: Counter,
    pub(crate) failures: Counter,
}

/// As [`Pager::counters`](memobj::pagers::Pager::counters) names them.
pub(crate) fn named(object: &Counters, handle: &HandleCounters) -> Vec<(&'static str, u64)> {
    vec![
        ("disk_cache_hits", object.hits.get()),
        ("disk_cache_misses", object.misses.get()),
        ("disk_cache_read_bytes", object.read_bytes.get()),
        ("disk_cache_written_bytes", object.written_bytes.get()),
        ("disk_cache_damaged", object.damaged.get()),
        ("disk_cache_evicted_bytes", handle.evicted_bytes.get()),
        ("disk_cache_failures", object.failures.get() + handle.failures.get()),
    ]
}
