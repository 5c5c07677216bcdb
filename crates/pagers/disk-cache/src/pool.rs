//! Threads that read blocks.
//!
//! ```text
//!   supply() ----> urgent, others (bounded) ----> a few threads ----> Supplier::work
//!                  full: the caller gets its work back                  |  outside(..): a call of an inner pager
//! ```
//!
//! Threads start when they are needed. A thread that calls an inner pager does not count meanwhile: another one starts in its
//! place if there is work, so that a pager that blocks does not keep others from their blocks.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use memobj::pagers::SupplyRequest;

use crate::fetch::Waiter;

/// The most work that waits.
const MOST_WAITING: usize = 1024;
/// The most threads, those that are in inner pagers included.
const MOST_THREADS: usize = 64;

/// What a thread is to do.
pub(crate) enum Work {
    /// Look for the blocks of a request.
    Supply(SupplyRequest),
    /// Ask the inner pager for what one waits for, and for nothing beside it.
    Narrow(Waiter),
}

impl Work {
    fn is_urgent(&self) -> bool {
        match self {
            Self::Supply(request) => request.is_urgent(),
            Self::Narrow(_) => true,
        }
    }
}

/// Memory of a thread for blocks of which a part is wanted.
pub(crate) type Scratch = Vec<u8>;

/// Who does the work: an object.
pub(crate) trait Supplier: Send + Sync {
    fn work(&self, work: Work, scratch: &mut Scratch);

    /// Gives this owner up. The last one gets what is to be dropped, for which a pager may need long.
    fn give_up(self: Arc<Self>) -> Option<Box<dyn Send>>;
}

struct Job {
    supplier: Weak<dyn Supplier>,
    work: Work,
}

#[derive(Default)]
struct State {
    urgent: VecDeque<Job>,
    others: VecDeque<Job>,
    threads: usize,
    idle: usize,
    outside: usize,
    closed: bool,
}

impl State {
    fn waiting(&self) -> usize {
        self.urgent.len() + self.others.len()
    }
}

pub(crate) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
    limit: usize,
}

impl Pool {
    /// At most `limit` threads that are not in inner pagers.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), limit })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread do `work`, or gives it back: too much waits, or there is no thread.
    pub(crate) fn submit(self: &Arc<Self>, supplier: &Weak<dyn Supplier>, work: Work) -> Result<(), Work> {
        let is_urgent = work.is_urgent();
        let mut state = self.lock();
        if state.closed || state.waiting() >= MOST_WAITING {
            return Err(work);
        }
        let additional = state.waiting() + 1;
        if !self.start_for(&mut state, additional) && state.threads == 0 {
            return Err(work);
        }
        let job = Job { supplier: Weak::clone(supplier), work };
        if is_urgent {
            state.urgent.push_back(job)
        } else {
            state.others.push_back(job)
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Starts a thread if `jobs` wait, fewer are idle, and one more is allowed. Says whether it did.
    fn start_for(self: &Arc<Self>, state: &mut State, jobs: usize) -> bool {
        let active = state.threads.saturating_sub(state.outside);
        if jobs <= state.idle || active >= self.limit || state.threads >= MOST_THREADS {
            return false;
        }
        let pool = Arc::clone(self);
        let started = std::thread::Builder::new().name("memobj-blocks".into()).spawn(move || pool.run());
        state.threads += usize::from(started.is_ok());
        started.is_ok()
    }

    /// Runs what may block in an inner pager, or drops one.
    pub(crate) fn outside<R>(self: &Arc<Self>, call: impl FnOnce() -> R) -> R {
        {
            let mut state = self.lock();
            state.outside += 1;
            let waiting = state.waiting();
            self.start_for(&mut state, waiting);
        }
        // By a panic too.
        let _back = Back(self);
        call()
    }

    /// Threads end once nothing waits.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn run(self: Arc<Self>) {
        let mut scratch = Scratch::new();
        while let Some(job) = self.next() {
            if let Some(supplier) = job.supplier.upgrade() {
                // A request that a panic drops is answered by that. The panic was told where it happened.
                let _ = catch_unwind(AssertUnwindSafe(|| supplier.work(job.work, &mut scratch)));
                // Outside only if there is something to drop: while a thread is outside, another one starts in its place.
                if let Some(last) = supplier.give_up() {
                    let _ = catch_unwind(AssertUnwindSafe(|| self.outside(|| drop(last))));
                }
            }
        }
    }

    /// The next job, or `None` if this thread is to end.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.threads - state.outside.min(state.threads) > self.limit {
                break;
            }
            if let Some(job) = state.urgent.pop_front().or_else(|| state.others.pop_front()) {
                return Some(job);
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        state.threads -= 1;
        None
    }
}

/// A thread is back when this is dropped.
struct Back<'a>(&'a Pool);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.0.lock().outside -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread::ThreadId;

    use memobj_sim::fixture::wait_until;

    use super::*;

    const JOBS: usize = 200;

    /// Notes which threads work, and how often.
    #[derive(Default)]
    struct Notes(Mutex<(HashSet<ThreadId>, usize)>);

    impl Supplier for Notes {
        fn work(&self, _: Work, _: &mut Scratch) {
            let mut notes = self.0.lock().unwrap();
            notes.0.insert(std::thread::current().id());
            notes.1 += 1;
        }

        fn give_up(self: Arc<Self>) -> Option<Box<dyn Send>> {
            Arc::into_inner(self).map(|last| Box::new(last) as Box<dyn Send>)
        }
    }

    /// It started one for each block that was read while others waited.
    #[test]
    fn no_thread_starts_in_place_of_one_that_stays() {
        let (pool, notes) = (Pool::new(2), Arc::new(Notes::default()));
        let supplier = Arc::downgrade(&notes);
        let supplier: Weak<dyn Supplier> = supplier;
        for _ in 0..JOBS {
            let request = SupplyRequest::new(0..4096, |_| {}).unwrap();
            assert!(pool.submit(&supplier, Work::Supply(request)).is_ok());
        }
        wait_until("all is done", || notes.0.lock().unwrap().1 == JOBS);
        pool.close();
        assert!(notes.0.lock().unwrap().0.len() <= 2);
    }
}
