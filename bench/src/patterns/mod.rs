//! The access patterns, generic over who serves the pages.

mod fault;
mod sequential;
mod steps;
pub mod timed;
mod zipf;

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::contestant::Contestant;
use crate::job::{Failure, Job, Pattern, Sample};
use crate::usage::Counters;

/// Before the measured phase of patterns that run for a time, but no longer than that: caches, threads and the host's
/// memory settle.
const WARM_UP: Duration = Duration::from_millis(300);

/// Runs the job's pattern on `contestant`.
pub fn run<C: Contestant>(job: &Job, contestant: &C) -> Result<Sample, Failure> {
    // A little less than the budget, so that the warm-up and not the set-up starts to evict.
    let prefill_bytes = job.budget_bytes.min(job.file_bytes) / 16 * 15;
    match job.pattern {
        Pattern::Random => {
            contestant.populate(0..prefill_bytes)?;
            timed::run(job, contestant, |thread| steps::RandomLoads::new(job, thread, job.file_bytes, 1))
        }
        Pattern::Reread => {
            contestant.populate(0..job.warm_bytes())?;
            timed::run(job, contestant, |thread| steps::RandomLoads::new(job, thread, job.warm_bytes(), 64))
        }
        Pattern::Warmscan => {
            contestant.populate(0..job.warm_bytes())?;
            timed::run(job, contestant, |thread| steps::Scan::new(job, thread))
        }
        Pattern::Batch => {
            contestant.populate(0..prefill_bytes)?;
            timed::run(job, contestant, |thread| steps::Batches::new(job, thread))
        }
        Pattern::Zipf => zipf::run(job, contestant),
        Pattern::Sequential => sequential::run(job, contestant),
        Pattern::Fault => fault::run(job, contestant),
    }
}

/// An empty histogram of nanoseconds up to a minute, three digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are valid")
}

/// Records a latency, at most the histogram's bound.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(latency.as_nanos() as u64);
}

/// Puts together what all patterns report.
pub fn sample(
    accesses: u64,
    elapsed: Duration,
    counters: (Counters, Counters),
    latencies: &Histogram<u64>,
) -> Result<Sample, Failure> {
    let (before, after) = counters;
    Ok(Sample {
        accesses,
        elapsed_ns: elapsed.as_nanos() as u64,
        cpu_ns: after.cpu_ns - before.cpu_ns,
        machine_cpu_ns: after.machine_cpu_ns - before.machine_cpu_ns,
        p50_ns: latencies.value_at_quantile(0.5),
        p99_ns: latencies.value_at_quantile(0.99),
        max_ns: latencies.max(),
        major_faults: after.faults.major - before.faults.major,
        minor_faults: after.faults.minor - before.faults.minor,
        peak_rss_bytes: crate::usage::peak_rss_bytes()?,
        ..Sample::default()
    })
}

/// The part of `accesses` that missed, as a hit rate.
fn hit_rate(accesses: u64, missed_before: Option<u64>, missed_after: Option<u64>) -> Option<f64> {
    let missed = missed_after?.checked_sub(missed_before?)?;
    (accesses > 0).then(|| 1.0 - missed as f64 / accesses as f64)
}
