//! Memory of requests that are under way: bounded for all pagers of a cache together.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use memobj_linux::region::{Chunk, ChunkPool, SMALL};

use crate::locks::{Rank, RankedMutex};

/// What requests may take beside a share of the budget.
const LEAST_BYTES: u64 = 8 << 20;
/// Buffers that are kept for later requests while no request has them, in bytes.
const KEPT_BYTES: usize = 16 << 20;
/// Buffers that come back when whoever has them drops them. Others are freed.
const MOST_BUFFERS: usize = 256;

/// The buffers of all requests that pagers have.
pub(super) struct Memory {
    limit: u64,
    used: AtomicU64,
    /// Something could not be reserved since the last look.
    is_short: AtomicBool,
    /// Each has one chunk, which a request has or nobody. The newest are at the end.
    buffers: RankedMutex<VecDeque<Arc<ChunkPool>>>,
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
        self.memory.trim();
        if self.memory.is_short.swap(false, Ordering::SeqCst)
            && let Some(has_room) = self.memory.has_room.get()
        {
            has_room();
        }
    }
}

impl Memory {
    /// A quarter of the budget, and a constant: what is under way decides how fast a far pager can be read.
    pub(super) fn new(budget_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit: budget_bytes / 4 + LEAST_BYTES,
            used: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            buffers: RankedMutex::new(Rank::Rings, VecDeque::new()),
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

    /// A buffer of at least `len` bytes; what it has in it is rubbish. Whoever has it drops it.
    pub(super) fn buffer(&self, len: usize) -> io::Result<Chunk> {
        let len = len.next_multiple_of(SMALL);
        let is_free = |pool: &Arc<ChunkPool>| if pool.chunk_bytes() == len { pool.take() } else { None };
        // The one that was used last is in the processor's caches.
        if let Some(chunk) = self.buffers.lock().iter().rev().find_map(is_free) {
            return Ok(chunk);
        }
        let pool = ChunkPool::new(1, len)?;
        let chunk = pool.take().ok_or(io::ErrorKind::OutOfMemory)?;
        let mut buffers = self.buffers.lock();
        if buffers.len() < MOST_BUFFERS {
            buffers.push_back(pool);
        }
        Ok(chunk)
    }

    /// Frees the oldest buffers that no request has, down to what is kept.
    fn trim(&self) {
        let mut freed = Vec::new();
        let mut kept_bytes = 0;
        let mut buffers = self.buffers.lock();
        for at in (0..buffers.len()).rev() {
            if !buffers[at].is_free() {
                continue;
            }
            kept_bytes += buffers[at].chunk_bytes();
            if kept_bytes > KEPT_BYTES {
                freed.extend(buffers.remove(at));
            }
        }
        // Memory is unmapped without the lock.
        drop(buffers);
        drop(freed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_buffer_that_is_dropped_is_used_again() {
        let memory = Memory::new(64 << 20);
        let mut first = memory.buffer(MIB).unwrap();
        first[0] = 7;
        let address = first.as_ptr();
        drop(first);
        let again = memory.buffer(MIB - 1).unwrap();
        assert_eq!((again.as_ptr(), again[0]), (address, 7));
        assert_ne!(memory.buffer(MIB).unwrap().as_ptr(), address, "somebody has it");
        assert_ne!(memory.buffer(2 * MIB).unwrap().as_ptr(), address);
    }

    #[test]
    fn no_more_is_kept_than_said() {
        let memory = Memory::new(1 << 30);
        let room = memory.reserve(64 << 20, Need::Demand).unwrap();
        let buffers: Vec<Chunk> = (0..64).map(|_| memory.buffer(MIB).unwrap()).collect();
        drop(buffers);
        drop(room);
        let kept: usize = memory.buffers.lock().iter().map(|pool| pool.chunk_bytes()).sum();
        assert_eq!(kept, KEPT_BYTES);
        // Those that are in use are not counted.
        let buffers: Vec<Chunk> = (0..64).map(|_| memory.buffer(MIB).unwrap()).collect();
        drop(memory.reserve(1, Need::Demand));
        assert_eq!(memory.buffers.lock().len(), 64);
        drop(buffers);
    }
}
