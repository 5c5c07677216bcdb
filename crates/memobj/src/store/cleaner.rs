//! How the rest of a cache talks to the thread that writes Dirty pages in the background.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use memobj_sys::futex;
use memobj_sys::wake::Doorbell;

use super::CacheShared;
use crate::locks::{Rank, RankedMutex};

/// How the rest of a cache talks to its cleaner.
#[derive(Debug)]
pub(crate) struct Cleaner {
    pub(crate) bell: Doorbell,
    /// Everything is to be written, not only what is above the soft target.
    pub(crate) hurry: AtomicBool,
    /// Changes whenever pages were written, for those who wait for that.
    progress: AtomicU32,
    sleepers: AtomicU32,
    pub(crate) thread: RankedMutex<Option<JoinHandle<()>>>,
}

impl Cleaner {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            bell: Doorbell::new()?,
            hurry: AtomicBool::new(false),
            progress: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            thread: RankedMutex::new(Rank::Threads, None),
        })
    }

    /// There is something to do. Safe in a signal handler.
    pub(crate) fn wake(&self) {
        self.bell.ring();
    }

    /// Somebody waits: everything that is Dirty is to be written. Safe in a signal handler.
    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Nothing will be written any more, or it may be: whoever waits looks again.
    pub(crate) fn wake_waiters(&self) {
        self.made_progress();
    }

    pub(crate) fn made_progress(&self) {
        self.progress.fetch_add(1, Ordering::AcqRel);
        if self.sleepers.load(Ordering::Acquire) > 0 {
            futex::wake_all(&self.progress);
        }
    }

    /// Sleeps until something was written, at most `limit`. Safe in a signal handler.
    pub(crate) fn wait_for_progress(&self, limit: Duration) {
        let seen = self.progress.load(Ordering::Acquire);
        self.sleepers.fetch_add(1, Ordering::AcqRel);
        futex::wait(&self.progress, seen, Some(limit));
        self.sleepers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Ends the thread, after the cache's flag `closing` was set.
    pub(crate) fn stop(&self) {
        self.bell.ring();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl CacheShared {
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Bytes of Dirty pages from which on the cleaner works.
    pub(crate) fn soft_target(&self) -> u64 {
        self.budget.limit() / 4
    }

    /// Bytes of Dirty pages from which on stores to further pages wait.
    pub(crate) fn most_dirty(&self) -> u64 {
        self.budget.limit() / 2
    }

    pub(crate) fn has_enough_dirty(&self) -> bool {
        self.unwritten_bytes() > self.soft_target()
    }

    /// Whether an object that has `own` bytes of Dirty pages is to wait with stores to further pages.
    pub(crate) fn is_too_much_dirty(&self, own: u64) -> bool {
        let (dirty, most) = (self.unwritten_bytes(), self.most_dirty());
        dirty >= most && (own >= most / 4 || dirty >= most + most / 2)
    }
}
