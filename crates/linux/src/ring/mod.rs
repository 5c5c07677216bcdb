//! Many reads and writes at once: through io_uring, or through plain threads where that is not to be had.
//!
//! A transfer owns its buffer until it completes, so that a buffer can neither be freed nor used while the kernel
//! works on it. Dropping a ring waits for the transfers in flight.

mod threads;
mod uring;

use std::io;
use std::ops::DerefMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::pool::Frame;
use crate::region::Chunk;

/// Memory that a read fills or a write empties.
#[derive(Debug)]
pub enum Target {
    /// Engine memory.
    Chunk(Chunk),
    /// A frame that will become a page.
    Frame(Frame),
}

impl Target {
    /// The whole buffer.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Target::Chunk(chunk) => chunk.deref_mut(),
            Target::Frame(frame) => frame.as_mut_slice(),
        }
    }
}

/// A file descriptor that transfers keep open.
#[derive(Clone, Debug)]
pub struct ReadFile(Arc<OwnedFd>);

impl ReadFile {
    /// Shares `file` with the reads to come.
    pub fn new(file: impl Into<OwnedFd>) -> Self {
        Self(Arc::new(file.into()))
    }

    fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl std::os::fd::AsFd for ReadFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which way a transfer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the file.
    Read,
    /// Into the file.
    Write,
}

/// One read or write to do.
#[derive(Debug)]
pub struct Transfer<T> {
    /// Which of them.
    pub direction: Direction,
    /// From or into what.
    pub file: ReadFile,
    /// Offset in the file.
    pub offset: u64,
    /// The buffer.
    pub target: Target,
    /// How many bytes, at most the target's.
    pub len: usize,
    /// Handed back on completion.
    pub token: T,
}

/// What [`Ring::wait`] has to report.
#[derive(Debug)]
pub enum Completion<T> {
    /// A transfer ended; how many bytes went, or why none did.
    Ended {
        /// The buffer.
        target: Target,
        /// As given.
        token: T,
        /// Bytes read or written.
        result: io::Result<usize>,
    },
    /// A watched descriptor became readable; its key.
    Ready(u32),
}

/// A queue of transfers; belongs to one thread at a time.
#[derive(Debug)]
pub struct Ring<T: Send + 'static>(Backend<T>);

#[derive(Debug)]
enum Backend<T: Send + 'static> {
    Uring(Box<uring::UringReads<T>>),
    Threads(threads::ThreadReads<T>),
}

/// Which mechanism a ring uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mechanism {
    /// io_uring if the kernel lets us, else threads.
    #[default]
    Auto,
    /// Plain threads.
    Threads,
}

/// How often a watched descriptor is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// Whenever it becomes readable.
    Always,
    /// Once for each [`Ring::look_again`], and not before the first.
    WhenAsked,
}

/// Who uses a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingUser {
    /// The thread that makes it, and no other.
    CallingThread,
    /// Any thread, one at a time.
    OneAtATime,
}

impl<T: Send + 'static> Ring<T> {
    /// A ring for up to `depth` transfers in flight.
    pub fn new(depth: u32, mechanism: Mechanism, owner: RingUser) -> io::Result<Self> {
        if mechanism == Mechanism::Auto
            && let Ok(uring) = uring::UringReads::new(depth, owner)
        {
            return Ok(Self(Backend::Uring(Box::new(uring))));
        }
        Ok(Self(Backend::Threads(threads::ThreadReads::new(depth)?)))
    }

    /// Whether transfers go through io_uring.
    pub fn is_uring(&self) -> bool {
        matches!(self.0, Backend::Uring(_))
    }

    /// Transfers in flight.
    pub fn in_flight(&self) -> usize {
        match &self.0 {
            Backend::Uring(ring) => ring.in_flight(),
            Backend::Threads(ring) => ring.in_flight(),
        }
    }

    /// Starts a transfer. It may be told to the kernel only at the next [`wait`](Self::wait) or
    /// [`submit`](Self::submit).
    pub fn start(&mut self, transfer: Transfer<T>) {
        assert!(transfer.len <= u32::MAX as usize);
        match &mut self.0 {
            Backend::Uring(ring) => ring.start(transfer),
            Backend::Threads(ring) => ring.start(transfer),
        }
    }

    /// Tells the kernel of the transfers that were started.
    pub fn submit(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Backend::Uring(ring) => ring.submit(),
            Backend::Threads(_) => Ok(()),
        }
    }

    /// Reports `descriptor` as `Ready(key)` when it is readable, as often as `repeat` says. It must stay open as
    /// long as the ring.
    pub fn watch(&mut self, descriptor: ReadFile, key: u32, repeat: Repeat) -> io::Result<()> {
        match &mut self.0 {
            Backend::Uring(ring) => ring.watch(descriptor, key, repeat),
            Backend::Threads(ring) => ring.watch(descriptor, key, repeat),
        }
    }

    /// Asks for one more report of what is watched as `key`, whose last report is dealt with. It comes at once if
    /// the descriptor is readable already.
    pub fn look_again(&mut self, key: u32) -> io::Result<()> {
        match &mut self.0 {
            Backend::Uring(ring) => ring.look_again(key),
            Backend::Threads(ring) => {
                ring.look_again(key);
                Ok(())
            }
        }
    }

    /// Appends what has completed to `into`, and does not wait. Starts what was not told to the kernel yet.
    pub fn look(&mut self, into: &mut Vec<Completion<T>>) -> io::Result<()> {
        match &mut self.0 {
            Backend::Uring(ring) => ring.look(into),
            Backend::Threads(ring) => ring.wait(Some(Duration::ZERO), into),
        }
    }

    /// Waits until something completed or `timeout` passed, and appends what completed to `into`.
    pub fn wait(&mut self, timeout: Option<Duration>, into: &mut Vec<Completion<T>>) -> io::Result<()> {
        match &mut self.0 {
            Backend::Uring(ring) => ring.wait(timeout, into),
            Backend::Threads(ring) => ring.wait(timeout, into),
        }
    }
}

#[cfg(test)]
mod tests;
