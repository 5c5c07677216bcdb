//! Threads that call pagers, and the clock that watches them.
//!
//! A pager may take its time, hang or panic. Each call runs on a worker; a supervisor ends the wait (not the
//! call) when its time is up, and starts calls again when a retry is due. Whoever takes the claim out of a job
//! decides the page; a late answer finds none and is thrown away.

mod job;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memobj_sys::area::FillClaim;

use crate::event::Event;
use crate::store::FrameStore;
use job::Job;

/// Whether anybody waits for the pages of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// Somebody does.
    Demand,
    /// Nobody yet: a failure is forgotten.
    InAdvance,
}

/// How long the end of a cache waits for calls that still run.
const GRACE: Duration = Duration::from_secs(2);
/// Threads beyond the limit that stand in for calls that overran their time.
const MOST_STUCK: usize = 64;
/// Calls of one object that overran their time and run still, beyond which it is not called any more: so that one
/// pager that hangs cannot use up the threads of all.
const MOST_STUCK_OF_ONE: usize = 16;

#[derive(Debug)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// For workers: there is a job, or it is over.
    work: Condvar,
    /// For the supervisor and for `stop`: deadlines or counts changed.
    change: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Job>>,
    delayed: Vec<(Instant, Arc<Job>)>,
    running: Vec<(Option<Instant>, Arc<Job>)>,
    threads: usize,
    idle: usize,
    /// Calls that have overrun their time and run still, each on a thread.
    stuck: Vec<Arc<Job>>,
    stopping: bool,
    supervisor: Option<JoinHandle<()>>,
    handles: Vec<JoinHandle<()>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    pub(crate) fn new(limit: usize) -> Self {
        let state = Mutex::default();
        Self { shared: Arc::new(Shared { state, work: Condvar::new(), change: Condvar::new(), limit }) }
    }

    /// Calls the pager of `store` for the pages of `claim`, soon.
    pub(crate) fn submit(&self, store: Arc<FrameStore>, claim: FillClaim, asked: Asked) {
        self.shared.enqueue(Arc::new(Job::new(store, claim, asked)));
    }

    /// Ends all threads. Queued jobs are dropped: their pages are absent again. A call that does not return
    /// within the grace period keeps its thread, and an event says so.
    pub(crate) fn stop(&self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        let (queue, delayed) = (std::mem::take(&mut state.queue), std::mem::take(&mut state.delayed));
        self.shared.work.notify_all();
        self.shared.change.notify_all();
        let end = Instant::now() + GRACE;
        while state.threads > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.change.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let left_behind: Vec<Arc<Job>> = state.running.iter().map(|(_, job)| Arc::clone(job)).collect();
        let all_ended = state.threads == 0;
        let supervisor = state.supervisor.take();
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        drop((queue, delayed));
        if let Some(supervisor) = supervisor {
            let _ = supervisor.join();
        }
        for handle in handles {
            if all_ended || handle.is_finished() {
                let _ = handle.join();
            }
        }
        for job in left_behind {
            job.store().cache.tell(Event::PagerDidNotReturn { object: job.store().object.name.to_string() });
        }
    }
}

impl Shared {
    fn enqueue(self: &Arc<Self>, job: Arc<Job>) {
        let mut state = self.lock();
        if state.stopping {
            return;
        }
        state.queue.push_back(job);
        self.start_threads(&mut state);
        self.work.notify_one();
        if !state.stuck.is_empty() {
            self.change.notify_all();
        }
    }

    fn start_threads(self: &Arc<Self>, state: &mut State) {
        let most = self.limit + state.stuck.len().min(MOST_STUCK);
        if state.idle < state.queue.len() && state.threads < most {
            let shared = Arc::clone(self);
            let started =
                std::thread::Builder::new().name("memobj-pager".into()).spawn(move || shared.work());
            if let Ok(handle) = started {
                state.threads += 1;
                state.handles.retain(|handle| !handle.is_finished());
                state.handles.push(handle);
            } else if state.threads == 0 {
                // No thread at all: nobody would ever answer. The claims end, and their waiters ask again.
                state.queue.clear();
            }
        }
        if state.supervisor.is_none() {
            let shared = Arc::clone(self);
            let started =
                std::thread::Builder::new().name("memobj-clock".into()).spawn(move || shared.supervise());
            state.supervisor = started.ok();
        }
    }

