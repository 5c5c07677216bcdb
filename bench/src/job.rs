//! What the parent asks of a child, and what comes back. Both travel as one line of JSON.

use std::fmt;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One measurement, which a child makes.
pub trait Job: Serialize + DeserializeOwned {
    /// The command whose measurement it is.
    const COMMAND: &'static str;

    /// The memory cgroup that the child enters.
    fn cgroup(&self) -> Option<&Path>;

    /// Variables that the child finds in its environment, beside those of the parent.
    fn environment(&self) -> &[(String, String)] {
        &[]
    }

    /// Measures, in the child.
    fn measure(&self) -> Result<Sample, Failure>;
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

/// What a process holds at one moment.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Resident memory (VmRSS).
    pub rss_bytes: u64,
    /// Page tables (VmPTE).
    pub page_table_bytes: u64,
    /// The part of the resident memory that is frames, or pages of the mapped file.
    pub frame_bytes: u64,
    /// What is charged to the cgroup: memory of the kernel for the process too.
    pub charged_bytes: Option<u64>,
    /// Open descriptors.
    pub descriptors: u64,
    /// Mappings of the process, of which there may be `vm.max_map_count`.
    pub mappings: u64,
}

impl MemoryUse {
    /// Resident memory and page tables beside frames.
    pub fn beside_frames(&self) -> u64 {
        (self.rss_bytes + self.page_table_bytes).saturating_sub(self.frame_bytes)
    }
}

/// The memory of one measurement.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Before anything is opened.
    pub before: MemoryUse,
    /// When everything is mapped.
    pub mapped: MemoryUse,
    /// After all accesses.
    pub used: MemoryUse,
    /// How long opening and mapping took.
    pub map_ns: u64,
    /// Objects that are mapped.
    pub objects: u64,
    /// Why there are fewer than were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// What a contestant says it has made durable; the parent compares it with what it reads back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Written {
    /// So many words were counted up by one (see `content` of `write`, counters).
    Updates(u64),
    /// The digest of all pages with their stamps (see there, stamped pages).
    Pages(u64),
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
