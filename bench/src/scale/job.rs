//! What the parent of `scale` asks of a child, and what comes back beside the sample.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The parts of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Random accesses to one object, which may be very long.
    Access,
    /// Many mapped objects.
    Objects,
}

impl Part {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 2] = [Self::Access, Self::Objects];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Objects => "objects",
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScaleJob {
    /// What is done.
    pub part: Part,
    /// Who does it, by name.
    pub contestant: String,
    /// The sparse file, or the file that all of many objects are.
    pub file: PathBuf,
    /// Bytes of the object, or of each.
    pub object_bytes: u64,
    /// Memory for pages.
    pub budget_bytes: u64,
    /// Accesses, or objects.
    pub count: u64,
    /// Seed of the choice of pages: the same for all contestants of one repetition.
    pub seed: u64,
    /// The memory cgroup that the child enters.
    pub cgroup: Option<PathBuf>,
}

/// What a process holds at one moment.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct Held {
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

impl Held {
    /// Resident memory and page tables beside frames.
    pub fn beside_frames(&self) -> u64 {
        (self.rss_bytes + self.page_table_bytes).saturating_sub(self.frame_bytes)
    }
}

/// The memory of one measurement.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Before anything is opened.
    pub before: Held,
    /// When everything is mapped.
    pub mapped: Held,
    /// After all accesses.
    pub used: Held,
    /// How long opening and mapping took.
    pub map_ns: u64,
    /// Objects that are mapped.
    pub objects: u64,
    /// Why there are fewer than were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}
