//! `memobj-bench index`: lookups in a B+tree in a file, and what one access to a page in memory costs.
//!
//! ```text
//!   run        the parent: makes the tree, starts children in turns
//!   plan       who meets whom                report    tables, JSON
//!   tree       the file, and a lookup in it  node      one page of it
//!   lookup     what is measured, over an [`lookup::Index`]
//!   kernel     a mapping of the kernel       vmcache   a buffer pool with optimistic reads
//!   ours       the contestants of this project (feature `ours`)
//!   beside     an atomic increment, and redb (feature `redb`)
//! ```

mod beside;
pub mod job;
mod kernel;
mod lookup;
mod node;
pub mod options;
#[cfg(feature = "ours")]
mod ours;
mod plan;
mod report;
pub mod run;
mod tree;
mod vmcache;

use std::path::Path;

use crate::job::{Failure, Job, Sample};
use job::IndexJob;

impl Job for IndexJob {
    const COMMAND: &'static str = "index";

    fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    fn measure(&self) -> Result<Sample, Failure> {
        match self.contestant.as_str() {
            "mmap" => lookup::run(self, &kernel::MappedTree::open(self)?),
            "vmcache" => lookup::run(self, &vmcache::Pool::open(self)?),
            "atomic" => beside::atomic(self),
            #[cfg(feature = "redb")]
            "redb" => beside::redb(self),
            #[cfg(feature = "ours")]
            name if name.starts_with("ours-") => ours::measure(self),
            name => Err(Failure::Failed(format!("no contestant {name:?} in this build"))),
        }
    }
}
