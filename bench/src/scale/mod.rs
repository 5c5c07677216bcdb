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
pub mod job;
mod kernel;
mod memory_use;
mod objects;
pub mod options;
#[cfg(feature = "ours")]
mod ours;
mod plan;
mod report;
pub mod run;

use std::path::Path;

use crate::job::{Failure, Job, Sample};
use job::{Part, ScaleJob};

impl Job for ScaleJob {
    const COMMAND: &'static str = "scale";

    fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    fn measure(&self) -> Result<Sample, Failure> {
        match (self.part, self.contestant.as_str()) {
            (Part::Access, "mmap") => {
                access::run(self, bytes::Bytes::sparse(self.object_bytes), kernel::Views::one)
            }
            (Part::Objects, "mmap") => objects::run(self, kernel::Views::none),
            #[cfg(feature = "ours")]
            (_, name) if name.starts_with("ours-") => ours::measure(self),
            (_, name) => Err(Failure::Failed(format!("no contestant {name:?} in this build"))),
        }
    }
}
