//! What pagers are to be asked, object by object, and what comes next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memobj_linux::region::Chunk;

use super::job::Job;
use super::memory::{Memory, Need};
use crate::error::SupplyError;
use crate::pages::Fill;

/// A call that runs for so long does not count against the limit of threads, so that a pager that hangs with no
/// deadline cannot keep others from theirs.
pub(super) const SLOW: Duration = Duration::from_secs(2);
/// Threads beyond the limit that stand in for calls that overran their time.
pub(super) const MOST_STUCK: usize = 64;
/// Requests of one object that overran their time and are not answered, beyond which it is not asked any more: so that one
/// pager that hangs cannot use up the threads of all.
pub(super) const MOST_STUCK_OF_ONE: usize = 16;

/// A call of a pager other than for pages.
pub(super) type Call = Box<dyn FnOnce() + Send>;

/// What a worker does next.
pub(super) enum Task {
    Ask(Arc<Job>),
    Call(Call),
    Place(Arc<Job>, Chunk),
    Locate(Arc<Job>, SupplyError),
}

/// Of one mapped object that something is asked for, or was and is not answered.
#[derive(Default)]
struct ObjectQueue {
    /// By their first page, which nobody else has claimed: somebody waits for these,
    demand: BTreeMap<u64, Job>,
    /// nobody waits for these yet.
    advance: BTreeMap<u64, Job>,
    others: VecDeque<Task>,
    /// Threads in calls of its pager, but for requests that are overdue: these are made up for.
    running: usize,
    /// Requests that are not answered, and not overdue.
    under_way: usize,
    /// Where the last request ended.
    position: u64,
    /// Zero until something is asked for that takes part in it: what a job leaves behind is queued without its description.
    depth: usize,
    blocks: bool,
    /// The most pages of one request that nobody waits for.
    run_pages: u64,
    /// The most pages of one that somebody waits for: those of a block. Else a page that hangs would hold up its neighbours.
    block_pages: u64,
    is_listed: bool,
}

/// A thread in a call of a pager.
#[derive(Debug)]
pub(super) struct Running {
    call: u64,
    key: u64,
    /// The number of the request, if that is what it calls for.
    request: Option<u64>,
    pub(super) name: Arc<str>,
    started: Instant,
    is_overdue: bool,
}

#[derive(Default)]
pub(super) struct State {
    objects: HashMap<u64, ObjectQueue>,
    /// Objects that have something to do.
    ready: VecDeque<u64>,
    /// Jobs in all queues.
    pub(super) queued: usize,
    delayed: BTreeMap<(Instant, u64), Job>,
    /// Requests that are not answered, by number, and when their time is over.
    pub(super) under_way: HashMap<u64, (Arc<Job>, Option<Instant>)>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Requests that have overrun their time and are not answered.
    pub(super) stuck: HashMap<u64, Arc<Job>>,
    /// Requests of objects that were closed meanwhile, which are not answered.
    pub(super) cancelled: HashMap<u64, Arc<Job>>,
    /// When the supervisor looks next; `None` if it waits to be told.
    pub(super) looks_at: Option<Instant>,
    pub(super) running: Vec<Running>,
    next_number: u64,
    pub(super) threads: usize,
    pub(super) idle: usize,
    pub(super) stopping: bool,
    /// The supervisor has ended by a panic: nobody ends the waits any more.
    pub(super) unwatched: bool,
    pub(super) supervisor: Option<JoinHandle<()>>,
    pub(super) handles: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("queued", &self.queued)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl ObjectQueue {
    fn describe(&mut self, fill: &Fill) {
        let description = &fill.object.description;
        self.depth = description.depth_limit();
        self.blocks = description.is_blocking();
        self.run_pages = fill.run_pages();
        self.block_pages = fill.block_pages();
    }

    fn jobs(&self) -> usize {
        self.demand.len() + self.advance.len()
    }

    /// Whether nothing is known of it that matters.
    fn is_idle(&self) -> bool {
        !self.has_work() && self.running + self.under_way == 0
    }

    fn has_work(&self) -> bool {
        self.jobs() + self.others.len() > 0
    }

    /// Whether a thread may take something of it now.
    fn is_open(&self, most_running: usize) -> bool {
        let callers = if self.blocks { most_running } else { 1 };
        let may_ask = self.jobs() > 0 && self.under_way < self.depth;
        self.running < callers && (may_ask || !self.others.is_empty())
    }

    /// The next job in the order of pages, with those that follow it.
    fn next_job(&mut self) -> Option<(Job, usize)> {
        let (queue, most) = match self.demand.is_empty() {
            true => (&mut self.advance, self.run_pages),
            false => (&mut self.demand, self.block_pages),
        };
        let first = queue.range(self.position..).next().or_else(|| queue.iter().next()).map(|(at, _)| *at)?;
        let mut job = queue.remove(&first)?;
        let mut taken = 1;
        while let Some(next) = queue.remove(&job.pages.end) {
            if let Some(next) = job.join(next, most) {
                queue.insert(next.pages.start, next);
                break;
            }
            taken += 1;
        }
        self.position = job.pages.end;
        Some((job, taken))
    }
}

/// Takes the jobs out of `queue` that `is_meant`.
fn take_out<K: Ord + Copy>(queue: &mut BTreeMap<K, Job>, is_meant: &dyn Fn(&Job) -> bool) -> Vec<Job> {
    let keys: Vec<K> = queue.iter().filter(|(_, job)| is_meant(job)).map(|(key, _)| *key).collect();
    keys.iter().filter_map(|key| queue.remove(key)).collect()
}

impl State {
    fn object(&mut self, fill: &Fill) -> &mut ObjectQueue {
        let queue = self.objects.entry(fill.number).or_default();
        if queue.depth == 0 {
            queue.describe(fill);
        }
        queue
    }

