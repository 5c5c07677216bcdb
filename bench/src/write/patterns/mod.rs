//! The patterns of storing, generic over who stores.

mod commit;
mod rmw;
mod seqwrite;
mod timed;

pub use commit::run as commit;

use super::job::{WriteJob, WritePattern};
use super::storage::Storage;
use crate::data::mix;
use crate::job::{Failure, Sample};

/// Opens the job's file as `S` and runs the job's pattern on it.
pub fn on_storage<S: Storage>(job: &WriteJob, setup: S::Setup) -> Result<Sample, Failure> {
    let storage = S::open(&job.file, job.budget_bytes, setup)?;
    match job.pattern {
        WritePattern::Rmw => rmw::run(job, &storage),
        WritePattern::Seqwrite => seqwrite::run(job, &storage),
        WritePattern::Commit => {
            storage.populate(0..job.file_bytes)?;
            commit(job, &storage)
        }
    }
}

/// Pages that belong to one thread: every `threads`-th, so that no page has two writers.
#[derive(Clone, Copy)]
struct Stripe {
    thread: u64,
    threads: u64,
    pages: u64,
}

impl Stripe {
    fn new(job: &WriteJob, thread: u32) -> Self {
        let threads = u64::from(job.threads);
        Self { thread: u64::from(thread), threads, pages: job.pages() / threads }
    }

    /// The page of the file that is the `index`-th of the stripe.
    fn page(self, index: u64) -> u64 {
        index * self.threads + self.thread
    }
}

/// The seed of one thread.
fn thread_seed(job: &WriteJob, thread: u32) -> u64 {
    mix(job.seed.wrapping_mul(1000).wrapping_add(u64::from(thread)))
}
