//! What the parent of `network` asks of a child.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::job::{Failure, Job, Sample};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// All bytes in order.
    Sequential,
    /// 64 pages in 64 blocks that are far apart, asked for at once; again with other blocks.
    Scattered,
    /// A command prints the digest.
    Hash,
    /// Puts the object where others read it. No measurement.
    Upload,
}

/// Who is asked for bytes, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// memobj: bytes are copied into a buffer (`Mapping::read_at`).
    OursRead(Frames),
    /// memobj: blocks are pinned and looked at in place.
    OursPin(Frames),
    /// The crate object_store: ranges of a block, `buffered`, in one task.
    ObjectStore,
    /// The same, each range in a task of its own.
    ObjectStoreTasks,
    /// The crate object_store: only the pages that are wanted.
    ObjectStorePages,
    /// One request for all of it, into a file, which is then mapped.
    Download,
    /// Reads of a file, which may be of a mount.
    File,
    /// `memobj hash`.
    Command,
}

/// The size of frames, as `FrameSize` of the library.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frames {
    /// What the cache chooses.
    Auto,
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkJob {
    /// What is measured.
    pub task: Task,
    /// Whose it is.
    pub client: Client,
    /// A URL, or the path of a file.
    pub place: String,
    /// Length of the object.
    pub length_bytes: u64,
    /// Bytes of one request.
    pub block_bytes: u64,
    /// Requests under way at once.
    pub depth: usize,
    /// Memory for pages.
    pub budget_bytes: u64,
    /// The folder of a disk cache.
    pub disk_cache: Option<PathBuf>,
    /// A file: what is uploaded, or what a download is written to.
    pub file: PathBuf,
    /// The command `memobj`.
    pub program: Option<PathBuf>,
    /// The digest that it must print.
    pub digest: String,
    /// Variables of the environment, with what leads to a store.
    pub environment: Vec<(String, String)>,
}

impl Job for NetworkJob {
    const COMMAND: &'static str = "network";

    fn cgroup(&self) -> Option<&Path> {
        None
    }

    fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    fn measure(&self) -> Result<Sample, Failure> {
        match self.client {
            Client::OursRead(frames) => super::ours::measure(self, frames, super::ours::Reach::Read),
            Client::OursPin(frames) => super::ours::measure(self, frames, super::ours::Reach::Pin),
            Client::ObjectStore | Client::ObjectStoreTasks | Client::ObjectStorePages | Client::Download => {
                super::peers::measure(self)
            }
            Client::File => super::files::measure(self),
            Client::Command => super::process::hash(self),
        }
    }
}

/// Pages of one batch of [`Task::Scattered`].
pub const BATCH: u64 = 64;
/// Batches of [`Task::Scattered`]. No block is in two of them.
pub const BATCHES: u64 = 4;

impl NetworkJob {
    /// Where the pages of a batch are: each in the middle of a block, blocks a 64th of the object apart.
    pub fn pages_of_batch(&self, batch: u64) -> Vec<u64> {
        let stride = self.length_bytes / BATCH;
        let inside = stride / BATCHES * batch + self.block_bytes / 2;
        (0..BATCH).map(|index| index * stride + inside).collect()
    }
}