    /// Queues `job`, which is of `fill`.
    pub(super) fn push(&mut self, fill: &Fill, job: Job) {
        let queue = self.object(fill);
        let class = if job.is_demand() { &mut queue.demand } else { &mut queue.advance };
        class.insert(job.pages.start, job);
        self.queued += 1;
        self.list(fill.number);
    }

    /// Queues something else for the pager of `fill`.
    pub(super) fn push_other(&mut self, fill: &Fill, task: Task) {
        self.object(fill).others.push_back(task);
        self.list(fill.number);
    }

    /// As `push_other`, of an object that was asked for before.
    pub(super) fn push_known(&mut self, key: u64, task: Task) {
        self.objects.entry(key).or_default().others.push_back(task);
        self.list(key);
    }

    fn list(&mut self, key: u64) {
        if let Some(queue) = self.objects.get_mut(&key)
            && !std::mem::replace(&mut queue.is_listed, true)
        {
            self.ready.push_back(key);
        }
    }

    /// The most threads that call one object: while there are others, some are left to them.
    fn most_of_one(&self, limit: usize) -> usize {
        if self.objects.len() > 1 { limit - limit / 4 } else { usize::MAX }
    }

    /// Takes what a thread does next. With all regular threads in calls only objects are served that have none.
    pub(super) fn pick(&mut self, limit: usize, memory: &Arc<Memory>, now: Instant) -> Option<(Task, u64)> {
        let is_full = self.running.len() >= limit + self.occupied(now).min(MOST_STUCK);
        let most = if is_full { 1 } else { self.most_of_one(limit) };
        for demand_only in [true, false] {
            for _ in 0..self.ready.len() {
                let key = self.ready.pop_front()?;
                let Some(queue) = self.objects.get_mut(&key) else { continue };
                queue.is_listed = false;
                if queue.is_idle() {
                    self.objects.remove(&key);
                    continue;
                }
                if !queue.has_work() {
                    continue;
                }
                let waits = !queue.demand.is_empty() || !queue.others.is_empty();
                let task = match queue.is_open(most) && (waits || !demand_only) {
                    true => self.take(key, memory, now),
                    false => None,
                };
                self.list(key);
                if task.is_some() {
                    return task;
                }
            }
        }
        None
    }

    fn take(&mut self, key: u64, memory: &Arc<Memory>, now: Instant) -> Option<(Task, u64)> {
        let queue = self.objects.get_mut(&key)?;
        if let Some(task) = queue.others.pop_front() {
            return Some(self.runs(key, now, task));
        }
        let (mut job, taken) = queue.next_job()?;
        let need = match job.is_demand() {
            true if queue.under_way == 0 => Need::Progress,
            true => Need::Demand,
            false => Need::Guess,
        };
        if job.has_reserved() {
            // What nobody waits for had room from the beginning.
        } else if let Some(reserved) = memory.reserve(job.buffer_bytes(), need) {
            job.keep_reserved(reserved);
        } else if !job.is_demand() {
            // What is left of a guess that failed. A page that is claimed never waits for room: it is absent again.
            self.queued -= taken;
            return Some(self.runs(key, now, Task::Call(Box::new(move || job.forget()))));
        } else {
            queue.position = job.pages.start;
            queue.demand.insert(job.pages.start, job);
            self.queued = self.queued + 1 - taken;
            return None;
        }
        queue.under_way += 1;
        self.queued -= taken;
        Some(self.begin(key, job, now))
    }

