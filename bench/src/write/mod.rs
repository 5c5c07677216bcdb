//! `memobj-bench write`: what storing costs, until the bytes are durable.
//!
//! ```text
//!   run        the parent: prepares files, starts children in turns, reads back what they wrote
//!   plan       who meets whom           report, bars   tables and requirements
//!   patterns   rmw, seqwrite over a [`storage::Storage`]; commit over a [`storage::Committer`]
//!   kernel     mmap and pwrite          databases      SQLite and redb (feature `databases`)
//!   ours       the contestants of this project (feature `ours`)
//! ```

mod bars;
pub mod content;
#[cfg(feature = "databases")]
mod databases;
pub mod job;
mod kernel;
pub mod options;
#[cfg(feature = "ours")]
mod ours;
mod patterns;
mod plan;
mod report;
pub mod run;
mod storage;
mod verify;

use std::path::Path;

use crate::job::{Failure, Job, Sample};
use job::{Kind, WriteJob};

impl Job for WriteJob {
    const COMMAND: &'static str = "write";

    fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    fn measure(&self) -> Result<Sample, Failure> {
        match self.contestant.as_str() {
            "mmap" | "mmap-default" => patterns::on_storage::<kernel::MappedFile>(self, kernel::advice(self)),
            "pwrite" => patterns::on_storage::<kernel::FileCalls>(self, kernel::file_advice(self)),
            #[cfg(feature = "databases")]
            "sqlite" => patterns::commit(self, &databases::Sqlite::create(self)?),
            #[cfg(feature = "databases")]
            "redb" => patterns::commit(self, &databases::Redb::create(self)?),
            #[cfg(feature = "ours")]
            name if name.starts_with("ours-") => ours::measure(self),
            name => Err(Failure::Failed(format!("no contestant {name:?} in this build"))),
        }
    }
}

/// What kind of file the contestant with this name keeps its pages in.
fn kind(contestant: &str) -> Kind {
    match contestant {
        "sqlite" => Kind::Sqlite,
        "redb" => Kind::Redb,
        _ => Kind::Plain,
    }
}
