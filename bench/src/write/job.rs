//! What the parent of `write` asks of a child.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::data::PAGE_BYTES;

/// The patterns of storing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum WritePattern {
    /// Load eight bytes at a random place of a file of four times the budget, store them changed; sync at the end.
    Rmw,
    /// Overwrite a file of four times the budget from its start to its end; sync at the end.
    Seqwrite,
    /// Transactions of scattered pages, each durable before the next.
    Commit,
}

impl WritePattern {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 3] = [Self::Rmw, Self::Seqwrite, Self::Commit];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rmw => "rmw",
            Self::Seqwrite => "seqwrite",
            Self::Commit => "commit",
        }
    }

    /// The contestant the others of the pattern are compared with in its table.
    pub fn baseline(self) -> &'static str {
        match self {
            Self::Rmw | Self::Seqwrite => "mmap",
            Self::Commit => "pwrite",
        }
    }
}

/// What a contestant keeps its pages in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A file with page `i` at `i` times the page size.
    Plain,
    /// An SQLite database.
    Sqlite,
    /// A redb database.
    Redb,
}

/// One measurement of writing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WriteJob {
    /// What is done.
    pub pattern: WritePattern,
    /// Who does it, by name.
    pub contestant: String,
    /// Storing threads, or concurrent committers.
    pub threads: u32,
    /// Pages of one transaction, for `commit`.
    pub pages_per_commit: u32,
    /// The file, or where a database is to be made.
    pub file: PathBuf,
    /// Its length, or what the pages of the database are to hold together.
    pub file_bytes: u64,
    /// Memory for pages.
    pub budget_bytes: u64,
    /// Time to measure, for patterns that run for a time.
    pub seconds: f64,
    /// Seed of the page choice: the same for all contestants of one repetition.
    pub seed: u64,
    /// For `seqwrite`: marks the pages, different from what the file holds.
    pub stamp: u64,
    /// The memory cgroup that the child enters.
    pub cgroup: Option<PathBuf>,
}

impl WriteJob {
    /// The measured time as a duration.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Pages of the file.
    pub fn pages(&self) -> u64 {
        self.file_bytes / PAGE_BYTES
    }
}
