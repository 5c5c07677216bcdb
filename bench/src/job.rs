//! What the parent asks of a child, and what comes back. Both travel as one line of JSON.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::index::job::IndexJob;
use crate::scale::job::{Memory, ScaleJob};
use crate::write::job::{WriteJob, Written};

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

/// What a child is started for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// A measurement of reading.
    Read(Job),
    /// A measurement of writing.
    Write(WriteJob),
    /// Lookups in a tree.
    Index(IndexJob),
    /// Long objects, or many.
    Scale(ScaleJob),
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
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

impl Job {
    /// The measured time as a duration.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Bytes of the resident patterns: half of the budget, so that nothing has to be evicted.
    pub fn warm_bytes(&self) -> u64 {
        (self.budget_bytes / 2).min(self.file_bytes)
    }
}

/// What one child measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Accesses in the measured phase.
    pub accesses: u64,
    /// Bytes that were asked for, where that is the measure.
    pub bytes: u64,
    /// Length of the measured phase.
    pub elapsed_ns: u64,
    /// Processor time of the child in it.
    pub cpu_ns: u64,
    /// Processor time of the whole machine in it, kernel threads included; counted in ticks of 10 ms.
    pub machine_cpu_ns: u64,
    /// Median latency of one access (of one batch, of one MiB: see the pattern).
    pub p50_ns: u64,
    /// 99th percentile of it.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Major faults of the child.
    pub major_faults: u64,
    /// Minor faults of the child.
    pub minor_faults: u64,
    /// Pages read in the measured phase because an access missed, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_pages: Option<u64>,
    /// Part of the accesses that needed no read, where known.
    pub hit_rate: Option<f64>,
    /// Hit rate of an exact LRU on the same trace, where there is a trace.
    pub lru_hit_rate: Option<f64>,
    /// The most memory the child had resident (VmHWM).
    pub peak_rss_bytes: u64,
    /// The most memory of the contestant's frames, where it counts them.
    pub peak_frame_bytes: Option<u64>,
    /// What the kernel's page cache holds for the child's cgroup at the end.
    pub page_cache_bytes: Option<u64>,
    /// The most memory charged to the cgroup; the parent fills it in.
    pub peak_cgroup_bytes: Option<u64>,
    /// How long the sync at the end took, where there is one. It is part of `elapsed_ns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_ns: Option<u64>,
    /// What the process held, where that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Box<Memory>>,
    /// What the file must hold afterwards, if the contestant wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
}

/// The one line a child prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It measured.
    Measured(Sample),
    /// It could not, for this reason, on this machine.
    Skipped(String),
    /// It should have been able to, and was not.
    Failed(String),
    /// Bytes were wrong. The run ends.
    WrongData(String),
}

/// Why a measurement did not happen.
#[derive(Debug)]
pub enum Failure {
    /// The machine lacks something.
    Skipped(String),
    /// An operation failed.
    Failed(String),
    /// Loaded bytes differ from the file's.
    WrongData(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped(reason) => write!(f, "skipped: {reason}"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::WrongData(reason) => write!(f, "wrong data: {reason}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Skipped(reason) => Self::Skipped(reason),
            Failure::Failed(reason) => Self::Failed(reason),
            Failure::WrongData(reason) => Self::WrongData(reason),
        }
    }
}
