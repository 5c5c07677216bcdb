//! What the parent of `index` asks of a child.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tree::Shape;
use crate::data::PAGE_BYTES;

/// The parts of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Lookups in a tree that is in memory.
    Resident,
    /// Lookups in a tree four times as large as the memory for its pages.
    Quarter,
    /// One access to a page that is in memory, again and again.
    Pin,
}

impl Part {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 3] = [Self::Resident, Self::Quarter, Self::Pin];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Quarter => "quarter",
            Self::Pin => "pin",
        }
    }
}

/// Whose page the threads of the part `pin` access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// All the same one.
    Same,
    /// Each one of its own.
    Own,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IndexJob {
    /// What is done.
    pub part: Part,
    /// Who serves the nodes, by name.
    pub contestant: String,
    /// Threads that look up.
    pub threads: u32,
    /// For the part `pin`.
    pub share: Share,
    /// The tree.
    pub file: PathBuf,
    /// Pairs of it.
    pub pairs: u64,
    /// Memory for pages.
    pub budget_bytes: u64,
    /// Measured time.
    pub seconds: f64,
    /// Seed of the choice of keys: the same for all contestants of one repetition.
    pub seed: u64,
    /// The memory cgroup that the child enters.
    pub cgroup: Option<PathBuf>,
}

impl IndexJob {
    /// The measured time as a duration.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The shape of the tree.
    pub fn shape(&self) -> Shape {
        Shape::of(self.pairs)
    }

    /// Bytes that are brought into memory before anything is measured: all, or a little less than the budget, so that
    /// the warm-up and not the set-up starts to evict.
    pub fn populated_bytes(&self) -> u64 {
        let budget_bytes = self.budget_bytes / 16 * 15 / PAGE_BYTES * PAGE_BYTES;
        if self.part == Part::Quarter { budget_bytes.min(self.shape().bytes()) } else { self.shape().bytes() }
    }
}
