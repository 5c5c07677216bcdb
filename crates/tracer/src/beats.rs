//! A counter in memory that a process and its child share, by which one sees that the other gets on.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counter. Its page stays mapped as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub struct Beats(NonNull<AtomicU64>);

// SAFETY: the page is never unmapped, and reached by atomics only.
unsafe impl Send for Beats {}
// SAFETY: as above.
unsafe impl Sync for Beats {}

impl Beats {
    /// One that children share from their fork on.
    pub(super) fn new() -> io::Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping wherever the kernel likes.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<AtomicU64>(), prot, flags, -1, 0) };
        match NonNull::new(page) {
            Some(page) if page.as_ptr() != libc::MAP_FAILED => Ok(Self(page.cast())),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn counter(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped for good, aligned, and zero at first, which is a counter.
        unsafe { self.0.as_ref() }
    }

    /// How many beats there were.
    pub fn count(&self) -> u64 {
        self.counter().load(Ordering::Relaxed)
    }

    pub(super) fn beat(&self) {
        self.counter().fetch_add(1, Ordering::Relaxed);
    }
}
