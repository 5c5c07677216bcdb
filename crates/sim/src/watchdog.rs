//! Somebody who sees to it that a stress test goes on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memobj::Cache;

/// How long a stress test may take for one step: hangs, and nothing else, take so long.
pub const PATIENCE: Duration = crate::fixture::GUARD;

/// Until `stop`: aborts the process with the cache's metrics when `steps` stands still, since a thread that hangs in a
/// fault can be ended in no other way; panics when frames exceed the budget.
pub fn watch(cache: &Cache, steps: &AtomicU64, stop: &AtomicBool, seed: u64) {
    let (mut seen, mut since) = (0, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let now = steps.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        let metrics = cache.metrics();
        assert!(metrics.frame_bytes <= metrics.budget_bytes, "{metrics:?}");
        if since.elapsed() > PATIENCE {
            eprintln!("no progress for {PATIENCE:?} after {seen} steps, seed {seed}: {metrics:#?}");
            std::process::abort();
        }
        // waits: looks a hundred times a second.
        std::thread::sleep(Duration::from_millis(10));
    }
}
