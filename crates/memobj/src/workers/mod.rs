//! Workers: the threads that call pagers, and the clock that watches what pagers were asked.
//!
//! ```text
//!   submit(claim) --> queue of the object, by offset ----> worker: Pager::supply(request) --> returns at once, or blocks
//!                       neighbours become one request              |
//!                       as many under way as its depth             '--> answered, on any thread: put in place, kept, failed,
//!   call(write_back, sync, set_length) -^                               or again later
//!                                            clock: overdue requests are decided without an answer; retries are due
//! ```
//!
//! A pager may take its time, hang or panic. A pager that answers later is called by one thread at a time, in the order of
//! offsets; one that blocks by several. Objects take turns; one that has no thread in a call gets one whatever the others
//! do. Whoever takes the claim out of a job decides its pages: a late answer finds none, and is thrown away.

mod job;
mod memory;
mod queue;
mod watch;
mod work;

use std::sync::{Arc, Condvar};
use std::time::Duration;

use memobj_core::address::PageRange;
use memobj_linux::area::FillClaim;

use crate::clock::EngineClock;
use crate::error::{ErrorKind, SupplyError};
use crate::event::Event;
use crate::locks::{Guard, Rank, RankedMutex};
use crate::metrics::PagerCalls;
use crate::pagers::Hook;
use crate::pages::{CallPagers, Fill, FillReason, Keep};
use crate::threads::{self, Serves};
use job::{Job, Next};
use memory::{Memory, Need};
use queue::{Call, SLOW, State, Task};

/// How long the end of a cache waits for calls that still run.
const GRACE: Duration = Duration::from_secs(2);
/// Jobs in the queue from which on what nobody waits for is held back.
const MOST_QUEUED: usize = 256;
pub(crate) const CLOCK: &str = "memobj-clock";

#[derive(Debug)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: RankedMutex<State>,
    /// For workers: there is something to do, or it is over.
    work: Condvar,
    /// For the supervisor: a deadline is earlier than those it knows.
    change: Condvar,
    /// For who waits until less is queued, and for `stop`.
    less: Condvar,
    memory: Arc<Memory>,
    limit: usize,
    clock: EngineClock,
}

impl Shared {
    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }
}

impl Workers {
    pub(crate) fn new(limit: usize, budget_bytes: u64, clock: EngineClock) -> Self {
        let state = RankedMutex::new(Rank::Workers, State::default());
        let (work, change, less) = (Condvar::new(), Condvar::new(), Condvar::new());
        let memory = Memory::new(budget_bytes);
        let shared = Arc::new(Shared { state, work, change, less, memory, limit, clock });
        let weak = Arc::downgrade(&shared);
        shared.memory.when_there_is_room(move || {
            if let Some(shared) = weak.upgrade() {
                shared.wake_worker(shared.lock());
            }
        });
        Self { shared }
    }

    pub(crate) fn calls(&self) -> PagerCalls {
        let state = self.shared.lock();
        PagerCalls {
            waited_for: state.under_way.len() + state.queued,
            given_up: state.stuck.len() + state.cancelled.len(),
        }
    }

    /// Ends all threads. Queued jobs are dropped: their pages are absent again. Requests that are under way are cancelled.
    /// A call that does not return within the grace period keeps its thread, and an event says so.
    pub(crate) fn stop(&self, reporter: &dyn Fn(Event)) {
        let mut state = self.shared.lock();
        state.stopping = true;
        let jobs = state.take_all();
        let others = state.take_others();
        let unanswered = state.unanswered();
        self.shared.work.notify_all();
        self.shared.change.notify_all();
        self.shared.less.notify_all();
        drop(state);
        drop((jobs, others));
        unanswered.iter().map(|job| job.cancel()).for_each(|(live, hook)| {
            drop(live);
            hook.into_iter().for_each(call_hook);
        });
        let clock = &self.shared.clock;
        let end = clock.now() + GRACE;
        let mut state = self.shared.lock();
        while state.threads > 0 {
            let left = end.saturating_duration_since(clock.now());
            if left.is_zero() {
                break;
            }
            let nap = clock.nap(left);
            state = state.wait_within(&self.shared.less, nap);
        }
        let left_behind: Vec<Arc<str>> = state.running.iter().map(|running| running.name.clone()).collect();
        let all_ended = state.threads == 0;
        let supervisor = state.supervisor.take();
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        threads::join(supervisor);
        threads::join(handles.into_iter().filter(|handle| all_ended || handle.is_finished()));
        for object in left_behind {
            reporter(Event::PagerDidNotReturn { object: object.to_string() });
        }
    }
}

/// A panic of the user's is the user's.
fn call_hook(hook: Hook) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook));
}

impl CallPagers for Workers {
    fn submit(
        &self,
        fill: Arc<Fill>,
        (claim, wanted): (FillClaim, PageRange),
        reason: FillReason,
        keep: Option<Box<dyn Keep>>,
    ) {
        if self.shared.lock().unwatched {
            fill.health.thread_ended(CLOCK);
        }
        if let Some(claim) = fill.refuse(claim, reason) {
            let mut job = Job::new(Arc::clone(&fill), claim, reason, keep);
            job.wanted = wanted;
            if !job.is_demand() {
                // Without room its pages are absent again.
                let Some(reserved) = self.shared.memory.reserve(job.buffer_bytes(), Need::Guess) else {
                    return job.forget();
                };
                job.keep_reserved(reserved);
            }
            self.shared.enqueue(&fill, job);
        } else if let Some(keep) = keep {
            keep.keep(None);
        }
    }

