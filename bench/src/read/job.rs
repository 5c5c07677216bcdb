//! What the parent of `read` asks of a child.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The access patterns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Uniform over all pages, one load per access, for a fixed time.
    Random,
    /// Zipf 0.99 over scattered pages, a fixed trace.
    Zipf,
    /// Every 64th byte of a file four times the budget, once.
    Sequential,
    /// Random loads of resident pages.
    Reread,
    /// Every word of resident pages, again and again.
    Warmscan,
    /// The first touch of a page whose bytes are already in memory.
    Fault,
    /// Sets of 64 scattered pages, asked for at once.
    Batch,
}

impl Pattern {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 7] =
        [Self::Random, Self::Zipf, Self::Sequential, Self::Reread, Self::Warmscan, Self::Fault, Self::Batch];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Zipf => "zipf",
            Self::Sequential => "sequential",
            Self::Reread => "reread",
            Self::Warmscan => "warmscan",
            Self::Fault => "fault",
            Self::Batch => "batch",
        }
    }
}

/// One measurement of reading.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadJob {
    /// How pages are accessed.
    pub pattern: Pattern,
    /// Who serves them, by name.
    pub contestant: String,
    /// Accessing threads.
    pub threads: u32,
    /// The test file.
    pub file: PathBuf,
    /// Its length.
    pub file_bytes: u64,
    /// Memory for pages.
    pub budget_bytes: u64,
    /// Measured time of the patterns that run for a time.
    pub seconds: f64,
    /// Accesses of the patterns that run a trace.
    pub accesses: u64,
    /// Seed of the page choice: the same for all contestants of one repetition.
    pub seed: u64,
    /// The memory cgroup that the child enters.
    pub cgroup: Option<PathBuf>,
}

impl ReadJob {
    /// The measured time as a duration.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Bytes of the resident patterns: half of the budget, so that nothing has to be evicted.
    pub fn warm_bytes(&self) -> u64 {
        (self.budget_bytes / 2).min(self.file_bytes)
    }
}
