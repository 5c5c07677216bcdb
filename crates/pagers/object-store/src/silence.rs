//! Tells the cache's events when a server has become silent, and when it answers again.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use memobj::EngineClock;
use memobj::pagers::PagerReports;

/// How long a request waits for its first byte before its server is called silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of one server.
#[derive(Debug)]
pub(crate) struct Silence {
    server: String,
    clock: EngineClock,
    reports: OnceLock<PagerReports>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_answer: Option<Instant>,
    /// When the silence began that was told of.
    since: Option<Instant>,
}

impl Silence {
    pub(crate) fn new(server: String, clock: EngineClock) -> Self {
        Self { server, clock, reports: OnceLock::new(), state: Mutex::default() }
    }

    /// From now on there is somebody to tell.
    pub(crate) fn attach(&self, reports: PagerReports) {
        // A pager is attached once.
        let _ = self.reports.set(reports);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server answered, be it an error.
    pub(crate) fn answered(&self) {
        let now = self.clock.now();
        let since = {
            let mut state = self.state();
            state.last_answer = Some(now);
            state.since.take()
        };
        if let (Some(since), Some(reports)) = (since, self.reports.get()) {
            reports.server_answers(&self.server, now.saturating_duration_since(since));
        }
    }

    /// A request that was sent at `start` has no answer, because of `why`. Told once, and only if no other request was
    /// answered since.
    pub(crate) fn unanswered(&self, start: Instant, why: &str) {
        {
            let mut state = self.state();
            let was_heard = state.last_answer.is_some_and(|last| last > start);
            if was_heard || state.since.is_some() {
                return;
            }
            state.since = Some(start);
        }
        if let Some(reports) = self.reports.get() {
            let silence = self.clock.now().saturating_duration_since(start);
            reports.server_silent(&self.server, silence, why);
        }
    }
}
