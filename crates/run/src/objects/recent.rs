//! Objects of folders stay open for a while when no program has them open or mapped any more: programs often open what
//! they have just closed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use memobj_linux::locks::{Rank, RankedMutex};

use super::object::Opened;

/// How long, and how many.
const KEPT_FOR: Duration = Duration::from_secs(10);
const MOST_KEPT: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Recent {
    state: RankedMutex<State>,
    has_ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they were closed.
    closed: VecDeque<(Instant, Arc<Opened>)>,
    /// Whether a thread waits to drop them.
    has_thread: bool,
    is_over: bool,
}

impl Recent {
    pub(super) fn new() -> Arc<Self> {
        let state = RankedMutex::new(Rank::RecentObjects, State::default());
        Arc::new(Self { state, has_ended: Condvar::new() })
    }

    /// Keeps the object open for a while. Starts a thread, which ends when nothing is kept any more.
    pub(super) fn keep(self: &Arc<Self>, opened: Arc<Opened>) {
        let mut state = self.state.lock();
        state.closed.retain(|(_, known)| !Arc::ptr_eq(known, &opened));
        state.closed.push_back((Instant::now(), opened));
        let too_many = (state.closed.len() > MOST_KEPT).then(|| state.closed.pop_front());
        let starts = !std::mem::replace(&mut state.has_thread, true);
        drop(state);
        // Its pager is told without the lock.
        drop(too_many);
        if starts {
            let this = Arc::clone(self);
            let thread = std::thread::Builder::new().name("memobj-idle".into());
            if thread.spawn(move || this.drop_by_time()).is_err() {
                self.state.lock().has_thread = false;
            }
        }
    }

    /// Drops all, now and from now on.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        let all = std::mem::take(&mut state.closed);
        drop(state);
        drop(all);
        self.has_ended.notify_all();
    }

    fn drop_by_time(&self) {
        let mut state = self.state.lock();
        loop {
            let Some((closed, _)) = state.closed.front().filter(|_| !state.is_over) else {
                let left = std::mem::take(&mut state.closed);
                state.has_thread = false;
                drop(state);
                drop(left);
                return;
            };
            let left = KEPT_FOR.saturating_sub(closed.elapsed());
            if left.is_zero() {
                let dropped = state.closed.pop_front();
                drop(state);
                drop(dropped);
                state = self.state.lock();
            } else {
                state = state.wait_within(&self.has_ended, left);
            }
        }
    }
}
