//! Random read-modify-write over a file of four times the budget, then one sync.
//!
//! Memory is full of clean pages of the file when it starts, so that eviction starts with the first operation. There
//! is no warm-up: what it left dirty would be paid for in the measured sync.

use std::time::Instant;

use super::{Stripe, thread_seed, timed};
use crate::data::PAGE_WORDS;
use crate::job::{Failure, Sample, Written};
use crate::trace::Random;
use crate::usage;
use crate::write::content;
use crate::write::job::WriteJob;
use crate::write::storage::Storage;

/// One thread: random words of its stripe of the pages.
struct Updates<'a, S> {
    storage: &'a S,
    random: Random,
    stripe: Stripe,
}

impl<S: Storage> timed::Unit for Updates<'_, S> {
    #[inline]
    fn run(&mut self) -> Result<(), Failure> {
        let page = self.stripe.page(self.random.below(self.stripe.pages));
        let word_index = content::first_word(page) + self.random.below(PAGE_WORDS);
        content::updates_of(word_index, self.storage.add_one(word_index)?).map(|_| ())
    }
}

/// Updates for the job's time, syncs, and counts both.
pub fn run<S: Storage>(job: &WriteJob, storage: &S) -> Result<Sample, Failure> {
    // A little less than the budget, so that the updates and not the set-up start to evict.
    storage.populate(0..job.budget_bytes.min(job.file_bytes) / 16 * 15)?;
    let before = usage::now()?;
    let finished = timed::run(job.threads, job.measured(), |thread| Updates {
        storage,
        random: Random::new(thread_seed(job, thread)),
        stripe: Stripe::new(job, thread),
    })?;
    let start = Instant::now();
    storage.sync()?;
    let sync = start.elapsed();
    let counters = (before, usage::now()?);
    let elapsed = finished.elapsed + sync;
    let mut sample = crate::timed::sample(finished.operations, elapsed, counters, &finished.latencies)?;
    sample.sync_ns = Some(sync.as_nanos() as u64);
    sample.written = Some(Written::Updates(finished.operations));
    sample.peak_frame_bytes = storage.peak_frame_bytes();
    Ok(sample)
}
