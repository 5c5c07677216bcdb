//! Telling the process that made something from its forked children.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, madvise};

use crate::region::{Purpose, Region, SMALL};

/// A flag that reads "ours" in the process that made it and "not ours" in every child of fork.
///
/// Source: MADV_WIPEONFORK in madvise(2). Costs one load, where getpid(2) would cost a system call.
#[derive(Debug)]
pub struct MakerProcess {
    page: Region,
}

impl MakerProcess {
    /// Marks the calling process.
    pub fn new() -> io::Result<Self> {
        let page = Region::new(SMALL, Purpose::Data)?;
        // SAFETY: the page is this value's own and holds no references yet.
        unsafe { madvise(page.pointer(0).cast(), SMALL, Advice::LinuxWipeOnFork)? };
        let owner = Self { page };
        owner.flag().store(1, Ordering::Relaxed);
        Ok(owner)
    }

    #[inline]
    fn flag(&self) -> &AtomicU32 {
        // SAFETY: the page is readable, writable, aligned, lives as long as `self`, and is used as this atomic only.
        unsafe { AtomicU32::from_ptr(self.page.pointer(0).cast()) }
    }

    /// Whether the calling process is the one that made it.
    #[inline]
    pub fn is_this_process(&self) -> bool {
        self.flag().load(Ordering::Relaxed) == 1
    }
}
