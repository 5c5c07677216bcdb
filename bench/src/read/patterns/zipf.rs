//! A skewed trace, the same for every contestant of a repetition, with the hit rate of exact LRU beside it.

use std::time::Instant;

use crate::data::{PAGE_BYTES, PAGE_WORDS, check_word, mix};
use crate::job::{Failure, Sample};
use crate::read::contestant::{Contestant, Worker};
use crate::read::job::ReadJob;
use crate::{timed, trace, usage};

/// Runs the trace in one thread, from a cold cache; the first third is not measured.
pub fn run<C: Contestant>(job: &ReadJob, contestant: &C) -> Result<Sample, Failure> {
    let pages = job.file_bytes / PAGE_BYTES;
    let trace = trace::zipf(pages, job.accesses, job.seed);
    let (warm_up, measured) = trace.split_at(trace.len() / 3);
    let mut worker = contestant.worker()?;
    let mut latencies = timed::latencies();

    for (access, &page) in warm_up.iter().enumerate() {
        load(&mut worker, access, page)?;
    }
    let (before, missed_before) = (usage::now()?, contestant.missed_pages()?);
    let start = Instant::now();
    for (access, &page) in measured.iter().enumerate() {
        let start = Instant::now();
        load(&mut worker, access, page)?;
        timed::record(&mut latencies, start.elapsed());
    }
    let elapsed = start.elapsed();
    let (after, missed_after) = (usage::now()?, contestant.missed_pages()?);

    let accesses = measured.len() as u64;
    let mut sample = timed::sample(accesses, elapsed, (before, after), &latencies)?;
    sample.hit_rate = super::hit_rate(accesses, missed_before, missed_after);
    sample.peak_frame_bytes = contestant.peak_frame_bytes();
    let frames = job.budget_bytes / PAGE_BYTES;
    sample.lru_hit_rate = Some(trace::lru_hit_rate(&trace, pages, frames, warm_up.len()));
    Ok(sample)
}

/// Loads some word of `page` and checks it.
#[inline]
fn load<W: Worker>(worker: &mut W, access: usize, page: u32) -> Result<(), Failure> {
    let word_index = u64::from(page) * PAGE_WORDS + mix(access as u64) % PAGE_WORDS;
    check_word(word_index, worker.load(word_index)?)
}
