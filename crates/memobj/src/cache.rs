//! The cache: one budget, shared by all its objects.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::CacheInner;
use crate::error::{CacheError, OpenError};
use crate::event::Events;
use crate::metrics::{Metrics, PagerCalls};
use crate::object::MemoryObject;
use crate::options::{CacheOptions, ObjectOptions, Writing};
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
        let budget = &self.inner.shared.room.budget;
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

    /// Opens a local file as an object; for writing, if `options` say so. The file's name is the object's.
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
        match options.writing {
            Writing::ReadOnly => self.object(&name, pagers::File::open(path)?, options),
            Writing::InPlace => {
                self.object(&name, pagers::open_in_place(path, options.lock_timeout)?, options)
            }
            Writing::Atomic => {
                let log = Arc::new(pagers::Logged::open(path, options.lock_timeout)?);
                let pager = Box::new(Arc::clone(&log));
                Ok(MemoryObject::new(Arc::clone(&self.inner), &name, pager, options, Some(log)))
            }
        }
    }

    /// Makes an object of what `pager` supplies. `name` appears in errors. Asks the pager for its length and its
    /// [`source`](Pager::source), in the calling thread.
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
        match options.writing {
            Writing::ReadOnly => {}
            _ if !pager.is_writable() => return refused("its pager takes no writes"),
            Writing::Atomic => return refused("only local files can be committed to"),
            Writing::InPlace => {}
        }
        Ok(MemoryObject::new(Arc::clone(&self.inner), name, Box::new(pager), options, None))
    }

    /// Counters of what the cache has done so far, and how much of the budget is in use. Does not block.
    pub fn metrics(&self) -> Metrics {
        let shared = &self.inner.shared;
        let counters = &shared.tell.counters;
        Metrics {
            faults: counters.faults.get(),
            supplied_pages: counters.supplied_pages.get(),
            read_ahead_pages: counters.read_ahead_pages.get(),
            prefetched_pages: counters.prefetched_pages.get(),
            evicted_pages: counters.evicted_pages.get(),
            retries: counters.retries.get(),
            failed_pages: counters.failed_pages.get(),
            frame_bytes: shared.room.budget.used(),
            peak_frame_bytes: shared.room.budget.peak(),
            budget_bytes: shared.room.budget.limit(),
            pinned_bytes: shared.room.pins.used(),
            table_bytes: shared.room.tables.used_bytes(),
            read_bytes: counters.read_bytes.get(),
            dirty_bytes: shared.room.unwritten.bytes(),
            written_pages: counters.written_pages.get(),
            written_bytes: counters.written_bytes.get(),
            sweeps: shared.room.sweeps().into(),
            dropped_events: counters.dropped_events.get(),
        }
    }

    /// How many calls of pagers for pages run now. A call that failed and waits for its next try does not count.
    pub fn pager_calls(&self) -> PagerCalls {
        self.inner.workers.calls()
    }

    /// A receiver of what happens in the background: failed pages and writes, retries. Each event goes to one receiver.
    pub fn events(&self) -> Events {
        self.inner.shared.tell.events.receiver()
    }
}
