//! The handle of a directory.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use memobj::pagers::Pager;

use crate::cached::DiskCached;
use crate::counters::HandleCounters;
use crate::directory::Directory;
use crate::evict::Evictor;
use crate::keeper::Keeper;
use crate::options::DiskCacheOptions;
use crate::pool::Pool;
use crate::shared::Shared;
use crate::store::Store;
use crate::usage::Usage;

/// A directory of blocks, within a budget, shared by any number of processes. Clones are the same handle.
///
/// It has a thread that writes and evicts, and up to [`threads`](DiskCacheOptions::threads) that read. They end after the last
/// handle and the last [`DiskCached`] are gone, and what waits has been written.
#[derive(Clone)]
pub struct DiskCache {
    shared: Arc<Shared>,
}

impl fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskCache")
            .field("directory", &self.shared.store.directory.path())
            .field("budget_bytes", &self.shared.store.budget)
            .finish_non_exhaustive()
    }
}

impl DiskCache {
    /// Opens `directory`; makes it, with mode 0700, if it is not there. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a budget that is too small. `PermissionDenied` for a directory that belongs to another user, or to
    /// which others may write. What the file system says otherwise.
    pub fn open(directory: impl AsRef<Path>, options: DiskCacheOptions) -> io::Result<Self> {
        options.check()?;
        let directory = Arc::new(Directory::open(directory.as_ref())?);
        let usage = Usage::open(&directory)?;
        let store = Arc::new(Store::new(directory, usage, options.budget_bytes));
        let counters = Arc::new(HandleCounters::default());
        let evictor = Arc::new(Evictor::open(Arc::clone(&store), Arc::clone(&counters))?);
        let keeper = Keeper::start(
            Arc::clone(&store),
            Arc::clone(&evictor),
            Arc::clone(&counters),
            options.waiting_bytes,
        )?;
        let pool = Pool::new(options.threads.clamp(1, 16));
        Ok(Self { shared: Arc::new(Shared { store, evictor, keeper, pool, counters }) })
    }

    /// `inner` with blocks in this directory. `key` is the object's name, the same wherever and whenever it is opened: a URL. The
    /// version is the one that `inner` [names](memobj::pagers::Description::version_name); whoever has the same key, version,
    /// length and block size gets the same bytes. So a version must change whenever the bytes do.
    pub fn pager<P: Pager + 'static>(&self, inner: P, key: &str) -> DiskCached<P> {
        DiskCached::new(inner, key, Arc::clone(&self.shared))
    }

    /// Waits until no block waits to be written, for `limit` at most; says whether that is so. A program that ends sooner loses
    /// what waits: at most [`waiting_bytes`](DiskCacheOptions::waiting_bytes).
    #[must_use]
    pub fn settle(&self, limit: Duration) -> bool {
        self.shared.keeper.settle(limit)
    }

    /// Puts the directory in order: deletes what was left by processes that were killed, counts the bytes in use, and evicts
    /// what is above the budget. Processes do this by themselves, when they open the directory and when it gets full. Blocks on
    /// the disk, and while another process does the same.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn tidy(&self) -> io::Result<()> {
        self.shared.evictor.tidy()
    }

    /// Bytes in use, with those that are reserved for blocks that are being written. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn used_bytes(&self) -> io::Result<u64> {
        Ok(self.shared.store.usage.lock()?.numbers.used())
    }
}
