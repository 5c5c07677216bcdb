//! Threads that call pagers, and the clock that watches them.
//!
//! A pager may take its time, hang or panic. Each call runs on a worker; a supervisor ends the wait (not the
//! call) when its time is up, and starts calls again when a retry is due. Whoever takes the claim out of a job
//! decides the page; a late answer finds none and is thrown away.

mod job;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memobj_linux::area::FillClaim;

use crate::clock::EngineClock;
use crate::error::{ErrorKind, SupplyError};
use crate::event::Event;
use crate::locks::{Guard, Rank, RankedMutex};
use crate::metrics::PagerCalls;
use crate::pages::{Asked, CallPagers, Fill};
use crate::threads::{self, Serves};
use job::Job;

/// How long the end of a cache waits for calls that still run.
const GRACE: Duration = Duration::from_secs(2);
/// Threads beyond the limit that stand in for calls that overran their time.
const MOST_STUCK: usize = 64;
/// Calls of one object that overran their time and run still, beyond which it is not called any more: so that one
/// pager that hangs cannot use up the threads of all.
const MOST_STUCK_OF_ONE: usize = 16;

/// A call that runs for so long does not count against the limit of threads, so that a pager that hangs with no
/// deadline cannot keep others from theirs.
const SLOW: Duration = Duration::from_secs(2);
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
    /// For workers: there is a job, or it is over.
    work: Condvar,
    /// For the supervisor and for `stop`: deadlines or counts changed.
    change: Condvar,
    limit: usize,
    clock: EngineClock,
}

/// A call in progress.
#[derive(Debug)]
struct Running {
    started: Instant,
    deadline: Option<Instant>,
    job: Arc<Job>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Job>>,
    delayed: Vec<(Instant, Arc<Job>)>,
    running: Vec<Running>,
    threads: usize,
    idle: usize,
    /// Calls that have overrun their time and run still, each on a thread.
    stuck: Vec<Arc<Job>>,
    /// Jobs for which no thread could be started at all.
    unserved: Vec<Arc<Job>>,
    stopping: bool,
    /// The supervisor has ended by a panic: nobody ends the waits any more.
    unwatched: bool,
    supervisor: Option<JoinHandle<()>>,
    handles: Vec<JoinHandle<()>>,
}

impl Shared {
    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }
}

impl Workers {
    pub(crate) fn new(limit: usize, clock: EngineClock) -> Self {
        let state = RankedMutex::new(Rank::Workers, State::default());
        Self {
            shared: Arc::new(Shared { state, work: Condvar::new(), change: Condvar::new(), limit, clock }),
        }
    }

    pub(crate) fn calls(&self) -> PagerCalls {
        let state = self.shared.lock();
        PagerCalls { waited_for: state.running.len() + state.queue.len(), given_up: state.stuck.len() }
    }

    /// Ends all threads. Queued jobs are dropped: their pages are absent again. A call that does not return
    /// within the grace period keeps its thread, and an event says so.
    pub(crate) fn stop(&self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        let (queue, delayed) = (std::mem::take(&mut state.queue), std::mem::take(&mut state.delayed));
        self.shared.work.notify_all();
        self.shared.change.notify_all();
        let clock = &self.shared.clock;
        let end = clock.now() + GRACE;
        while state.threads > 0 {
            let left = end.saturating_duration_since(clock.now());
            if left.is_zero() {
                break;
            }
            let nap = clock.nap(left);
            state = state.wait_within(&self.shared.change, nap);
        }
        let running = state.running.iter().map(|running| &running.job);
        let left_behind: Vec<Arc<Job>> = running.chain(&state.stuck).cloned().collect();
        let all_ended = state.threads == 0;
        let supervisor = state.supervisor.take();
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        drop((queue, delayed));
        threads::join(supervisor);
        threads::join(handles.into_iter().filter(|handle| all_ended || handle.is_finished()));
        for job in left_behind {
            let object = job.fill.object.name.to_string();
            job.fill.tell.event(Event::PagerDidNotReturn { object });
        }
    }
}

impl CallPagers for Workers {
    fn submit(&self, fill: Arc<Fill>, claim: FillClaim, asked: Asked) {
        if self.shared.lock().unwatched {
            fill.health.thread_ended(CLOCK);
        }
        if let Some(claim) = fill.refuse(claim, asked) {
            self.shared.enqueue(Arc::new(Job::new(fill, claim, asked)));
        }
    }

    fn is_busy(&self) -> bool {
        self.shared.lock().queue.len() >= MOST_QUEUED
    }

    fn wait_for_room(&self) {
        let mut state = self.shared.lock();
        while state.queue.len() >= MOST_QUEUED && !state.stopping {
            state = state.wait(&self.shared.change);
        }
    }
}

impl Shared {
    fn enqueue(self: &Arc<Self>, job: Arc<Job>) {
        let mut state = self.lock();
        if state.stopping {
            return;
        }
        // Somebody waits for it: before all that nobody waits for yet.
        let first_wish = state.queue.iter().position(|queued| job.is_demand() && !queued.is_demand());
        let place = first_wish.unwrap_or(state.queue.len());
        state.queue.insert(place, job);
        self.start_threads(&mut state);
        self.work.notify_one();
        self.change.notify_all();
        let unserved = std::mem::take(&mut state.unserved);
        drop(state);
        give_up(&unserved, &SupplyError::new(ErrorKind::NoSpace));
    }