    fn call(&self, fill: &Arc<Fill>, call: Call) {
        let mut state = self.shared.lock();
        if state.stopping {
            drop(state);
            return drop(call);
        }
        state.push_other(fill, Task::Call(call));
        self.shared.wake_worker(state);
    }

    fn forget(&self, fill: &Fill) {
        let (jobs, under_way) = self.shared.lock().forget(fill.number);
        // Of what was queued there is less now.
        self.shared.less.notify_all();
        drop(jobs);
        for job in under_way {
            let (live, hook) = job.cancel();
            drop(live);
            if let Some(hook) = hook {
                self.shared.call_hook(&job, hook);
            }
        }
    }

    fn is_busy(&self, bytes: u64) -> bool {
        self.shared.memory.is_full_for_guesses(bytes) || self.shared.lock().queued >= MOST_QUEUED
    }

    fn wait_for_room(&self) {
        let mut state = self.shared.lock();
        while state.queued >= MOST_QUEUED && !state.stopping {
            state = state.wait(&self.shared.less);
        }
    }
}

impl Shared {
    fn enqueue(self: &Arc<Self>, fill: &Fill, job: Job) {
        let mut state = self.lock();
        if state.stopping {
            drop(state);
            return drop(job);
        }
        if state.is_lost(job.object()) {
            drop(state);
            return self.end_waits(&[], vec![job]);
        }
        let late = job.queue_deadline().filter(|_| state.is_blocked(fill.number));
        state.push(fill, job);
        if let Some(at) = late {
            self.tell_supervisor(&state, at);
        }
        if state.idle == 0 {
            // All threads can be in calls: then it is started when one of these is slow.
            self.tell_supervisor(&state, self.clock.now() + SLOW);
        }
        self.wake_worker(state);
    }

    /// Sees to it that a thread takes what can be taken. Lets the lock go.
    fn wake_worker(self: &Arc<Self>, mut state: Guard<'_, State>) {
        let unserved = self.start_threads(&mut state);
        drop(state);
        let no_room = SupplyError::new(ErrorKind::NoSpace);
        unserved.iter().for_each(|job| job.give_up(&no_room));
    }

    /// Wakes or starts a thread if one more has something to do. The jobs that nobody will ever take: there is no thread.
    fn start_threads(self: &Arc<Self>, state: &mut State) -> Vec<Job> {
        self.start_supervisor(state);
        let now = self.clock.now();
        if state.stopping || !state.wants_thread(self.limit, now) {
            return Vec::new();
        }
        if state.idle > 0 {
            self.work.notify_one();
            return Vec::new();
        }
        if !state.may_start_thread(self.limit) {
            return Vec::new();
        }
        let shared = Arc::clone(self);
        match threads::start("memobj-pager", Serves::All, move || shared.work()) {
            Ok(handle) => {
                state.threads += 1;
                state.handles.retain(|handle| !handle.is_finished());
                state.handles.push(handle);
                Vec::new()
            }
            Err(_) if state.threads == 0 => state.take_all(),
            Err(_) => Vec::new(),
        }
    }

    fn start_supervisor(self: &Arc<Self>, state: &mut State) {
        if state.supervisor.is_none() && !state.stopping {
            let shared = Arc::clone(self);
            state.supervisor = threads::start(CLOCK, Serves::All, move || shared.watch()).ok();
        }
    }

    /// The request of `job` is answered, and `next` follows from that. On any thread.
    fn answered(self: &Arc<Self>, job: &Arc<Job>, next: Next) {
        let hook = job.end_hook();
        if !matches!(next, Next::Locate(_) | Next::Place(_)) {
            // Not while a buffer is kept.
            job.give_back_room();
        }
        let mut state = self.lock();
        let settled = match next {
            // Undecided still, and watched.
            Next::Locate(_) => None,
            _ => state.settle(job.number()),
        };
        let rest = self.follow(&mut state, job, next);
        self.less.notify_all();
        self.wake_worker(state);
        // What users gave us, and what may be the last to know an object, is dropped with no lock held.
        drop((settled, hook, rest));
    }

    /// Queues what follows from a job. What comes back is to be dropped where no lock is held.
    fn follow(&self, state: &mut State, job: &Arc<Job>, next: Next) -> Option<Next> {
        if state.stopping {
            return Some(next);
        }
        match next {
            Next::Done => {}
            Next::Later(at, job) => {
                self.tell_supervisor(state, at);
                state.delay(at, *job);
            }
            Next::Now(jobs) => {
                for job in jobs {
                    let Some(fill) = job.fill() else { continue };
                    state.push(&fill, job);
                }
            }
            Next::Place(buffer) => state.push_known(job.key(), Task::Place(Arc::clone(job), buffer)),
            Next::Locate(error) => state.push_known(job.key(), Task::Locate(Arc::clone(job), error)),
        }
        None
    }

    /// Has a worker call what a pager wants to be called.
    fn call_hook(self: &Arc<Self>, job: &Job, hook: Hook) {
        let mut state = self.lock();
        if state.stopping {
            drop(state);
            return call_hook(hook);
        }
        state.push_known(job.key(), Task::Call(Box::new(move || call_hook(hook))));
        self.wake_worker(state);
    }
}
