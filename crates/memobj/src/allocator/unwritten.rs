//! Changes of all objects of a cache that their pagers do not have yet: how much, and the wait until it is less.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use memobj_linux::eventfd::EventFd;
use memobj_linux::fault_loop::Listeners;
use memobj_linux::futex;

/// How stores and the hand talk to the cleaner, which writes Dirty pages in the background. The areas count the bytes.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(crate) bytes: Arc<AtomicU64>,
    budget_bytes: u64,
    /// The cleaner hears it.
    pub(crate) eventfd: EventFd,
    /// Everything is to be written, not only what is above the soft target.
    hurry: AtomicBool,
    /// Changes whenever pages were written, for those who wait for that.
    progress: AtomicU32,
    sleepers: AtomicU32,
    listeners: Listeners,
}

impl Unwritten {
    pub(crate) fn new(budget_bytes: u64) -> io::Result<Self> {
        Ok(Self {
            bytes: Arc::default(),
            budget_bytes,
            eventfd: EventFd::new()?,
            hurry: AtomicBool::new(false),
            progress: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            listeners: Listeners::default(),
        })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether `bytes` of Dirty pages are enough for the cleaner to work.
    fn is_enough(&self, bytes: u64) -> bool {
        bytes > self.budget_bytes / 4
    }

    /// Whether an object that has `own` bytes of Dirty pages is to wait with stores to further pages. Safe in a signal
    /// handler, as all here that does not say otherwise.
    pub(crate) fn is_too_much(&self, own: u64) -> bool {
        let (dirty, most) = (self.bytes(), self.budget_bytes / 2);
        dirty >= most && (own >= most / 4 || dirty >= most + most / 2)
    }

    /// Wakes the cleaner if there is enough for it to do.
    pub(crate) fn wake_if_enough(&self) {
        if self.is_enough(self.bytes()) {
            self.eventfd.notify();
        }
    }

    /// Somebody waits: everything that is Dirty is to be written.
    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Ordering::Release);
        self.eventfd.notify();
    }

    /// Nothing was found that can be written now.
    pub(crate) fn stop_hurry(&self) {
        self.hurry.store(false, Ordering::Release);
    }

    /// For the cleaner: whether it is to write more than the `in_flight` bytes that are on their way.
    pub(crate) fn must_be_written(&self, in_flight: u64) -> bool {
        let left = self.bytes().saturating_sub(in_flight);
        if left == 0 {
            self.stop_hurry();
        }
        self.is_enough(left) || left > 0 && self.hurry.load(Ordering::Acquire)
    }

    /// Something was written, or will never be: whoever waits looks again.
    pub(crate) fn made_progress(&self) {
        self.progress.fetch_add(1, Ordering::AcqRel);
        if self.sleepers.load(Ordering::Acquire) > 0 {
            futex::wake_all(&self.progress);
        }
        self.listeners.tell();
    }

    /// Hear of progress.
    pub(crate) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Changes whenever there is some.
    pub(crate) fn progress(&self) -> u32 {
        self.progress.load(Ordering::Acquire)
    }

    /// Sleeps until something was written, at most `limit`.
    pub(crate) fn wait_for_progress(&self, limit: Duration) {
        let seen = self.progress.load(Ordering::Acquire);
        self.sleepers.fetch_add(1, Ordering::AcqRel);
        futex::wait(&self.progress, seen, Some(limit));
        self.sleepers.fetch_sub(1, Ordering::AcqRel);
    }
}
