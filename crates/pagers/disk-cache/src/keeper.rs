//! The thread that writes blocks and evicts, and the queue before it.
//!
//! ```text
//!   answers ----> admit: within waiting_bytes? ----> queue ----> keeper thread ----> Store::keep
//!                 no: the block is not kept                        |  too much in use: Evictor
//! ```

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::counters::HandleCounters;
use crate::evict::Evictor;
use crate::format;
use crate::identity::BlockId;
use crate::store::{Store, Written};

/// Who hears what became of a block.
pub(crate) trait KeepFor: Send + Sync {
    /// Whether the block may be kept still.
    fn may_keep(&self) -> bool;

    /// It waits no longer. Called once.
    fn ended(&self, keep: &Keep, result: &io::Result<Written>);
}

/// A block that is to be written.
pub(crate) struct Keep {
    pub(crate) id: BlockId,
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) keep_for: Arc<dyn KeepFor>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Keep>,
    waiting_bytes: u64,
    /// The thread has something under way.
    busy: bool,
    /// Something was removed from its place.
    has_removed: bool,
    closed: bool,
}

pub(crate) struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
    most_waiting: u64,
    store: Arc<Store>,
    evictor: Arc<Evictor>,
    counters: Arc<HandleCounters>,
}

impl Keeper {
    /// Starts the thread. It ends when the keeper is [closed](Self::close) and the queue is empty.
    pub(crate) fn start(
        store: Arc<Store>,
        evictor: Arc<Evictor>,
        counters: Arc<HandleCounters>,
        most_waiting: u64,
    ) -> io::Result<Arc<Self>> {
        let state = Mutex::new(State { busy: true, ..State::default() });
        let keeper =
            Arc::new(Self { state, changed: Condvar::new(), most_waiting, store, evictor, counters });
        let thread = std::thread::Builder::new().name("memobj-keeper".into());
        thread.spawn({
            let keeper = Arc::clone(&keeper);
            move || keeper.run()
        })?;
        Ok(keeper)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is memory for a block of `bytes`; then they are taken, until it has been written.
    pub(crate) fn admit(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        let fits = state.waiting_bytes.saturating_add(bytes) <= self.most_waiting;
        if fits {
            state.waiting_bytes += bytes;
        }
        fits
    }

    /// Has a block written that was [admitted](Self::admit).
    pub(crate) fn push(&self, keep: Keep) {
        self.lock().queue.push_back(keep);
        self.changed.notify_all();
    }

    /// Something was removed from its place, and is to be deleted.
    pub(crate) fn removed(&self) {
        self.lock().has_removed = true;
        self.changed.notify_all();
    }

    /// Writes what is there already, and ends.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until nothing waits to be written, for `limit` at most. Says whether that is so.
    pub(crate) fn settle(&self, limit: Duration) -> bool {
        let waits = |state: &mut State| state.waiting_bytes > 0 || state.busy || state.has_removed;
        let waited = self.changed.wait_timeout_while(self.lock(), limit, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn run(&self) {
        self.count(self.evictor.tidy_if_due());
        loop {
            let mut state = self.lock();
            state.busy = false;
            self.changed.notify_all();
            let idle = |state: &mut State| state.queue.is_empty() && !state.has_removed && !state.closed;
            state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            state.busy = true;
            let keep = state.queue.pop_front();
            let has_removed = std::mem::take(&mut state.has_removed);
            drop(state);
            if has_removed {
                self.count(self.evictor.delete_removed_now());
            }
            match keep {
                Some(keep) => self.keep(keep),
                None if has_removed => {}
                None => {
                    self.lock().busy = false;
                    return self.changed.notify_all();
                }
            }
        }
    }

    fn count(&self, result: io::Result<()>) {
        if result.is_err() {
            self.counters.failures.add(1);
        }
    }

    fn keep(&self, keep: Keep) {
        if keep.keep_for.may_keep() {
            let result = self.write(&keep);
            // Asked again, since the answer may have changed while it was written.
            if matches!(result, Ok(Written::Kept)) && !keep.keep_for.may_keep() {
                self.count(self.store.remove(&keep.id).map(drop));
                self.count(self.evictor.delete_removed_now());
            }
            keep.keep_for.ended(&keep, &result);
        } else {
            keep.keep_for.ended(&keep, &Ok(Written::ThereAlready));
        }
        let bytes = keep.bytes.len() as u64;
        // The memory first, then the room for it.
        drop(keep);
        let mut state = self.lock();
        state.waiting_bytes = state.waiting_bytes.saturating_sub(bytes);
    }

    fn write(&self, keep: &Keep) -> io::Result<Written> {
        let mut written = self.store.keep(&keep.id, &keep.bytes)?;
        if written == Written::NoRoom {
            self.evictor.make_room(format::charge(format::file_bytes(keep.id.length)))?;
            written = self.store.keep(&keep.id, &keep.bytes)?;
        }
        if written == Written::Kept {
            self.count(self.evictor.evict_if_high());
        }
        Ok(written)
    }
}