    fn work(self: &Arc<Self>) {
        let mut buffer = job::Buffer::default();
        let mut state = self.lock();
        while !state.stopping {
            let Some(job) = state.queue.pop_front() else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            state.running.push((job.deadline(), Arc::clone(&job)));
            self.change.notify_all();
            drop(state);
            let next = job.run(&mut buffer);
            state = self.lock();
            state.running.retain(|(_, running)| !Arc::ptr_eq(running, &job));
            // If the supervisor has given this call up, somebody else stands in for this thread.
            state.stuck.retain(|stuck| !Arc::ptr_eq(stuck, &job));
            self.take_next(&mut state, next);
        }
        state.threads -= 1;
        self.change.notify_all();
    }

    fn take_next(self: &Arc<Self>, state: &mut State, next: job::Next) {
        if state.stopping {
            return;
        }
        match next {
            job::Next::Done => {}
            job::Next::Later(at, job) => {
                state.delayed.push((at, job));
                self.change.notify_all();
            }
            job::Next::Now(jobs) => {
                for job in jobs {
                    state.queue.push_back(job);
                    self.start_threads(state);
                    self.work.notify_one();
                }
            }
        }
    }

    fn supervise(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.stopping {
            let now = Instant::now();
            self.start_delayed(&mut state, now);
            let mut overdue = take_overdue(&mut state, now);
            state.stuck.extend(overdue.iter().cloned());
            overdue.extend(take_hopeless(&mut state, now));
            if !overdue.is_empty() {
                drop(state);
                let nexts: Vec<job::Next> = overdue.iter().map(|job| job.overran()).collect();
                state = self.lock();
                for next in nexts {
                    self.take_next(&mut state, next);
                }
                self.start_threads(&mut state);
                continue;
            }
            let delayed = state.delayed.iter().map(|(at, _)| *at);
            let running = state.running.iter().filter_map(|(deadline, _)| *deadline);
            let queued = state.queue.iter().filter(|_| state.has_no_thread_left());
            let next = delayed.chain(running).chain(queued.filter_map(|job| job.queue_deadline())).min();
            state = match next {
                None => self.change.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    self.change.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn start_delayed(self: &Arc<Self>, state: &mut State, now: Instant) {
        let mut index = 0;
        while index < state.delayed.len() {
            if state.delayed[index].0 <= now {
                let (_, job) = state.delayed.swap_remove(index);
                state.queue.push_back(job);
                self.start_threads(state);
                self.work.notify_one();
            } else {
                index += 1;
            }
        }
    }
}

impl State {
    fn has_no_thread_left(&self) -> bool {
        self.stuck.len() >= MOST_STUCK
    }
}

/// Takes the jobs out of the queue whose pager hangs in too many calls already, and, when no thread may be
/// started any more, those that have waited for one for as long as a call may take.
fn take_hopeless(state: &mut State, now: Instant) -> Vec<Arc<Job>> {
    if state.stuck.is_empty() {
        return Vec::new();
    }
    let no_thread = state.has_no_thread_left();
    let (hopeless, rest) = std::mem::take(&mut state.queue).into_iter().partition(|job: &Arc<Job>| {
        state.stuck.iter().filter(|stuck| stuck.is_of_same_object(job)).count() >= MOST_STUCK_OF_ONE
            || (no_thread && job.queue_deadline().is_some_and(|deadline| deadline <= now))
    });
    let hopeless: VecDeque<Arc<Job>> = hopeless;
    state.queue = rest;
    hopeless.into()
}

fn take_overdue(state: &mut State, now: Instant) -> Vec<Arc<Job>> {
    let mut overdue = Vec::new();
    state.running.retain(|(deadline, job)| {
        let late = deadline.is_some_and(|deadline| deadline <= now);
        if late {
            overdue.push(Arc::clone(job));
        }
        !late
    });
    overdue
}
