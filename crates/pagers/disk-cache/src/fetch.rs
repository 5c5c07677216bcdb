//! One request of the inner pager, and everybody who waits for it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memobj::pagers::SupplyControl;

use crate::pending::{Pending, Source};

/// A part of a request that waits.
pub(crate) struct Waiter {
    pub(crate) pending: Arc<Pending>,
    pub(crate) part: Range<u64>,
}

#[derive(Default)]
struct State {
    waiters: Vec<Waiter>,
    control: Option<SupplyControl>,
    /// Nobody can join: it was cancelled, or all have their answer.
    over: bool,
}

pub(crate) struct Fetch {
    /// What is asked for.
    pub(crate) range: Range<u64>,
    /// The blocks, all of whose bytes are asked for; none if only a part of a block is.
    pub(crate) blocks: Range<u64>,
    state: Mutex<State>,
}

impl Fetch {
    pub(crate) fn new(range: Range<u64>, blocks: Range<u64>) -> Arc<Self> {
        Arc::new(Self { range, blocks, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one who waits; it is given back if it is too late.
    pub(crate) fn join(&self, waiter: Waiter) -> Result<(), Waiter> {
        let mut state = self.lock();
        if state.over {
            return Err(waiter);
        }
        if waiter.pending.is_urgent()
            && let Some(control) = &state.control
        {
            control.mark_urgent();
        }
        state.waiters.push(waiter);
        Ok(())
    }

    /// The inner request exists, and is cancelled by `control`. `false`: nobody wants it any more.
    pub(crate) fn set_control(&self, control: SupplyControl) -> bool {
        let mut state = self.lock();
        if !state.waiters.iter().any(|waiter| waiter.pending.is_urgent()) {
            control.mark_read_ahead();
        }
        state.control = Some(control);
        !state.over
    }

    /// All who wait now.
    pub(crate) fn take_waiters(&self) -> Vec<Waiter> {
        std::mem::take(&mut self.lock().waiters)
    }

    /// Lets nobody join any more, if nobody waits. Otherwise returns those who do.
    pub(crate) fn end(&self) -> Vec<Waiter> {
        let mut state = self.lock();
        state.over |= state.waiters.is_empty();
        std::mem::take(&mut state.waiters)
    }
}

impl Source for Fetch {
    /// The last one who leaves cancels the inner request.
    fn leave(&self, pending: &Arc<Pending>) {
        let mut state = self.lock();
        let before = state.waiters.len();
        state.waiters.retain(|waiter| !Arc::ptr_eq(&waiter.pending, pending));
        // Those whose answer is on its way have left before.
        if state.over || before == 0 || !state.waiters.is_empty() {
            return;
        }
        state.over = true;
        let control = state.control.take();
        // It calls the inner pager.
        drop(state);
        if let Some(control) = control {
            control.cancel();
        }
    }
}
