//! Transactions of scattered pages, each durable before the next one of its committer.

use super::{Stripe, thread_seed, timed};
use crate::data::PAGE_BYTES;
use crate::job::{Failure, Sample, Written};
use crate::trace::Random;
use crate::usage;
use crate::write::content::{fill_page, page_digest};
use crate::write::job::WriteJob;
use crate::write::storage::{Committer, PageWrite};

/// One committer: random pages of its stripe, each stamped with the number of its transaction.
struct Transactions<'a, C> {
    committer: &'a C,
    random: Random,
    stripe: Stripe,
    /// The number of the current transaction, from 1 on; page content of the set-up has stamp 0.
    number: u64,
    /// For each page of the stripe, the last transaction that wrote it.
    stamps: Vec<u64>,
    /// The pages of the current transaction, and their bytes one after the other.
    pages: Vec<u64>,
    bytes: Vec<u8>,
}

impl<'a, C: Committer> Transactions<'a, C> {
    fn new(job: &WriteJob, thread: u32, committer: &'a C) -> Self {
        let stripe = Stripe::new(job, thread);
        let pages = job.pages_per_commit as usize;
        Self {
            committer,
            random: Random::new(thread_seed(job, thread)),
            stripe,
            number: 0,
            stamps: vec![0; stripe.pages as usize],
            pages: vec![0; pages],
            bytes: vec![0; pages * PAGE_BYTES as usize],
        }
    }

    /// The digest of the stripe as it must be after the last transaction.
    fn digest(&self) -> u64 {
        let pages = (0..).map(|index| self.stripe.page(index)).zip(&self.stamps);
        pages.fold(0, |digest, (page, stamp)| digest.wrapping_add(page_digest(page, *stamp)))
    }
}

impl<C: Committer> timed::Unit for Transactions<'_, C> {
    /// Chooses different pages and makes their new bytes.
    fn prepare(&mut self) {
        self.number += 1;
        for (page, bytes) in self.pages.iter_mut().zip(self.bytes.chunks_mut(PAGE_BYTES as usize)) {
            let index = loop {
                let index = self.random.below(self.stripe.pages);
                if self.stamps[index as usize] != self.number {
                    break index;
                }
            };
            self.stamps[index as usize] = self.number;
            *page = self.stripe.page(index);
            fill_page(*page, self.number, bytes);
        }
    }

    fn run(&mut self) -> Result<(), Failure> {
        let bytes = self.bytes.chunks(PAGE_BYTES as usize);
        let write = |(page, bytes): (&u64, _)| PageWrite { page: *page, bytes };
        let writes: Vec<PageWrite<'_>> = self.pages.iter().zip(bytes).map(write).collect();
        self.committer.commit(&writes)
    }
}

/// Commits for the job's time.
pub fn run<C: Committer>(job: &WriteJob, committer: &C) -> Result<Sample, Failure> {
    let before = usage::now()?;
    let finished =
        timed::run(job.threads, job.measured(), |thread| Transactions::new(job, thread, committer))?;
    let counters = (before, usage::now()?);
    let mut sample =
        crate::timed::sample(finished.operations, finished.elapsed, counters, &finished.latencies)?;
    sample.bytes = finished.operations * u64::from(job.pages_per_commit) * PAGE_BYTES;
    let stripes = finished.units.iter().fold(0_u64, |digest, unit| digest.wrapping_add(unit.digest()));
    // Pages that no stripe has stay as they were made.
    let unwritten = job.pages() / u64::from(job.threads) * u64::from(job.threads)..job.pages();
    let digest = unwritten.fold(stripes, |digest, page| digest.wrapping_add(page_digest(page, 0)));
    sample.written = Some(Written::Pages(digest));
    sample.peak_frame_bytes = committer.peak_frame_bytes();
    Ok(sample)
}
