//! How many descriptors there are left, and for whom.
//!
//! What runs must go on: a forked child needs one, or it cannot run. So what is new gets none while there are still some:
//!
//! ```text
//!   up to a half of the limit         files that are mapped; then the kernel maps what is new
//!   up to five eighths                programs that begin; then they run unserved
//!   up to the limit, but for a few    forked children; then a new child is ended
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use memobj_tracer::{most_descriptors, next_descriptor};
use rustix::event::{EventfdFlags, eventfd};

/// For what is opened for a moment while something is handled: at most, and as a part of the limit.
const FEW: u64 = 16;
const FEW_PART: u64 = 8;

/// Who wants a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    /// A file that is mapped.
    File,
    /// A program that begins.
    Program,
    /// A forked child.
    Child,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct DescriptorBudget {
    any: OwnedFd,
    most: u64,
    is_told: AtomicBool,
}

impl DescriptorBudget {
    /// Of this process, whose limit stays.
    pub(crate) fn new() -> io::Result<Self> {
        let any = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self { any, most: most_descriptors(), is_told: AtomicBool::new(false) })
    }

    /// Whether there is one left. Two system calls.
    pub(crate) fn is_left(&self, want: Want) -> bool {
        let end = match want {
            Want::File => self.most / 2,
            Want::Program => self.most / 8 * 5,
            Want::Child => self.most - FEW.min(self.most / FEW_PART),
        };
        next_descriptor(&self.any).is_ok_and(|next| next < end)
    }

    /// Whether the caller is the first to tell of files that get none.
    pub(crate) fn tells_of_files(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// How many descriptors there are in all.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }
}
