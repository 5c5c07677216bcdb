//! An eventfd: notified from anywhere, signal handlers included, and waited for by one thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd that is written at most once until it was cleared.
#[derive(Debug)]
pub struct EventFd {
    descriptor: OwnedFd,
    is_notified: AtomicBool,
}

impl EventFd {
    /// One that is not notified.
    pub fn new() -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { descriptor, is_notified: AtomicBool::new(false) })
    }

    /// Notifies. Never blocks, never allocates.
    pub fn notify(&self) {
        if !self.is_notified.swap(true, Ordering::AcqRel) {
            // It fails only when the counter is full, and then it is notified already.
            let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
        }
    }

    /// Clears it; call before looking at what it was notified for.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.descriptor, &mut [0u8; 8]);
        // Not a plain store, which could come after the loads that follow it: who rings in between would write nothing,
        // and what he rang for be unseen.
        self.is_notified.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
