//! A pager that keeps what it is asked, until a test answers.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use memobj::pagers::{Description, LengthRequest, Pager, SupplyRequest, SyncRequest, WriteRequest};

/// Keeps its requests. Clones are the same pager.
#[derive(Clone)]
pub struct Kept {
    description: Description,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    supplies: Vec<SupplyRequest>,
    writes: Vec<WriteRequest>,
    /// Ranges in the order in which they were asked for.
    supplied: Vec<Range<u64>>,
    written: Vec<Range<u64>>,
    most: usize,
    detached: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("description", &self.description).finish_non_exhaustive()
    }
}

impl Kept {
    /// A pager that says `description` of itself.
    pub fn new(description: Description) -> Self {
        Self { description, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all supplies that nobody has answered, once there are `count`.
    ///
    /// # Panics
    ///
    /// If that takes longer than any machine may.
    pub fn supplies(&self, count: usize) -> Vec<SupplyRequest> {
        self.wait("supplies", |state| state.supplies.len() >= count);
        std::mem::take(&mut self.lock().supplies)
    }

    /// Takes all writes that nobody has answered, once there are `count`.
    ///
    /// # Panics
    ///
    /// As [`supplies`](Self::supplies).
    pub fn writes(&self, count: usize) -> Vec<WriteRequest> {
        self.wait("writes", |state| state.writes.len() >= count);
        std::mem::take(&mut self.lock().writes)
    }

    fn wait(&self, what: &str, enough: impl Fn(&State) -> bool) {
        let (state, changed) = (self.lock(), &self.state.1);
        let waited = changed.wait_timeout_while(state, crate::fixture::GUARD, |state| !enough(state));
        let (state, ended) = waited.unwrap_or_else(PoisonError::into_inner);
        let (supplies, writes) = (state.supplies.len(), state.writes.len());
        assert!(!ended.timed_out(), "waited for {what}: there are {supplies} supplies and {writes} writes");
    }

    /// Supplies that are kept now.
    pub fn waiting(&self) -> usize {
        self.lock().supplies.len()
    }

    /// The most requests of one kind that were kept at once.
    pub fn most(&self) -> usize {
        self.lock().most
    }

    /// All ranges so far that were asked for, in order.
    pub fn supplied(&self) -> Vec<Range<u64>> {
        self.lock().supplied.clone()
    }

    /// All ranges so far that were offered, in order.
    pub fn written(&self) -> Vec<Range<u64>> {
        self.lock().written.clone()
    }

    /// Whether the object was closed.
    pub fn is_detached(&self) -> bool {
        self.lock().detached
    }
}

impl Pager for Kept {
    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn supply(&self, request: SupplyRequest) {
        let mut state = self.lock();
        state.supplied.push(request.range());
        state.supplies.push(request);
        state.most = state.most.max(state.supplies.len());
        self.state.1.notify_all();
    }

    fn write_back(&self, request: WriteRequest) {
        let mut state = self.lock();
        state.written.push(request.range());
        state.writes.push(request);
        state.most = state.most.max(state.writes.len());
        self.state.1.notify_all();
    }

    fn sync(&self, request: SyncRequest) {
        request.done();
    }

    fn set_length(&self, request: LengthRequest) {
        request.done();
    }

    fn detach(&self) {
        self.lock().detached = true;
    }
}