    fn start_threads(self: &Arc<Self>, state: &mut State) {
        let most = self.limit + state.occupied(self.clock.now()).min(MOST_STUCK);
        if state.idle < state.queue.len() && state.threads < most {
            let shared = Arc::clone(self);
            let started = threads::start("memobj-pager", Serves::All, move || shared.work());
            if let Ok(handle) = started {
                state.threads += 1;
                state.handles.retain(|handle| !handle.is_finished());
                state.handles.push(handle);
            } else if state.threads == 0 {
                // No thread at all: nobody would ever answer.
                let queue = std::mem::take(&mut state.queue);
                state.unserved.extend(queue);
            }
        }
        if state.supervisor.is_none() {
            let shared = Arc::clone(self);
            let started = threads::start(CLOCK, Serves::All, move || shared.watch());
            state.supervisor = started.ok();
        }
    }

    fn work(self: &Arc<Self>) {
        let mut buffer = job::Buffer::default();
        let mut state = self.lock();
        while !state.stopping {
            let Some(job) = state.queue.pop_front() else {
                state.idle += 1;
                state = state.wait(&self.work);
                state.idle -= 1;
                continue;
            };
            let (started, deadline) = (self.clock.now(), job.deadline());
            state.running.push(Running { started, deadline, job: Arc::clone(&job) });
            self.change.notify_all();
            drop(state);
            let next = catch_unwind(AssertUnwindSafe(|| job.run(&mut buffer))).unwrap_or_else(|_| {
                // Not the pager's panic, which is an answer.
                buffer = job::Buffer::default();
                job.give_up(&SupplyError::new(ErrorKind::Integrity));
                job::Next::Done
            });
            state = self.lock();
            state.running.retain(|running| !Arc::ptr_eq(&running.job, &job));
            // If the supervisor has given this call up, somebody else stands in for this thread.
            state.stuck.retain(|stuck| !Arc::ptr_eq(stuck, &job));
            self.take_next(&mut state, next);
            // The job can be the last to know an object, and a pager may do anything while it is dropped.
            drop(state);
            drop(job);
            state = self.lock();
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

    /// The clock's thread. If it panics, all that is under way fails, and so does what comes later.
    fn watch(self: &Arc<Self>) {
        if catch_unwind(AssertUnwindSafe(|| self.supervise())).is_ok() {
            return;
        }
        let mut state = self.lock();
        state.unwatched = true;
        let mut jobs: Vec<Arc<Job>> = std::mem::take(&mut state.queue).into();
        jobs.extend(std::mem::take(&mut state.delayed).into_iter().map(|(_, job)| job));
        jobs.extend(state.running.iter().map(|running| Arc::clone(&running.job)));
        jobs.extend(state.stuck.iter().cloned());
        self.change.notify_all();
        drop(state);
        jobs.iter().for_each(|job| job.fill.health.thread_ended(CLOCK));
        let why = std::io::Error::other("a thread of the cache has ended by a panic");
        give_up(&jobs, &SupplyError::because(ErrorKind::Detached, why));
    }

    fn supervise(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.stopping {
            let now = self.clock.now();
            self.start_delayed(&mut state, now);
            self.start_threads(&mut state);
            let mut overdue = take_overdue(&mut state, now);
            state.stuck.extend(overdue.iter().cloned());
            let no_thread = self.has_no_thread_left(&state, now);
            overdue.extend(take_hopeless(&mut state, now, no_thread));
            let unserved = std::mem::take(&mut state.unserved);
            if !overdue.is_empty() || !unserved.is_empty() {
                drop(state);
                give_up(&unserved, &SupplyError::new(ErrorKind::NoSpace));
                let nexts: Vec<job::Next> = overdue.iter().map(|job| job.overran()).collect();
                // As in `work`.
                drop((overdue, unserved));
                state = self.lock();
                for next in nexts {
                    self.take_next(&mut state, next);
                }
                self.start_threads(&mut state);
                continue;
            }
            let delayed = state.delayed.iter().map(|(at, _)| *at);
            let running = state.running.iter().filter_map(|running| running.deadline);
            let no_thread = self.has_no_thread_left(&state, now);
            let queued = state.queue.iter().filter(|_| no_thread);
            // Somebody waits for a thread: look again when a call is long enough under way to start another.
            let waiting = !state.queue.is_empty() && !no_thread;
            let slow = state.running.iter().filter(|_| waiting).map(|running| running.started + SLOW);
            let slow = slow.filter(|at| *at > now);
            let queued = queued.filter_map(|job| job.queue_deadline());
            let next = delayed.chain(running).chain(queued).chain(slow).min();
            state = match next {
                None => state.wait(&self.change),
                Some(at) => {
                    let left = self.clock.nap(at.saturating_duration_since(now));
                    state.wait_within(&self.change, left)
                }
            };
        }
    }

    fn has_no_thread_left(&self, state: &State, now: Instant) -> bool {
        state.idle == 0
            && state.threads >= self.limit + state.occupied(now).min(MOST_STUCK)
            && state.occupied(now) >= MOST_STUCK
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

fn give_up(jobs: &[Arc<Job>], error: &SupplyError) {
    jobs.iter().for_each(|job| job.give_up(error));
}

impl State {
    /// Threads that are as good as lost: in calls that overran their time, or have run for long.
    fn occupied(&self, now: Instant) -> usize {
        let slow = |running: &&Running| now.saturating_duration_since(running.started) >= SLOW;
        self.stuck.len() + self.running.iter().filter(slow).count()
    }
}

/// Takes the jobs out of the queue whose pager hangs in too many calls already, and, when no thread may be
/// started any more, those that have waited for one for as long as a call may take.
fn take_hopeless(state: &mut State, now: Instant, no_thread: bool) -> Vec<Arc<Job>> {
    if state.stuck.is_empty() && !no_thread {
        return Vec::new();
    }
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
    state.running.retain(|running| {
        let late = running.deadline.is_some_and(|deadline| deadline <= now);
        if late {
            overdue.push(Arc::clone(&running.job));
        }
        !late
    });
    overdue
}
