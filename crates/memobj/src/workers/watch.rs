//! The clock's thread: it decides what is overdue, and starts again what is due.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::job::Job;
use super::queue::State;
use super::{CLOCK, Shared};
use crate::error::{ErrorKind, SupplyError};
use crate::locks::Guard;

impl Shared {
    /// Sees to it that the supervisor looks at `at` at the latest.
    pub(super) fn tell_supervisor(&self, state: &State, at: Instant) {
        if state.looks_at.is_none_or(|known| at < known) {
            self.change.notify_all();
        }
    }

    /// If the thread panics, all that is under way fails, and so does what comes later.
    pub(super) fn watch(self: &Arc<Self>) {
        if catch_unwind(AssertUnwindSafe(|| self.supervise())).is_ok() {
            return;
        }
        let mut state = self.lock();
        state.unwatched = true;
        let jobs = state.take_all();
        let unanswered = state.unanswered();
        self.less.notify_all();
        drop(state);
        let why = std::io::Error::other("a thread of the cache has ended by a panic");
        let error = SupplyError::because(ErrorKind::Detached, why);
        for job in jobs.iter().chain(unanswered.iter().map(|job| &**job)) {
            job.tell_thread_ended(CLOCK);
        }
        jobs.iter().chain(unanswered.iter().map(|job| &**job)).for_each(|job| job.give_up(&error));
    }

    fn supervise(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.stopping {
            let now = self.clock.now();
            state.looks_at = Some(now);
            let due = state.take_due(now);
            let overdue = state.take_overdue(now);
            let no_thread = state.has_no_thread_left(self.limit, now);
            let hopeless = state.take_hopeless(now, no_thread);
            if !due.is_empty() || !overdue.is_empty() || !hopeless.is_empty() {
                self.less.notify_all();
                drop(state);
                self.start_again(due);
                self.end_waits(&overdue, hopeless);
                drop(overdue);
                state = self.lock();
                continue;
            }
            let unserved = self.start_threads(&mut state);
            if !unserved.is_empty() {
                drop(state);
                let no_room = SupplyError::new(ErrorKind::NoSpace);
                unserved.iter().for_each(|job| job.give_up(&no_room));
                drop(unserved);
                state = self.lock();
                continue;
            }
            state = self.sleep(state, now);
        }
    }

    fn sleep<'a>(&'a self, mut state: Guard<'a, State>, now: Instant) -> Guard<'a, State> {
        let next = state.next_look(self.limit, now);
        state.looks_at = next;
        match next {
            None => state.wait(&self.change),
            Some(at) => {
                let left = self.clock.nap(at.saturating_duration_since(now));
                state.wait_within(&self.change, left)
            }
        }
    }

    fn start_again(self: &Arc<Self>, due: Vec<Job>) {
        for job in due {
            if let Some(fill) = job.fill() {
                self.enqueue(&fill, job);
            }
        }
    }

    /// What takes too long, or will never be asked for, is decided.
    pub(super) fn end_waits(self: &Arc<Self>, overdue: &[Arc<Job>], hopeless: Vec<Job>) {
        for job in overdue {
            let next = job.overran();
            let hook = job.end_hook();
            let mut state = self.lock();
            let rest = self.follow(&mut state, job, next);
            self.wake_worker(state);
            drop(rest);
            if let Some(hook) = hook {
                self.call_hook(job, hook);
            }
        }
        for job in hopeless {
            let job = Arc::new(job);
            let next = job.overran();
            let mut state = self.lock();
            let rest = self.follow(&mut state, &job, next);
            drop(state);
            drop(rest);
        }
    }
}
