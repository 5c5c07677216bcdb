//! Userfaultfds that other processes made: calls on them act on the addresses of their makers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Announce, EventBuffer, Features, Userfaultfd, abi};

/// What the kernel calls the file behind `descriptor`. Needs /proc.
pub(crate) fn kind_of(descriptor: BorrowedFd<'_>) -> io::Result<String> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))?;
    Ok(link.to_string_lossy().into_owned())
}

/// Whether `descriptor` is one of a process (pidfd_open(2)). Needs /proc.
pub fn is_process(descriptor: &OwnedFd) -> io::Result<bool> {
    let kind = kind_of(descriptor.as_fd())?;
    Ok(kind == "anon_inode:[pidfd]" || kind.starts_with("pidfd:["))
}

/// A fork is told of with a descriptor, which would stay open.
fn only_faults(buffer: &EventBuffer, count: usize) -> io::Result<usize> {
    let mut strange = false;
    for message in buffer.messages[..count].iter().filter(|message| message.event != abi::EVENT_PAGEFAULT) {
        strange = true;
        if message.event == abi::EVENT_FORK {
            // SAFETY: the kernel has just installed this descriptor, whose number is the low half of the first word
            // behind the header of such a message, and nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(message.flags as u32 as i32) });
        }
    }
    if strange {
        Err(io::Error::new(io::ErrorKind::InvalidData, "events that are no faults"))
    } else {
        Ok(count)
    }
}

impl Userfaultfd {
    /// Takes what another process says is a userfaultfd of its own, whose faults are queued. InvalidData: it is
    /// something else, on which no call of this module may be made.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        if kind_of(descriptor.as_fd())? != "anon_inode:[userfaultfd]" {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a descriptor that is no userfaultfd"));
        }
        Ok(Self { descriptor, announce: Announce::Queued, features: Features::default() })
    }

    /// As [`read_events`](Self::read_events), and does not block whatever the other process does to the descriptor,
    /// whose flags both share. InvalidData: it tells of things that it was not made to tell of.
    pub fn read_events_of_another(&self, buffer: &mut EventBuffer) -> io::Result<usize> {
        let part = libc::iovec {
            iov_base: buffer.messages.as_mut_ptr().cast(),
            iov_len: size_of_val(&buffer.messages[..buffer.most]),
        };
        // SAFETY: the kernel writes at most as much as the array holds, and any bytes are valid messages.
        let got = unsafe { libc::preadv2(self.descriptor.as_raw_fd(), &part, 1, -1, libc::RWF_NOWAIT) };
        if got >= 0 {
            return only_faults(buffer, got as usize / size_of::<abi::Message>());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(0),
            // Before Linux 6.10. The flags of the descriptor are looked at, and can change in between.
            Some(libc::EOPNOTSUPP)
                if rustix::fs::fcntl_getfl(&self.descriptor)?.contains(rustix::fs::OFlags::NONBLOCK) =>
            {
                let count = self.read_events(buffer)?;
                only_faults(buffer, count)
            }
            _ => Err(error),
        }
    }
}

impl Userfaultfd {
    /// Readies a userfaultfd that another process has just opened for the faults of private mappings of memory files,
    /// and for forks if those are to be told of. EPERM: this process may not be told of forks.
    pub(crate) fn of_another(descriptor: OwnedFd, forks: Forks) -> io::Result<Self> {
        let fork = if forks == Forks::Told { abi::FEATURE_EVENT_FORK } else { 0 };
        let features = fork
            | abi::FEATURE_THREAD_ID
            | abi::FEATURE_EVENT_REMAP
            | abi::FEATURE_MISSING_SHMEM
            | abi::FEATURE_MINOR_SHMEM
            | abi::FEATURE_PAGEFAULT_FLAG_WP
            | abi::FEATURE_WP_HUGETLBFS_SHMEM
            | abi::FEATURE_POISON;
        let mut api = abi::ApiArgument { api: abi::API, features, ioctls: 0 };
        super::control(&descriptor, abi::UFFDIO_API, &mut api)?;
        Ok(Self { descriptor, announce: Announce::Queued, features: Features::default() })
    }
}

/// Whether forks are told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forks {
    /// With a userfaultfd of the child, which has registered what the child inherits.
    Told,
    /// Nothing is registered in the child.
    Untold,
}

/// What can be had of userfaultfds of other processes.
pub fn forks_can_be_told() -> Forks {
    let opened = super::new_descriptor().and_then(|(mine, _)| Userfaultfd::of_another(mine, Forks::Told));
    if opened.is_ok() { Forks::Told } else { Forks::Untold }
}

/// The userfaultfds that came with events of forks.
pub(super) fn newborns(buffer: &EventBuffer, count: usize) -> Vec<Userfaultfd> {
    let forks = buffer.messages[..count].iter().filter(|message| message.event == abi::EVENT_FORK);
    let owned = forks.map(|message| Userfaultfd {
        // SAFETY: the kernel has just installed this descriptor, whose number is the low half of the first word
        // behind the header of such a message, and nobody else knows it.
        descriptor: unsafe { OwnedFd::from_raw_fd(message.flags as u32 as i32) },
        announce: Announce::Queued,
        features: Features::default(),
    });
    owned.collect()
}

/// Whether `descriptor` is a userfaultfd of an address space that is still there. Async-signal-safe.
pub fn address_space_lives(descriptor: std::os::fd::RawFd) -> bool {
    // Nothing can be mapped there, so nothing is poisoned. An address space that is gone is told of before that.
    let range = abi::Range { start: 0x1000, len: 0x1000 };
    let mut argument = abi::Poison { range, mode: 0, updated: 0 };
    // SAFETY: the kernel reads and writes the structure, which lives across the call; on other files the call is not
    // known.
    let answer = unsafe { libc::ioctl(descriptor, abi::UFFDIO_POISON, &raw mut argument) };
    answer >= 0 || matches!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOENT | libc::EAGAIN))
}
