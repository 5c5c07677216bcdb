//! The userfaultfd of another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::foreign::newborns;
use super::{EventBuffer, FaultEvent, Forks, Modes, Userfaultfd, address_space_lives};

/// As the kernel counts processes.
type Pid = i32;

/// Tells of the faults of another address space, and resolves them.
///
/// Ranges stay registered when they are moved (mremap(2) sleeps until its event is read), split or protected; in a
/// forked child if forks are told of (fork(2) sleeps as well). ESRCH: the address space is gone.
#[derive(Debug)]
pub struct ForeignFaults {
    uffd: Userfaultfd,
}

impl ForeignFaults {
    /// Takes a duplicate of the userfaultfd that `process` has just made as its descriptor `number`.
    pub fn take(process: Pid, number: RawFd, forks: Forks) -> io::Result<Self> {
        Ok(Self { uffd: Userfaultfd::of_another(descriptor_of(process, number)?, forks)? })
    }

    /// Registers a range of a private mapping of lent frames: for missing pages, and for pages that are there but not
    /// shown yet if `shows` says so.
    pub fn register(&self, start: u64, len: u64, shows: Shows) -> io::Result<()> {
        let modes = match shows {
            Shows::ByItself => Modes::MISSING,
            Shows::WhenTold => Modes::MISSING | Modes::MINOR,
        };
        self.uffd.register(start as usize, len as usize, modes)
    }

    /// Whether the address space is there still.
    pub fn has_address_space(&self) -> bool {
        address_space_lives(self.as_fd().as_raw_fd())
    }

    /// Registers a range for missing pages, and for stores to what [`protect`](Self::protect) protects.
    pub fn register_to_protect(&self, start: u64, len: u64) -> io::Result<()> {
        self.uffd.register(start as usize, len as usize, Modes::MISSING | Modes::WRITE_PROTECT)
    }

    /// Blocks stores to the range, which is registered so, until [`unprotect`](Self::unprotect).
    pub fn protect(&self, start: u64, len: u64) -> io::Result<()> {
        self.uffd.write_protect(start as usize, len as usize)
    }

    /// Lets stores to the range through again, and wakes who sleeps on it. Where nothing is registered any more they are
    /// only woken.
    pub fn unprotect(&self, start: u64, len: u64) {
        // On an error it wakes them all the same.
        let _ = self.uffd.unprotect(start as usize, len as usize);
    }

    /// Lets sleepers on the range try again.
    pub fn wake(&self, start: u64, len: u64) {
        self.uffd.wake(start as usize, len as usize);
    }

    /// Puts a copy of `bytes`, whole pages, in place of absent pages, and wakes sleepers: in a private mapping they are pages of
    /// its own. EEXIST: one is there. ENOENT: nothing is registered there.
    pub fn supply_copy(&self, start: u64, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pages are another address space's, whose owner is stopped or sleeps on them; the source is readable.
        unsafe { self.uffd.copy(start as usize, bytes.as_ptr(), bytes.len()) }.map_err(|(_, error)| error)
    }

    /// Makes absent pages trap, and wakes sleepers. EEXIST: one is there.
    pub fn poison(&self, start: u64, len: u64) -> io::Result<()> {
        self.uffd.poison(start as usize, len as usize)
    }

    /// Shows pages that are in the file, and wakes sleepers. If one is not there any more, they are woken, too.
    pub fn show(&self, start: u64, len: u64) {
        // SAFETY: the mapping is private, and lent frames hold whole pages whenever the file has them: nothing of this
        // process depends on what the other one sees.
        let _ = unsafe { self.uffd.show(start as usize, len as usize) };
    }

    /// Reads events without blocking: faults, and userfaultfds of forked children, in the order of the forks. Other
    /// events need no more than to be read.
    pub fn read(&self, buffer: &mut EventBuffer) -> io::Result<(Vec<FaultEvent>, Vec<ForeignFaults>)> {
        let count = self.uffd.read_events(buffer)?;
        let children = newborns(buffer, count).into_iter().map(|uffd| Self { uffd });
        Ok((buffer.faults(count).collect(), children.collect()))
    }
}

/// When pages that the file has are visible in a registered range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shows {
    /// At once.
    #[default]
    ByItself,
    /// After a fault of each process: so each first touch is told of.
    WhenTold,
}

impl AsFd for ForeignFaults {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }
}

/// A duplicate of descriptor `number` of `process`, which this one may trace.
pub fn descriptor_of(process: Pid, number: RawFd) -> io::Result<OwnedFd> {
    let process = pidfd(process)?;
    // SAFETY: takes numbers.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

fn pidfd(process: Pid) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(process).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}
