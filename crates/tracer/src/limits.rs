//! Limits that are the program's and not its tracer's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Of descriptors, of the length of files, of processor time.
const RESOURCES: [u32; 3] = [libc::RLIMIT_NOFILE, libc::RLIMIT_FSIZE, libc::RLIMIT_CPU];
/// No table of descriptors is longer.
const MOST_DESCRIPTORS: u64 = 1 << 20;
/// What is asked for where the hard limit is less.
const ENOUGH_DESCRIPTORS: u64 = 1 << 16;

/// The limits that this process had, for the program that it starts.
#[derive(Clone, Copy, Debug)]
pub struct Limits([libc::rlimit; RESOURCES.len()]);

impl Limits {
    /// Takes as much as this process may, and returns what it had.
    pub fn raise() -> io::Result<Self> {
        let mut before = [libc::rlimit { rlim_cur: 0, rlim_max: 0 }; RESOURCES.len()];
        for (resource, before) in RESOURCES.into_iter().zip(&mut before) {
            // SAFETY: the kernel writes the structure.
            if unsafe { libc::getrlimit(resource, &raw mut *before) } < 0 {
                return Err(io::Error::last_os_error());
            }
            let is_of_descriptors = resource == libc::RLIMIT_NOFILE;
            let most = if is_of_descriptors { ENOUGH_DESCRIPTORS } else { libc::RLIM_INFINITY };
            let most = most.max(before.rlim_max);
            let soft = if is_of_descriptors { most.min(MOST_DESCRIPTORS) } else { most };
            let raised = libc::rlimit { rlim_cur: soft, rlim_max: most };
            let allowed = libc::rlimit { rlim_cur: before.rlim_max.min(soft), ..*before };
            // SAFETY: the kernel reads the structures. Who may not raise a hard limit is left with it.
            unsafe {
                if libc::setrlimit(resource, &raw const raised) < 0 {
                    libc::setrlimit(resource, &raw const allowed);
                }
            }
        }
        Ok(Self(before))
    }

    /// Each with its limit, for prlimit(2).
    pub(super) fn each(&self) -> impl Iterator<Item = (u32, &libc::rlimit)> {
        RESOURCES.into_iter().zip(&self.0)
    }
}

/// How many descriptors this process may have.
pub fn most_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the structure.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// The lowest number that no descriptor of this process has, so at least as many are open. None: EMFILE.
pub fn next_descriptor(any: impl AsFd) -> io::Result<u64> {
    // SAFETY: takes numbers, of which the first is a descriptor that lives across the call.
    let copy = unsafe { libc::fcntl(any.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(copy) });
    Ok(copy as u64)
}
