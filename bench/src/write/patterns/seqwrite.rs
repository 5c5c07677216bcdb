//! A file of four times the budget overwritten from its start to its end, then one sync.

use std::time::Instant;

use crate::data::PAGE_BYTES;
use crate::job::{Failure, Sample, Written};
use crate::timed::{latencies, record};
use crate::usage;
use crate::write::content::{fill_page, page_digest};
use crate::write::job::WriteJob;
use crate::write::storage::Storage;

/// Bytes stored between two looks at the clock.
const CHUNK_BYTES: u64 = 1 << 20;

/// Overwrites, syncs, and counts both.
pub fn run<S: Storage>(job: &WriteJob, storage: &S) -> Result<Sample, Failure> {
    // The end of the file, so that what is measured is a process that runs, not one that gets its first memory.
    storage.populate(job.file_bytes - job.budget_bytes / 16 * 15..job.file_bytes)?;
    let mut chunk = vec![0; CHUNK_BYTES as usize];
    let (mut digest, mut histogram) = (0_u64, latencies());
    let before = usage::now()?;
    let begin = Instant::now();
    for offset in (0..job.file_bytes).step_by(CHUNK_BYTES as usize) {
        for (page, bytes) in (offset / PAGE_BYTES..).zip(chunk.chunks_mut(PAGE_BYTES as usize)) {
            fill_page(page, job.stamp, bytes);
            digest = digest.wrapping_add(page_digest(page, job.stamp));
        }
        let start = Instant::now();
        storage.write_at(offset, &chunk)?;
        record(&mut histogram, start.elapsed());
    }
    let start_sync = Instant::now();
    storage.sync()?;
    let sync = start_sync.elapsed();
    let elapsed = begin.elapsed();
    let counters = (before, usage::now()?);
    let mut sample = crate::timed::sample(histogram.len(), elapsed, counters, &histogram)?;
    sample.bytes = job.file_bytes;
    sample.sync_ns = Some(sync.as_nanos() as u64);
    sample.written = Some(Written::Pages(digest));
    sample.peak_frame_bytes = storage.peak_frame_bytes();
    Ok(sample)
}
