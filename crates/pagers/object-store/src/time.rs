//! Waits by a clock that tests can move.

use std::future::Future;
use std::time::Duration;

use memobj::EngineClock;

/// How often a manual clock is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Waits until `limit` has passed on `clock`.
pub(crate) async fn sleep(clock: &EngineClock, limit: Duration) {
    if *clock == EngineClock::system() {
        return tokio::time::sleep(limit).await;
    }
    let start = clock.now();
    while clock.now().saturating_duration_since(start) < limit {
        // waits: a manual clock has no event.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What `work` gives, or `None` if `limit` has passed before.
pub(crate) async fn within<T>(
    clock: &EngineClock,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = sleep(clock, limit) => None,
    }
}
