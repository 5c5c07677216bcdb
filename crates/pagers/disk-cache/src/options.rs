//! What a caller can choose.

use std::io;

/// The least budget of a directory.
pub(crate) const LEAST_BUDGET: u64 = 16 << 20;

/// For [`DiskCache::open`](crate::DiskCache::open).
///
/// ```
/// let options = memobj_disk_cache::DiskCacheOptions::new().budget_bytes(1 << 30);
/// assert_eq!((options.budget_bytes, options.waiting_bytes), (1 << 30, 64 << 20));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskCacheOptions {
    /// The most bytes of blocks that the directory holds, each rounded up to 4 KiB; at least 16 MiB. Each process keeps its own
    /// budget: of processes that share a directory, the one with the least evicts what the others keep.
    pub budget_bytes: u64,
    /// The most bytes in memory of blocks that wait to be written. Blocks that come when it is full are not kept.
    pub waiting_bytes: u64,
    /// Threads that read blocks, started when needed.
    pub threads: usize,
}

impl Default for DiskCacheOptions {
    /// 10 GiB on disk, 64 MiB in memory, 8 threads.
    fn default() -> Self {
        Self { budget_bytes: 10 << 30, waiting_bytes: 64 << 20, threads: 8 }
    }
}

impl DiskCacheOptions {
    /// The defaults, to be changed by the setters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`budget_bytes`](Self#structfield.budget_bytes).
    #[must_use]
    pub fn budget_bytes(mut self, bytes: u64) -> Self {
        self.budget_bytes = bytes;
        self
    }

    /// Sets [`waiting_bytes`](Self#structfield.waiting_bytes).
    #[must_use]
    pub fn waiting_bytes(mut self, bytes: u64) -> Self {
        self.waiting_bytes = bytes;
        self
    }

    /// Sets [`threads`](Self#structfield.threads); at least one, at most 16.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, 16);
        self
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        if self.budget_bytes < LEAST_BUDGET {
            let why = format!("a budget of {} bytes is less than {LEAST_BUDGET}", self.budget_bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(())
    }
}
