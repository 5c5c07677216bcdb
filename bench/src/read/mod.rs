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

use std::path::Path;

use crate::job::{Failure, Job, Sample};
use job::ReadJob;

impl Job for ReadJob {
    const COMMAND: &'static str = "read";

    fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    fn measure(&self) -> Result<Sample, Failure> {
        match self.contestant.as_str() {
            "mmap" | "mmap-default" | "mmap-willneed" => patterns::run(self, &kernel::mapped(self)?),
            "memmap2" => patterns::run(self, &kernel::memmap(self)?),
            "pread-buffered" | "pread-direct" => patterns::run(self, &kernel::read_calls(self)?),
            #[cfg(feature = "ours")]
            name if name.starts_with("ours-") => ours::measure(self),
            name => Err(Failure::Failed(format!("no contestant {name:?} in this build"))),
        }
    }
}
