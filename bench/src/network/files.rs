//! Reads of a file by pread(2): of a mount, or of this machine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Instant;

use super::expected::{Expected, check_page};
use super::job::{NetworkJob, Task};
use super::ours::batches;
use crate::data::PAGE_BYTES;
use crate::job::{Failure, Sample};
use crate::timed::{latencies, record, sample};
use crate::usage;

/// Does what the job says.
pub fn measure(job: &NetworkJob) -> Result<Sample, Failure> {
    let file = File::open(&job.place)?;
    if job.task == Task::Scattered {
        return batches(job, |pages| read_pages(&file, pages));
    }
    let expected = Expected::new(job.length_bytes, job.block_bytes);
    let (mut buffer, mut latencies) = (vec![1; job.block_bytes as usize], latencies());
    let (before, start) = (usage::now()?, Instant::now());
    for at in (0..job.length_bytes).step_by(job.block_bytes as usize) {
        let block_start = Instant::now();
        let wanted = job.block_bytes.min(job.length_bytes - at) as usize;
        file.read_exact_at(&mut buffer[..wanted], at)?;
        expected.check(at, &buffer[..wanted])?;
        record(&mut latencies, block_start.elapsed());
    }
    let blocks = job.length_bytes.div_ceil(job.block_bytes);
    let sample = sample(blocks, start.elapsed(), (before, usage::now()?), &latencies)?;
    Ok(Sample { bytes: job.length_bytes, ..sample })
}

/// Each page by a thread of its own.
fn read_pages(file: &File, pages: &[u64]) -> Result<(), Failure> {
    let read = |page: u64| {
        let mut bytes = vec![1; PAGE_BYTES as usize];
        file.read_exact_at(&mut bytes, page)?;
        check_page(page, &bytes)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = pages.iter().map(|page| scope.spawn(move || read(*page))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| Failure::Failed("a thread panicked".into()))?)
    })
}
