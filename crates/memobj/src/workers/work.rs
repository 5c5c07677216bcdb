//! A worker's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::job::{Job, Next};
use super::queue::{State, Task};
use super::{MOST_QUEUED, Shared};
use crate::error::{ErrorKind, SupplyError};
use crate::locks::Guard;

impl Shared {
    pub(super) fn work(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.stopping {
            let Some((task, call)) = state.pick(self.limit, &self.memory, self.clock.now()) else {
                state.idle += 1;
                state = state.wait(&self.work);
                state.idle -= 1;
                continue;
            };
            self.others_go_on(state, &task);
            self.execute(task);
            state = self.lock();
            state.returned(call);
        }
        state.threads -= 1;
        self.less.notify_all();
    }

    /// Tells of what has changed with the choice of `task`. Lets the lock go.
    fn others_go_on(self: &Arc<Self>, state: Guard<'_, State>, task: &Task) {
        if state.queued < MOST_QUEUED {
            self.less.notify_all();
        }
        if let Task::Ask(job) = task
            && let Some(deadline) = job.deadline()
        {
            self.tell_supervisor(&state, deadline);
        }
        self.wake_worker(state);
    }

    /// Does it, with no lock held.
    fn execute(self: &Arc<Self>, task: Task) {
        match task {
            Task::Ask(job) => {
                let buffer = self.memory.buffer(job.buffer_bytes() as usize);
                let weak = Arc::downgrade(self);
                if let Some(next) = guarded(&job, || job.ask(buffer, &weak)) {
                    self.answered(&job, next);
                }
            }
            // A panic of the pager's is an answer already.
            Task::Call(call) => drop(catch_unwind(AssertUnwindSafe(call))),
            Task::Place(job, buffer) => {
                let next = guarded(&job, || Some(job.place_later(buffer)));
                self.answered(&job, next.unwrap_or(Next::Done));
            }
            Task::Locate(job, error) => {
                let next = guarded(&job, || Some(job.locate(error)));
                self.answered(&job, next.unwrap_or(Next::Done));
            }
        }
    }
}

/// What `act` says. A panic in it is a bug of ours: the pages fail.
fn guarded(job: &Job, act: impl FnOnce() -> Option<Next>) -> Option<Next> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
        job.give_up(&SupplyError::new(ErrorKind::Integrity));
        Some(Next::Done)
    })
}
