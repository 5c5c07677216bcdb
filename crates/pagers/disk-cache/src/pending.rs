//! A request that waits for more than one answer.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use memobj::SupplyError;
use memobj::pagers::SupplyRequest;

/// A source of answers, which is left when nobody waits.
pub(crate) trait Source: Send + Sync {
    /// `pending` waits no longer.
    fn leave(&self, pending: &Arc<Pending>);
}

struct State {
    request: Option<SupplyRequest>,
    /// Answers that are still to come.
    left: usize,
    /// Where they come from.
    sources: Vec<Weak<dyn Source>>,
    is_unwanted: bool,
}

/// Collects the parts of a request, and answers it when there are all, or with the first error.
pub(crate) struct Pending {
    range: Range<u64>,
    is_urgent: bool,
    state: Mutex<State>,
}

impl Pending {
    /// One answer is to come: that of whoever makes this, when it has registered for all others.
    pub(crate) fn new(request: SupplyRequest) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let waits = Weak::clone(weak);
            // Before there is a lock: the hook can be called at once, on this thread.
            request.when_unwanted(move || {
                if let Some(pending) = waits.upgrade() {
                    pending.unwanted();
                }
            });
            let (range, is_urgent) = (request.range(), request.is_urgent());
            let state = State { request: Some(request), left: 1, sources: Vec::new(), is_unwanted: false };
            Self { range, is_urgent, state: Mutex::new(state) }
        })
    }

    fn unwanted(self: &Arc<Self>) {
        let mut state = self.lock();
        state.is_unwanted = true;
        let (sources, request) = (std::mem::take(&mut state.sources), state.request.take());
        drop(state);
        sources.iter().filter_map(Weak::upgrade).for_each(|source| source.leave(self));
        // Its answer finds nobody, and its memory is given back.
        drop(request);
    }

    /// An answer is to come from `source`, which is [left](Source::leave) if nobody waits for it.
    pub(crate) fn comes_from(self: &Arc<Self>, source: Weak<dyn Source>) {
        let mut state = self.lock();
        if !state.is_unwanted {
            return state.sources.push(source);
        }
        drop(state);
        if let Some(source) = source.upgrade() {
            source.leave(self);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn range(&self) -> &Range<u64> {
        &self.range
    }

    pub(crate) fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// One more answer is to come.
    pub(crate) fn expect_one(&self) {
        self.lock().left += 1;
    }

    /// Fills what `bytes`, which begin at the object's offset `start`, have of the request's `part`.
    pub(crate) fn fill(&self, part: &Range<u64>, start: u64, bytes: &[u8]) -> Result<(), SupplyError> {
        let inside = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
        let bytes = bytes.get(inside(part.start)..inside(part.end));
        let bytes = bytes.ok_or_else(|| SupplyError::new(memobj::ErrorKind::Integrity))?;
        match &mut self.lock().request {
            Some(request) => request.fill(part.start, bytes),
            None => Ok(()),
        }
    }

    /// One answer has come. The request is answered with the last one, or with the first error.
    pub(crate) fn one_came(&self, answer: Result<(), SupplyError>) {
        let mut state = self.lock();
        state.left = state.left.saturating_sub(1);
        let over = if state.left == 0 || answer.is_err() { state.request.take() } else { None };
        // Its answer can call anything: not under the lock.
        drop(state);
        match (over, answer) {
            (Some(request), Ok(())) => request.done(),
            (Some(request), Err(error)) => request.fail(error),
            (None, _) => {}
        }
    }
}
