//! The cache: one budget, shared by all its objects.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::CacheInner;
use crate::error::{CacheError, OpenError};
use crate::event::Events;
use crate::metrics::{FaultLoopMetrics, Metrics, PagerCalls};
use crate::object::MemoryObject;
use crate::options::{CacheOptions, Create, ObjectOptions, Writing};
use crate::pagers::{self, Pager};

/// A hard budget of memory for frames, and the threads that keep objects within it.
///
/// Objects of one cache share its budget; objects of different caches know nothing of each other. Most programs need one
/// cache. Cheap to clone. When the last handle is dropped (of the cache, its objects or their mappings), its threads have
/// ended, and descriptors and memory are returned.
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<CacheInner>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let budget = &self.inner.shared.allocator.budget;
        f.debug_struct("Cache")
            .field("budget_bytes", &budget.limit())
            .field("frame_bytes", &budget.used())
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// Makes a cache of at most `budget_bytes` bytes of frames.
    ///
    /// Starts one thread. The first mapping whose faults are read by threads starts one more for each processor, on
    /// machines that have two to four.
    ///
    /// # Errors
    ///
    /// [`BudgetTooSmall`](CacheError::BudgetTooSmall) below 64 KiB, [`BudgetExceedsMemory`](CacheError::BudgetExceedsMemory)
    /// above the memory of the machine or its cgroup, [`System`](CacheError::System) if a thread or descriptor was refused.
    pub fn new(options: CacheOptions) -> Result<Self, CacheError> {
        Ok(Self { inner: Arc::new(CacheInner::start(options)?) })
    }

    /// Makes a local file of `length` zero bytes, durably, and opens it as an object to be written. The file is there whole
    /// or not at all, whatever crashes.
    ///
    /// ```
    /// # use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions, Writing};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("table");
    /// # let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
    /// let object = cache.create_file(&path, 1 << 20, ObjectOptions::new().writing(Writing::Atomic))?;
    /// object.map_all(MapOptions::default())?.write_at(0, b"header")?;
    /// object.close()?;
    /// drop(object);
    /// // Whatever is there stays as it is.
    /// assert!(cache.create_file(&path, 0, ObjectOptions::new().writing(Writing::InPlace)).is_err());
    /// assert_eq!(std::fs::read(&path)?[..6], *b"header");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `File` with `AlreadyExists` if there is a file: [`Create::IfMissing`] opens it. `NotWritable` if `options` are those
    /// of an object that is read only. Whatever the error, no new file is left.
    pub fn create_file(
        &self,
        path: impl AsRef<Path>,
        length: u64,
        options: ObjectOptions,
    ) -> Result<MemoryObject, OpenError> {
        self.open_file(path, options.create(Create::New { length }))
    }

    /// Opens a local file as an object; for writing, if `options` say so. The file's name is the object's. Makes it first, if
    /// [`ObjectOptions::create`] says so.
    ///
    /// May block: on the file system, and for [`lock_timeout`](ObjectOptions::lock_timeout) on another writer. If a commit
    /// log lies beside the file, what was committed is put in place first.
    ///
    /// # Errors
    ///
    /// [`File`](OpenError::File) if the file system refuses, [`NotAFile`](OpenError::NotAFile),
    /// [`LengthUntold`](OpenError::LengthUntold) for files without a reliable length, [`Locked`](OpenError::Locked) if
    /// another writer has it, [`Log`](OpenError::Log) and [`ForeignLog`](OpenError::ForeignLog) for logs that cannot be used.
    pub fn open_file(
        &self,
        path: impl AsRef<Path>,
        options: ObjectOptions,
    ) -> Result<MemoryObject, OpenError> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        if options.writing == Writing::ReadOnly && options.create != Create::Never {
            let why = "a file that is only read is not created";
            return Err(OpenError::NotWritable { object: name.into_owned(), why });
        }
        let created = pagers::create(path, options.create)?;
        let object = self.open_existing(path, &name, options)?;
        if let Some(created) = created {
            created.keep();
        }
        Ok(object)
    }

    fn open_existing(
        &self,
        path: &Path,
        name: &str,
        options: ObjectOptions,
    ) -> Result<MemoryObject, OpenError> {
        let (lock_timeout, cache_use) = (options.lock_timeout, options.cache_use);
        match options.writing {
            Writing::ReadOnly => self.object(name, pagers::File::open_with(path, cache_use)?, options),
            Writing::InPlace => {
                self.object(name, pagers::open_in_place(path, lock_timeout, cache_use)?, options)
            }
            Writing::Atomic => {
                let log = Arc::new(pagers::Logged::open(path, lock_timeout, cache_use)?);
                let pager = Box::new(Arc::clone(&log));
                let description = pager.describe();
                Ok(MemoryObject::new(Arc::clone(&self.inner), name, pager, description, options, Some(log)))
            }
        }
    }

    /// Makes an object of what `pager` supplies. `name` appears in errors. A [`BlockingPager`](pagers::BlockingPager) is given as
    /// [`Blocking`](pagers::Blocking). Asks the pager once to [describe](Pager::describe) itself, in the calling thread.
    ///
    /// # Errors
    ///
    /// [`NotWritable`](OpenError::NotWritable) if `options` want writing and the pager takes no writes, or commits, which
    /// only files opened by [`open_file`](Self::open_file) have.
    pub fn object(
        &self,
        name: &str,
        pager: impl Pager + 'static,
        options: ObjectOptions,
    ) -> Result<MemoryObject, OpenError> {
        let refused = |why| Err(OpenError::NotWritable { object: name.to_owned(), why });
        let description = pager.describe();
        match options.writing {
            Writing::ReadOnly => {}
            _ if !description.is_writable() => return refused("its pager takes no writes"),
            Writing::Atomic => return refused("only local files can be committed to"),
            Writing::InPlace => {}
        }
        pager.attach(pagers::PagerReports::new(name, &self.inner.shared.reporter));
        Ok(MemoryObject::new(Arc::clone(&self.inner), name, Box::new(pager), description, options, None))
    }

    /// Counters of what the cache has done so far, and how much of the budget is in use. Does not block.
    pub fn metrics(&self) -> Metrics {
        let shared = &self.inner.shared;
        let counters = &shared.reporter.counters;
        Metrics {
            fault_loop: FaultLoopMetrics::of_process(),
            faults: counters.faults.get(),
            supplied_pages: counters.supplied_pages.get(),
            read_ahead_pages: counters.read_ahead_pages.get(),
            prefetched_pages: counters.prefetched_pages.get(),
            evicted_pages: counters.evicted_pages.get(),
            retries: counters.retries.get(),
            failed_pages: counters.failed_pages.get(),
            frame_bytes: shared.allocator.budget.used(),
            peak_frame_bytes: shared.allocator.budget.peak(),
            budget_bytes: shared.allocator.budget.limit(),
            pinned_bytes: shared.allocator.pins.used(),
            table_bytes: shared.allocator.tables.used_bytes(),
            read_bytes: counters.read_bytes.get(),
            dirty_bytes: shared.allocator.unwritten.bytes(),
            written_pages: counters.written_pages.get(),
            written_bytes: counters.written_bytes.get(),
            checkpoints: counters.checkpoints.get(),
            checkpoint_ns: counters.checkpoint_ns.get(),
            longest_commit_beside_checkpoint_ns: counters.longest_commit_beside_checkpoint_ns.get(),
            sweeps: shared.allocator.sweeps().into(),
            dropped_events: counters.dropped_events.get(),
        }
    }

    /// How many calls of pagers for pages run now. A call that failed and waits for its next try does not count.
    pub fn pager_calls(&self) -> PagerCalls {
        self.inner.workers.calls()
    }

    /// A receiver of what happens in the background: failed pages and writes, retries. Each event goes to one receiver.
    pub fn events(&self) -> Events {
        self.inner.shared.reporter.events.receiver()
    }
}
