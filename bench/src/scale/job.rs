//! What the parent of `scale` asks of a child.

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
