//! A file of four times the budget read in order, every 64th byte, each thread its own part. Before that, each
//! thread reads the end of its part, a budget's worth in all: what is measured is a process that runs, not one
//! that gets its first memory from the kernel.

use std::ops::Range;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::data::{PAGE_BYTES, PAGE_WORDS, WORD_BYTES, expected_sum};
use crate::job::{Failure, Sample};
use crate::read::contestant::{Contestant, Worker};
use crate::read::job::ReadJob;
use crate::{timed, usage};

/// One word of every cache line.
const STEP_WORDS: u64 = 8;
/// Words between two looks at the clock: one MiB.
const CHUNK_WORDS: u64 = (1 << 20) / WORD_BYTES;

/// Scans the file and checks the sums afterwards.
pub fn run<C: Contestant>(job: &ReadJob, contestant: &C) -> Result<Sample, Failure> {
    let parts = parts(job.file_bytes / PAGE_BYTES, u64::from(job.threads));
    let ready = Barrier::new(parts.len() + 1);
    let (elapsed, counters, results) = thread::scope(|scope| {
        let ready = &ready;
        let warm_words = job.budget_bytes / u64::from(job.threads) / WORD_BYTES;
        let start_scan = |part: &Range<u64>| {
            let part = part.clone();
            scope.spawn(move || scan(contestant, part, warm_words, ready))
        };
        let threads: Vec<_> = parts.iter().map(start_scan).collect();
        let before = usage::now()?;
        ready.wait();
        let start = Instant::now();
        let results: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let elapsed = start.elapsed();
        Ok::<_, Failure>((elapsed, (before, usage::now()?), results))
    })?;

    let mut latencies = timed::latencies();
    for (part, result) in parts.iter().zip(results) {
        let (sum, histogram) = result.map_err(|_| Failure::Failed("a thread panicked".into()))??;
        if sum != expected_sum(part.clone(), STEP_WORDS) {
            return Err(Failure::WrongData(format!("sum of words [{}, {})", part.start, part.end)));
        }
        latencies.add(&histogram).map_err(|error| Failure::Failed(error.to_string()))?;
    }
    let mut sample = timed::sample(job.file_bytes >> 20, elapsed, counters, &latencies)?;
    sample.bytes = job.file_bytes;
    sample.peak_frame_bytes = contestant.peak_frame_bytes();
    Ok(sample)
}

/// Words of each thread's part: whole pages, together all of them.
fn parts(pages: u64, threads: u64) -> Vec<Range<u64>> {
    let start = |thread: u64| pages * thread / threads * PAGE_WORDS;
    (0..threads).map(|thread| start(thread)..start(thread + 1)).collect()
}

fn scan<C: Contestant>(
    contestant: &C,
    part: Range<u64>,
    warm_words: u64,
    ready: &Barrier,
) -> Result<(u64, Histogram<u64>), Failure> {
    let worker = contestant.worker().and_then(|mut worker| {
        let warm = part.end.saturating_sub(warm_words).max(part.start)..part.end;
        worker.sum(warm, STEP_WORDS).map(|_| worker)
    });
    ready.wait();
    let mut worker = worker?;
    let mut latencies = timed::latencies();
    let mut sum: u64 = 0;
    for chunk in part.clone().step_by(CHUNK_WORDS as usize) {
        let words = chunk..(chunk + CHUNK_WORDS).min(part.end);
        let start = Instant::now();
        sum = sum.wrapping_add(worker.sum(words, STEP_WORDS)?);
        timed::record(&mut latencies, start.elapsed());
    }
    Ok((sum, latencies))
}
