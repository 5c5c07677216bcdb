//! Buffers that reads of a cache go to before they are placed.

use std::io;
use std::sync::Arc;

use memobj_linux::area::FillClaim;
use memobj_linux::region::{ChunkPool, LARGE, SMALL};
use memobj_linux::ring::{Completion, Mechanism, Ring, RingUser};

use crate::locks::{Rank, RankedMutex};
use crate::options::Reads;

const DEPTH: u32 = 64;
/// 4 KiB pages that one read takes at most.
pub(crate) const RUN_PAGES: u64 = 64;
const RUN_CHUNKS: usize = 8;
/// Large pages outside the pool in flight for one batch.
const LARGE_CHUNKS: usize = 4;
/// Rings that are kept for the next batch.
const KEPT_RINGS: usize = 4;
/// Pages that signal handlers can be reading at once; more threads wait for one another.
const BOUNCE_PAGES: usize = 64;

/// Single pages for signal handlers, and rings with their buffers, kept from one batch to the next.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// How rings of this cache work.
    pub(crate) mechanism: Mechanism,
    /// Taken and given back without a lock.
    pub(crate) bounce: Arc<ChunkPool>,
    rings: RankedMutex<Vec<BatchRing>>,
}

/// A ring with its buffers, lent to one batch at a time.
#[derive(Debug)]
pub(crate) struct BatchRing {
    pub(crate) ring: Ring<FillClaim>,
    pub(crate) pages: Arc<ChunkPool>,
    pub(crate) runs: Arc<ChunkPool>,
    /// For large pages that are not frames of the pool.
    pub(crate) large: Arc<ChunkPool>,
    pub(crate) done: Vec<Completion<FillClaim>>,
}

impl Buffers {
    pub(crate) fn new(reads: Reads) -> io::Result<Self> {
        let mechanism = match reads {
            Reads::Auto => Mechanism::Auto,
            Reads::Threads => Mechanism::Threads,
        };
        let bounce = ChunkPool::new(BOUNCE_PAGES, SMALL)?;
        Ok(Self { mechanism, bounce, rings: RankedMutex::new(Rank::Rings, Vec::new()) })
    }

    pub(crate) fn borrow_ring(&self) -> io::Result<BatchRing> {
        if let Some(ring) = self.rings.lock().pop() {
            return Ok(ring);
        }
        Ok(BatchRing {
            ring: Ring::new(DEPTH, self.mechanism, RingUser::OneAtATime)?,
            pages: ChunkPool::new(DEPTH as usize, SMALL)?,
            runs: ChunkPool::new(RUN_CHUNKS, RUN_PAGES as usize * SMALL)?,
            large: ChunkPool::new(LARGE_CHUNKS, LARGE)?,
            done: Vec::new(),
        })
    }

    pub(crate) fn return_ring(&self, ring: BatchRing) {
        let mut rings = self.rings.lock();
        if rings.len() < KEPT_RINGS && ring.ring.in_flight() == 0 {
            rings.push(ring);
        }
    }

    /// Ends the rings that are kept.
    pub(crate) fn clear(&self) {
        self.rings.lock().clear();
    }
}
