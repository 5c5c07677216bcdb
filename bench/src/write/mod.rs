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

use crate::job::{Failure, Sample};
use job::{Kind, WriteJob};

/// Runs one measurement, in the child.
fn measure(job: &WriteJob) -> Result<Sample, Failure> {
    match job.contestant.as_str() {
        "mmap" | "mmap-default" => patterns::on_storage::<kernel::MappedFile>(job, kernel::advice(job)),
        "pwrite" => patterns::on_storage::<kernel::FileCalls>(job, kernel::file_advice(job)),
        #[cfg(feature = "databases")]
        "sqlite" => patterns::commit(job, &databases::Sqlite::create(job)?),
        #[cfg(feature = "databases")]
        "redb" => patterns::commit(job, &databases::Redb::create(job)?),
        #[cfg(feature = "ours")]
        name if name.starts_with("ours-") => ours::measure(job),
        name => Err(Failure::Failed(format!("no contestant {name:?} in this build"))),
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
