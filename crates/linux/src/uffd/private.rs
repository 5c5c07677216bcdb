//! Private memory of another process, which has handed out a userfaultfd of it: pages are copied into it.
//!
//! ```text
//!   read     events: a page is missing; a range was given up (madvise(2) sleeps until that was read)
//!   copy     puts pages in place where there are none
//!   zero     the same with zeros
//! ```
//!
//! Events are read into memory that outlives this process, so that a successor knows what the last read said: see
//! [`EventLog`]. Sources: userfaultfd(2), ioctl_userfaultfd(2), and the order in `userfaultfd_ctx_read` of the kernel: an
//! event is taken off the queue, and then copied to the reader, which nothing interrupts if the memory is there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{Userfaultfd, abi};
use crate::shared_words::SharedWords;

/// How many events one read gives at most.
pub const MOST_EVENTS: usize = 32;
/// Words of a [`SharedWords`] that an [`EventLog`] takes.
pub const LOG_WORDS: usize = MOST_EVENTS * MESSAGE_WORDS;
const MESSAGE_WORDS: usize = size_of::<abi::Message>() / 8;

/// What an event says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrivateEvent {
    /// There is no page at this address, and a thread sleeps on it.
    Missing {
        /// Rounded down to a page of the memory.
        address: u64,
        /// Whether it was a store.
        is_write: bool,
    },
    /// These addresses have been given up: what is not there from now on is zero.
    Removed {
        /// The first address.
        start: u64,
        /// One past the last.
        end: u64,
    },
    /// Something that such a userfaultfd should not tell of.
    Strange,
}

/// Why pages were not put in place.
#[derive(Debug)]
pub enum NotPlaced {
    /// There is a page already.
    Present,
    /// An event waits to be read first.
    EventsFirst,
    /// The range is not registered any more.
    Unregistered,
    /// The address space is gone.
    Gone,
    /// Something else.
    System(io::Error),
}

impl NotPlaced {
    fn of(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EEXIST) => Self::Present,
            Some(libc::EAGAIN) => Self::EventsFirst,
            Some(libc::ENOENT) => Self::Unregistered,
            Some(libc::ESRCH) => Self::Gone,
            _ => Self::System(error),
        }
    }
}

/// The userfaultfd of another process's private memory.
#[derive(Debug)]
pub struct PrivateMemory {
    uffd: Userfaultfd,
}

impl PrivateMemory {
    /// Takes what another process says is a userfaultfd of its own. InvalidData: it is something else.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self { uffd: Userfaultfd::adopt(descriptor)? })
    }

    /// Reads up to [`MOST_EVENTS`] events into `log`, whatever the other process does to the flags of the descriptor, and
    /// returns them. Does not block. The log has nothing of earlier reads afterwards.
    ///
    /// Of events that are read together those that are not [`Removed`](PrivateEvent::Removed) may be older or younger.
    pub fn read(&self, log: &EventLog<'_>) -> io::Result<Vec<PrivateEvent>> {
        log.clear();
        let part = libc::iovec { iov_base: log.start().cast(), iov_len: LOG_WORDS * 8 };
        // SAFETY: the kernel writes at most as much as the log has, which is shared memory that is mapped as long as `log`
        // borrows it, and is only accessed as atomic words.
        let got = unsafe { libc::preadv2(self.uffd.as_fd().as_raw_fd(), &part, 1, -1, libc::RWF_NOWAIT) };
        if got >= 0 {
            return Ok(log.events());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(Vec::new()),
            // Before Linux 6.10. The flags of the descriptor are looked at, and can change in between.
            Some(libc::EOPNOTSUPP)
                if rustix::fs::fcntl_getfl(&self.uffd)?.contains(rustix::fs::OFlags::NONBLOCK) =>
            {
                // SAFETY: as above.
                let got =
                    unsafe { libc::read(self.uffd.as_fd().as_raw_fd(), log.start().cast(), LOG_WORDS * 8) };
                Ok(if got > 0 { log.events() } else { Vec::new() })
            }
            _ => Err(error),
        }
    }

    /// Puts `bytes`, whole pages, in place from `address` on, and wakes who sleeps on them. On error, says how many bytes are in
    /// place before the page that is not.
    pub fn copy(&self, address: u64, bytes: &[u8]) -> Result<(), (usize, NotPlaced)> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let mut argument = abi::Transfer {
                dst: address + done as u64,
                src: rest.as_ptr() as u64,
                len: rest.len() as u64,
                mode: 0,
                done: 0,
            };
            let answer = super::control(&self.uffd.descriptor, abi::UFFDIO_COPY, &mut argument);
            done += usize::try_from(argument.done).unwrap_or(0);
            match answer {
                Ok(()) => {}
                // A part was copied before something came in between: the next call says what.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && argument.done > 0 => {}
                Err(error) => return Err((done, NotPlaced::of(error))),
            }
        }
        Ok(())
    }

    /// Puts pages of zeros in place; the memory has pages of 4 KiB. Else as [`copy`](Self::copy).
    pub fn zero(&self, address: u64, length: u64) -> Result<(), (usize, NotPlaced)> {
        let mut done = 0;
        while done < length {
            let range = abi::Range { start: address + done, len: length - done };
            let mut argument = abi::ZeroPage { range, mode: 0, done: 0 };
            let answer = super::control(&self.uffd.descriptor, abi::UFFDIO_ZEROPAGE, &mut argument);
            done += u64::try_from(argument.done).unwrap_or(0);
            match answer {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && argument.done > 0 => {}
                Err(error) => return Err((done as usize, NotPlaced::of(error))),
            }
        }
        Ok(())
    }

    /// Lets who sleeps on the range look again. Events of theirs that were read and not answered are told of again.
    pub fn wake(&self, address: u64, length: u64) {
        self.uffd.wake(address as usize, length as usize);
    }

    /// Whether the address space is there still.
    pub fn has_address_space(&self) -> bool {
        super::address_space_lives(self.as_fd().as_raw_fd())
    }
}

impl AsFd for PrivateMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }
}

/// What the last read of events gave, in memory that others keep open: who dies between a read and what he does about it
/// leaves it to his successor. The first [`LOG_WORDS`] words of the memory are its own.
#[derive(Clone, Copy, Debug)]
pub struct EventLog<'a>(&'a SharedWords);

impl<'a> EventLog<'a> {
    /// InvalidInput: there are too few words.
    pub fn new(words: &'a SharedWords) -> io::Result<Self> {
        match words.len() >= LOG_WORDS {
            true => Ok(Self(words)),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// What the last read has given.
    pub fn events(&self) -> Vec<PrivateEvent> {
        (0..MOST_EVENTS).map_while(|at| self.event(at)).collect()
    }

    fn event(&self, at: usize) -> Option<PrivateEvent> {
        let word = |index: usize| self.0.get(at * MESSAGE_WORDS + index);
        let kind = word(0).to_ne_bytes()[0];
        Some(match kind {
            0 => return None,
            abi::EVENT_PAGEFAULT if word(1) & (abi::FAULT_WP | abi::FAULT_MINOR) == 0 => {
                PrivateEvent::Missing { address: word(2), is_write: word(1) & abi::FAULT_WRITE != 0 }
            }
            abi::EVENT_REMOVE if word(1) < word(2) => PrivateEvent::Removed { start: word(1), end: word(2) },
            _ => PrivateEvent::Strange,
        })
    }

    fn clear(&self) {
        (0..MOST_EVENTS).for_each(|at| self.0.set(at * MESSAGE_WORDS, 0));
    }

    fn start(&self) -> *mut u8 {
        self.0.start()
    }
}
