//! Memory of requests that are under way: bounded for all pagers of a cache together.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use memobj_linux::region::{Chunk, ChunkPool, SMALL};

use crate::locks::{Rank, RankedMutex};

/// What requests may take beside a share of the budget.
const LEAST_BYTES: u64 = 8 << 20;
/// Buffers that are kept for later requests, in bytes.
const KEPT_BYTES: usize = 16 << 20;

/// The buffers of all requests that pagers have.
pub(super) struct Memory {
    limit: u64,
    used: AtomicU64,
    /// Something could not be reserved since the last look.
    is_short: AtomicBool,
    kept: RankedMutex<Vec<Chunk>>,
    /// Called when there is room again that somebody has not found.
    has_room: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("limit", &self.limit).field("used", &self.used).finish_non_exhaustive()
    }
}

/// Whether a reservation may pass the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Nobody waits for it: it leaves a quarter to those who wait.
    Guess,
    /// Somebody waits.
    Demand,
    /// Somebody waits, and nothing of the object is under way: without it the object would get nowhere.
    Progress,
}

/// Bytes of the memory of requests, until dropped: with no lock of the workers held.
#[derive(Debug)]
pub(super) struct Reserved {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Reserved {
    /// Both, as one.
    pub(super) fn join(&mut self, mut other: Reserved) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.memory.is_short.swap(false, Ordering::SeqCst)
            && let Some(has_room) = self.memory.has_room.get()
        {
            has_room();
        }
    }
}

impl Memory {
    /// An eighth of the budget, and a constant.
    pub(super) fn new(budget_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit: budget_bytes / 8 + LEAST_BYTES,
            used: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            kept: RankedMutex::new(Rank::Rings, Vec::new()),
            has_room: OnceLock::new(),
        })
    }

    /// Sets `bytes` aside, if there is room for that need.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64, need: Need) -> Option<Reserved> {
        let limit = match need {
            Need::Guess => self.limit / 4 * 3,
            Need::Demand => self.limit,
            Need::Progress => u64::MAX,
        };
        let take = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        let try_take = || self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        if !try_take() {
            // Said before the second look: whoever gives room back meanwhile sees one or the other.
            self.is_short.store(true, Ordering::SeqCst);
            if !try_take() {
                return None;
            }
        }
        Some(Reserved { memory: Arc::clone(self), bytes })
    }

    /// Whether guesses find no room for `bytes`.
    pub(super) fn is_full_for_guesses(&self, bytes: u64) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) > self.limit / 4 * 3
    }

    /// Has `call` called, with no lock held, when there is room that somebody has not found before.
    pub(super) fn when_there_is_room(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.has_room.set(Box::new(call));
    }

    /// A buffer of at least `len` bytes; what it has in it is rubbish.
    pub(super) fn buffer(&self, len: usize) -> io::Result<Chunk> {
        let len = len.next_multiple_of(SMALL);
        let mut kept = self.kept.lock();
        if let Some(at) = kept.iter().position(|chunk| chunk.len() == len) {
            return Ok(kept.swap_remove(at));
        }
        drop(kept);
        ChunkPool::new(1, len)?.take().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Keeps `buffer` for a later request.
    pub(super) fn give_back(&self, buffer: Chunk) {
        let mut kept = self.kept.lock();
        let bytes: usize = kept.iter().map(|chunk| chunk.len()).sum();
        if bytes + buffer.len() <= KEPT_BYTES {
            kept.push(buffer);
        }
    }
}
