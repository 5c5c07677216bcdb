//! A doorbell: rung from anywhere, signal handlers included, heard by one thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd that is written at most once until it was heard.
#[derive(Debug)]
pub struct Doorbell {
    descriptor: OwnedFd,
    rung: AtomicBool,
}

impl Doorbell {
    /// A silent one.
    pub fn new() -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { descriptor, rung: AtomicBool::new(false) })
    }

    /// Rings. Never blocks, never allocates.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It fails only when the counter is full, and then the bell is ringing.
            let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
        }
    }

    /// Silences the bell; call before looking at what it was rung for.
    pub fn hear(&self) {
        let _ = rustix::io::read(&self.descriptor, &mut [0u8; 8]);
        // Not a plain store, which could come after the loads that follow it: who rings in between would write nothing,
        // and what he rang for be unseen.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
