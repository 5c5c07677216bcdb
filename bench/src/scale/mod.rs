//! `memobj-bench scale`: what very long objects, and very many, cost in time and memory.
//!
//! ```text
//!   run        the parent: makes files, starts children in turns, gives those more memory that ran out of it
//!   plan       who meets whom                  report    tables, JSON
//!   access     random accesses to one object   objects   many objects, mapped
//!   bytes      what they hold                  held      what a process holds
//!   kernel     mappings of the kernel          ours      the contestants of this project (feature `ours`)
//! ```

mod access;
mod bytes;
mod held;
pub mod job;
mod kernel;
mod objects;
pub mod options;
#[cfg(feature = "ours")]
mod ours;
mod plan;
mod report;
pub mod run;

use crate::job::{Failure, Sample};
use job::{Part, ScaleJob};

/// Runs one measurement, in the child.
fn measure(job: &ScaleJob) -> Result<Sample, Failure> {
    match (job.part, job.contestant.as_str()) {
        (Part::Access, "mmap") => {
            access::run(job, bytes::Bytes::sparse(job.object_bytes), kernel::Views::one)
        }
        (Part::Objects, "mmap") => objects::run(job, kernel::Views::none),
        #[cfg(feature = "ours")]
        (_, name) if name.starts_with("ours-") => ours::measure(job),
        (_, name) => Err(Failure::Failed(format!("no contestant {name:?} in this build"))),
    }
}
