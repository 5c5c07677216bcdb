//! The contestants of this project in `write`. The only file of it that knows the library's interface.
//!
//! There are none yet: the library does not write. To add them:
//!
//! 1. Implement [`Storage`](super::storage::Storage) for a type that holds a cache and a writable mapping. Its
//!    `Setup` is the delivery of faults. `open` gets the path and the budget; `add_one` loads and stores through the
//!    mapping; `write_at` stores pages, through the mapping or by the library's call; `sync` and `commit` are the
//!    library's.
//! 2. List each contestant in [`CONTESTANTS`] with the patterns it meets and a function that calls
//!    [`on_storage`](super::patterns::on_storage) with its delivery.
//!
//! A library that has one transaction at a time for a mapping needs more for concurrent committers: a type that
//! implements [`Committer`](super::storage::Committer) instead, stores and commits under a lock, and goes to
//! [`commit`](super::patterns::commit). What it cannot do it answers with [`Failure::Skipped`].
//!
//! The plan, the tables, the bars and the reading back need no change: names begin with `ours-`.

use super::job::{WriteJob, WritePattern};
use crate::job::{Failure, Sample};

/// One contestant: its name, the patterns it meets, and how it is measured.
pub type Entry = (&'static str, &'static [WritePattern], fn(&WriteJob) -> Result<Sample, Failure>);

/// All of them.
pub const CONTESTANTS: &[Entry] = &[];

/// Sets up the contestant that the job names and runs the pattern.
pub fn measure(job: &WriteJob) -> Result<Sample, Failure> {
    let named = CONTESTANTS.iter().find(|(name, ..)| *name == job.contestant);
    let (.., measure) =
        named.ok_or_else(|| Failure::Failed(format!("no contestant {:?}", job.contestant)))?;
    measure(job)
}
