//! The access patterns, generic over who serves the pages.

mod fault;
mod sequential;
mod steps;
mod zipf;

use super::contestant::Contestant;
use super::job::{Pattern, ReadJob};
use crate::job::{Failure, Sample};

/// Runs the job's pattern on `contestant`.
pub fn run<C: Contestant>(job: &ReadJob, contestant: &C) -> Result<Sample, Failure> {
    // A little less than the budget, so that the warm-up and not the set-up starts to evict.
    let prefill_bytes = job.budget_bytes.min(job.file_bytes) / 16 * 15;
    match job.pattern {
        Pattern::Random => {
            contestant.populate(0..prefill_bytes)?;
            steps::run(job, contestant, |thread| steps::RandomLoads::new(job, thread, job.file_bytes, 1))
        }
        Pattern::Reread => {
            contestant.populate(0..job.warm_bytes())?;
            steps::run(job, contestant, |thread| steps::RandomLoads::new(job, thread, job.warm_bytes(), 64))
        }
        Pattern::Warmscan => {
            contestant.populate(0..job.warm_bytes())?;
            steps::run(job, contestant, |thread| steps::Scan::new(job, thread))
        }
        Pattern::Batch => {
            contestant.populate(0..prefill_bytes)?;
            steps::run(job, contestant, |thread| steps::Batches::new(job, thread))
        }
        Pattern::Zipf => zipf::run(job, contestant),
        Pattern::Sequential => sequential::run(job, contestant),
        Pattern::Fault => fault::run(job, contestant),
    }
}

/// The part of `accesses` that missed, as a hit rate.
fn hit_rate(accesses: u64, missed_before: Option<u64>, missed_after: Option<u64>) -> Option<f64> {
    let missed = missed_after?.checked_sub(missed_before?)?;
    (accesses > 0).then(|| 1.0 - missed as f64 / accesses as f64)
}
