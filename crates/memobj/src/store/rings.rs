//! Rings with their buffers, kept from one batch to the next.

use std::sync::Arc;

use memobj_sys::area::FillClaim;
use memobj_sys::region::{ChunkPool, LARGE, SMALL};
use memobj_sys::ring::{Completion, Owner, Ring};

use super::CacheShared;

const DEPTH: u32 = 64;
/// 4 KiB pages that one read takes at most.
pub(crate) const RUN_PAGES: u64 = 64;
const RUN_CHUNKS: usize = 8;
/// Large pages outside the pool in flight for one batch.
const LARGE_CHUNKS: usize = 4;
/// Rings that are kept for the next batch.
const KEPT_RINGS: usize = 4;

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

impl CacheShared {
    pub(crate) fn borrow_ring(&self) -> std::io::Result<BatchRing> {
        if let Some(ring) = self.rings.lock().pop() {
            return Ok(ring);
        }
        Ok(BatchRing {
            ring: Ring::new(DEPTH, self.mechanism(), Owner::OneAtATime)?,
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
}