    fn begin(&mut self, key: u64, mut job: Job, now: Instant) -> (Task, u64) {
        let number = self.number();
        job.begin(number);
        let deadline = job.deadline();
        self.deadlines.extend(deadline.map(|at| (at, number)));
        let job = Arc::new(job);
        self.under_way.insert(number, (Arc::clone(&job), deadline));
        self.runs(key, now, Task::Ask(job))
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Notes that a thread is in a call now, and names the call.
    fn runs(&mut self, key: u64, started: Instant, task: Task) -> (Task, u64) {
        let (request, name) = match &task {
            Task::Ask(job) => (Some(job.number()), job.name()),
            Task::Place(job, _) | Task::Locate(job, _) => (None, job.name()),
            Task::Call(_) => (None, "".into()),
        };
        let call = self.number();
        if let Some(queue) = self.objects.get_mut(&key) {
            queue.running += 1;
        }
        self.running.push(Running { call, key, request, name, started, is_overdue: false });
        (task, call)
    }

    /// A thread has returned from `call`.
    pub(super) fn returned(&mut self, call: u64) {
        let Some(at) = self.running.iter().position(|running| running.call == call) else { return };
        let Running { key, is_overdue, .. } = self.running.swap_remove(at);
        if let Some(queue) = self.objects.get_mut(&key).filter(|_| !is_overdue) {
            queue.running -= 1;
        }
        self.list(key);
    }

    /// A request is answered, or overdue. What comes back may be the last to know its object.
    pub(super) fn settle(&mut self, number: u64) -> Option<Arc<Job>> {
        if let Some(job) = self.stuck.remove(&number).or_else(|| self.cancelled.remove(&number)) {
            return Some(job);
        }
        let (job, deadline) = self.under_way.remove(&number)?;
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, number));
        }
        if let Some(queue) = self.objects.get_mut(&job.key()) {
            queue.under_way -= 1;
        }
        self.list(job.key());
        Some(job)
    }

    /// The requests whose time is over by `now`: they do not count any more, and their threads are made up for.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<Arc<Job>> {
        let mut overdue = Vec::new();
        while let Some((_, number)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let Some(job) = self.settle(number) else { continue };
            if let Some(running) = self.running.iter_mut().find(|running| running.request == Some(number)) {
                running.is_overdue = true;
                if let Some(queue) = self.objects.get_mut(&running.key) {
                    queue.running -= 1;
                }
            }
            self.stuck.insert(number, Arc::clone(&job));
            overdue.push(job);
        }
        overdue
    }

    /// The jobs whose next try is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Job> {
        let mut due = Vec::new();
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            due.push(entry.remove());
        }
        due
    }

    /// All requests that are not answered.
    pub(super) fn unanswered(&self) -> Vec<Arc<Job>> {
        let under_way = self.under_way.values().map(|(job, _)| job);
        under_way.chain(self.stuck.values()).cloned().collect()
    }

    /// The jobs that will not be asked for in time: those whose pager hangs in too many requests already, those that have
    /// waited for longer than a request may take while every thread that may call their pager was in one call, and, when no
    /// thread may be started any more, all that have waited for so long.
    pub(super) fn take_hopeless(&mut self, now: Instant, no_thread: bool) -> Vec<Job> {
        let lost = self.lost_requests();
        let blocked = self.blocked_since();
        if lost.is_empty() && blocked.is_empty() && !no_thread {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for (key, queue) in &mut self.objects {
            let since = blocked.get(key);
            let hopeless = |job: &Job| {
                let is_late = || job.queue_deadline().is_some_and(|deadline| deadline <= now);
                lost.get(&job.object()).is_some_and(|count| *count >= MOST_STUCK_OF_ONE)
                    || (no_thread || since.is_some_and(|since| job.queued() >= *since)) && is_late()
            };
            for class in [&mut queue.demand, &mut queue.advance] {
                taken.extend(take_out(class, &hopeless));
            }
        }
        self.queued -= taken.len();
        taken
    }

    /// How many requests of each object overran their time, or occupy a thread after their mapping was closed.
    fn lost_requests(&self) -> HashMap<u64, usize> {
        let mut lost: HashMap<u64, usize> = HashMap::new();
        self.stuck.values().for_each(|job| *lost.entry(job.object()).or_default() += 1);
        for running in &self.running {
            if let Some(job) = running.request.and_then(|number| self.cancelled.get(&number)) {
                *lost.entry(job.object()).or_default() += 1;
            }
        }
        lost
    }

    /// Whether so many requests of the object are lost that no further one is made.
    pub(super) fn is_lost(&self, object: u64) -> bool {
        // Seldom enough to be counted each time.
        self.stuck.len() + self.cancelled.len() >= MOST_STUCK_OF_ONE
            && self.lost_requests().get(&object).is_some_and(|count| *count >= MOST_STUCK_OF_ONE)
    }

    /// The objects that wait for a thread to return from their pager, and since when none has begun a call.
    fn blocked_since(&self) -> HashMap<u64, Instant> {
        let mut blocked = HashMap::new();
        for running in &self.running {
            if self.objects.get(&running.key).is_some_and(|queue| queue.running > 0 && queue.jobs() > 0) {
                let since = blocked.entry(running.key).or_insert(running.started);
                *since = running.started.max(*since);
            }
        }
        blocked
    }

    /// Whether a job of `key` that is queued now waits for a thread to return.
    pub(super) fn is_blocked(&self, key: u64) -> bool {
        self.objects.get(&key).is_some_and(|queue| queue.running > 0)
    }

    /// Threads that are as good as lost: in calls that overran their time, or have run for long.
    pub(super) fn occupied(&self, now: Instant) -> usize {
        let is_lost =
            |running: &&Running| running.is_overdue || now.saturating_duration_since(running.started) >= SLOW;
        self.running.iter().filter(is_lost).count()
    }

    /// Whether one more thread would find something to do.
    pub(super) fn wants_thread(&self, limit: usize, now: Instant) -> bool {
        let regular = limit + self.occupied(now).min(MOST_STUCK);
        let most = if self.running.len() < regular { self.most_of_one(limit) } else { 1 };
        let is_open = |key: &u64| self.objects.get(key).is_some_and(|queue| queue.is_open(most));
        self.ready.iter().any(is_open)
    }

    /// Whether one more thread may be started: all that there are, are in calls.
    pub(super) fn may_start_thread(&self, limit: usize) -> bool {
        self.threads <= self.running.len() && self.threads < limit + MOST_STUCK
    }

    pub(super) fn has_no_thread_left(&self, limit: usize, now: Instant) -> bool {
        self.idle == 0 && self.threads >= limit + MOST_STUCK && self.occupied(now) >= MOST_STUCK
    }

    /// Everything of the object that is queued or waits for its next try, and what is under way: to be cancelled.
    pub(super) fn forget(&mut self, key: u64) -> (Vec<Job>, Vec<Arc<Job>>) {
        let mut jobs = Vec::new();
        if let Some(queue) = self.objects.get_mut(&key) {
            jobs.extend(std::mem::take(&mut queue.demand).into_values());
            jobs.extend(std::mem::take(&mut queue.advance).into_values());
            self.queued -= jobs.len();
        }
        jobs.extend(take_out(&mut self.delayed, &|job| job.key() == key));
        let asked: Vec<Arc<Job>> = self.unanswered().into_iter().filter(|job| job.key() == key).collect();
        for job in &asked {
            self.settle(job.number());
            self.cancelled.insert(job.number(), Arc::clone(job));
        }
        (jobs, asked)
    }

    /// All jobs that are queued or wait for their next try.
    pub(super) fn take_all(&mut self) -> Vec<Job> {
        let mut jobs: Vec<Job> = std::mem::take(&mut self.delayed).into_values().collect();
        for queue in self.objects.values_mut() {
            jobs.extend(std::mem::take(&mut queue.demand).into_values());
            jobs.extend(std::mem::take(&mut queue.advance).into_values());
        }
        self.queued = 0;
        jobs
    }

    /// All calls that are queued. They keep objects, which keep the workers: to be dropped, with no lock held.
    pub(super) fn take_others(&mut self) -> Vec<Task> {
        self.objects.values_mut().flat_map(|queue| std::mem::take(&mut queue.others)).collect()
    }

    /// Has `job` queued again at `at`.
    pub(super) fn delay(&mut self, at: Instant, job: Job) {
        let number = self.number();
        self.delayed.insert((at, number), job);
    }

    /// When the supervisor has to look again, if nothing changes.
    pub(super) fn next_look(&self, limit: usize, now: Instant) -> Option<Instant> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let no_thread = self.has_no_thread_left(limit, now);
        let blocked = self.blocked_since();
        let queued = self.objects.iter().flat_map(|(key, queue)| {
            let since = blocked.get(key).copied();
            let waits = move |job: &&Job| no_thread || since.is_some_and(|since| job.queued() >= since);
            queue.demand.values().filter(waits).filter_map(Job::queue_deadline)
        });
        let queued = queued.min();
        // Somebody waits for a thread: look again when a call is long enough under way to start another.
        let waits = self.ready.iter().any(|key| self.objects.get(key).is_some_and(ObjectQueue::has_work));
        let slow = self.running.iter().filter(|_| waits && !no_thread).map(|running| running.started + SLOW);
        let slow = slow.filter(|at| *at > now).min();
        delayed.into_iter().chain(deadline).chain(queued).chain(slow).min()
    }
}
