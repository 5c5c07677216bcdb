//! `memobj-bench read`: what loads from a large file cost.
//!
//! ```text
//!   run        the parent: plans, starts children in turns, collects
//!   plan       who meets whom           report, bars   tables and requirements
//!   patterns   what is measured, over a [`contestant::Contestant`]
//!   kernel     file mappings and read calls
//!   ours       the contestants of this project (feature `ours`)
//! ```

mod bars;
mod contestant;
pub mod job;
mod kernel;
pub mod options;
#[cfg(feature = "ours")]
mod ours;
mod patterns;
mod plan;
mod report;
pub mod run;

use crate::job::{Failure, Sample};
use job::ReadJob;

/// Runs one measurement, in the child.
fn measure(job: &ReadJob) -> Result<Sample, Failure> {
    match job.contestant.as_str() {
        "mmap" | "mmap-default" | "mmap-willneed" => patterns::run(job, &kernel::mapped(job)?),
        "memmap2" => patterns::run(job, &kernel::memmap(job)?),
        "pread-buffered" | "pread-direct" => patterns::run(job, &kernel::read_calls(job)?),
        #[cfg(feature = "ours")]
        name if name.starts_with("ours-") => ours::measure(job),
        name => Err(Failure::Failed(format!("no contestant {name:?} in this build"))),
    }
}
