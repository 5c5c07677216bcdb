//! What one thread does again and again in the patterns that run for a time.

use std::ops::Range;

use crate::data::{PAGE_BYTES, PAGE_WORDS, WORD_BYTES, check_word, expected_sum};
use crate::job::{Failure, Sample};
use crate::read::contestant::{Contestant, Worker};
use crate::read::job::ReadJob;
use crate::timed;
use crate::trace::Random;

/// Pages of one batch.
const BATCH_PAGES: usize = 64;
/// Bytes summed between two looks at the clock.
const SCAN_CHUNK_BYTES: u64 = 256 << 10;

/// The unit of work of one thread, which also checks what it loaded.
pub trait Step {
    /// Does one unit and returns how many accesses it was.
    fn step<W: Worker>(&mut self, worker: &mut W) -> Result<u64, Failure>;
}

/// Runs one step object per thread and adds up.
pub fn run<C: Contestant, S: Step>(
    job: &ReadJob,
    contestant: &C,
    step_of: impl Fn(u32) -> S + Sync,
) -> Result<Sample, Failure> {
    let step_of = |thread| {
        let mut step = step_of(thread);
        let mut worker = contestant.worker()?;
        Ok(move || step.step(&mut worker))
    };
    let missed_pages = || contestant.missed_pages();
    let mut sample = timed::repeat(job.threads, job.measured(), missed_pages, step_of)?;
    sample.bytes = sample.accesses * WORD_BYTES;
    sample.hit_rate = super::hit_rate(sample.accesses, Some(0), sample.missed_pages);
    sample.peak_frame_bytes = contestant.peak_frame_bytes();
    Ok(sample)
}

/// The seed of one thread.
fn thread_seed(job: &ReadJob, thread: u32) -> u64 {
    job.seed.wrapping_mul(1000).wrapping_add(u64::from(thread))
}

/// Loads one word of a random page, `loads` times.
pub struct RandomLoads {
    random: Random,
    pages: u64,
    loads: u64,
}

impl RandomLoads {
    /// Over the first `bytes` of the file.
    pub fn new(job: &ReadJob, thread: u32, bytes: u64, loads: u64) -> Self {
        Self { random: Random::new(thread_seed(job, thread)), pages: bytes / PAGE_BYTES, loads }
    }
}

/// A random word of a random page.
fn random_word(random: &mut Random, pages: u64) -> u64 {
    random.below(pages * PAGE_WORDS)
}

impl Step for RandomLoads {
    #[inline]
    fn step<W: Worker>(&mut self, worker: &mut W) -> Result<u64, Failure> {
        for _ in 0..self.loads {
            let word_index = random_word(&mut self.random, self.pages);
            check_word(word_index, worker.load(word_index)?)?;
        }
        Ok(self.loads)
    }
}

/// Sums every word of the thread's part of the resident bytes, a chunk per step.
pub struct Scan {
    chunks: Vec<(Range<u64>, u64)>,
    next: usize,
}

impl Scan {
    /// The part of `thread`, with the sums that must come out.
    pub fn new(job: &ReadJob, thread: u32) -> Self {
        let all = job.warm_bytes() / SCAN_CHUNK_BYTES;
        let (thread, threads) = (u64::from(thread), u64::from(job.threads));
        let part = all * thread / threads..all * (thread + 1) / threads;
        let chunk_words = SCAN_CHUNK_BYTES / WORD_BYTES;
        let words = part.map(|chunk| chunk * chunk_words..(chunk + 1) * chunk_words);
        Self { chunks: words.map(|words| (words.clone(), expected_sum(words, 1))).collect(), next: 0 }
    }
}

impl Step for Scan {
    fn step<W: Worker>(&mut self, worker: &mut W) -> Result<u64, Failure> {
        let (words, expected) = &self.chunks[self.next];
        self.next = (self.next + 1) % self.chunks.len();
        if worker.sum(words.clone(), 1)? != *expected {
            return Err(Failure::WrongData(format!("sum of words [{}, {})", words.start, words.end)));
        }
        Ok(words.end - words.start)
    }
}

/// Loads one word of each of 64 random pages, told to the contestant all at once.
pub struct Batches {
    random: Random,
    pages: u64,
    words: Vec<u64>,
    loaded: Vec<u64>,
}

impl Batches {
    /// Over the whole file.
    pub fn new(job: &ReadJob, thread: u32) -> Self {
        Self {
            random: Random::new(thread_seed(job, thread)),
            pages: job.file_bytes / PAGE_BYTES,
            words: Vec::with_capacity(BATCH_PAGES),
            loaded: Vec::with_capacity(BATCH_PAGES),
        }
    }
}

impl Step for Batches {
    fn step<W: Worker>(&mut self, worker: &mut W) -> Result<u64, Failure> {
        self.words.clear();
        self.loaded.clear();
        for _ in 0..BATCH_PAGES {
            let word_index = random_word(&mut self.random, self.pages);
            self.words.push(word_index);
        }
        worker.load_batch(&self.words, &mut self.loaded)?;
        if self.loaded.len() != self.words.len() {
            return Err(Failure::WrongData(format!("{} words of a batch of 64", self.loaded.len())));
        }
        for (&word_index, &word) in self.words.iter().zip(&self.loaded) {
            check_word(word_index, word)?;
        }
        Ok(BATCH_PAGES as u64)
    }
}
