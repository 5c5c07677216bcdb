//! What the loop asks of those whose faults it reads.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::MOST_PARKED;
use crate::uffd::FaultEvent;

/// A fault that was read.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What the kernel said.
    pub event: FaultEvent,
    /// When that was read.
    pub read_at: Instant,
    /// How often the client was asked to resolve it before.
    pub looks: u32,
}

/// What became of a fault.
pub enum Step {
    /// It is resolved, or its sleeper was woken to find out.
    Done,
    /// It waits for this.
    Pending(Box<dyn Awaited>),
    /// It cannot be resolved now, for a reason of which nobody tells: it is looked at again in some milliseconds.
    Later,
    /// There is no such page. Who has too many of these in a row is dropped.
    Refused,
    /// The client has done what it must not: it is dropped.
    Broken,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Done => "Done",
            Step::Pending(_) => "Pending",
            Step::Later => "Later",
            Step::Refused => "Refused",
            Step::Broken => "Broken",
        })
    }
}

/// What a parked fault waits for.
pub trait Awaited: Send {
    /// Whether it has changed since this was made, so that the fault is to be looked at again.
    ///
    /// Takes no lock, and does not wait. Whoever changes it tells by [`Listeners`](super::Listeners) of which this has been a
    /// [`Listener`](super::Listener) since before it looked first.
    fn is_over(&self) -> bool;
}

/// What became of an attempt to read events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// There are no more than were read, or they are told of again.
    Done,
    /// They cannot be read now, for want of memory or descriptors: it is tried again in some milliseconds.
    Later,
}

/// Why a client was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEnd {
    /// It has hung up, or its process has ended.
    Gone,
    /// It did what clients do not do.
    Broken,
}

/// Whether calls of a client can wait for another process: every ioctl on its memory waits while its kernel changes its
/// address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MayBlock {
    /// They act on this process only.
    No,
    /// They can.
    Yes,
}

/// Whose faults the loop reads.
///
/// All calls are made by threads of the loop, with no lock held, one at a time for each client. None waits for a page, calls
/// a pager, or drops what users gave. A panic of [`read`](Self::read) ends the client as [`ClientEnd::Broken`]; one of
/// [`resolve`](Self::resolve) gives up that fault.
pub trait Client: Send + Sync {
    /// The descriptors that are watched, three at most; the first tells of faults. They are the same at every call, and
    /// open as long as the client lives.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Descriptor `index` can be read. The first gives up to [`BATCH`](super::BATCH) faults, which are appended to `faults`.
    /// Does not block.
    fn read(&self, index: usize, faults: &mut Vec<FaultEvent>) -> Result<Reading, ClientEnd>;

    /// Resolves `fault` if that takes no waiting; else demands what it takes, and says what to wait for.
    fn resolve(&self, fault: &Fault) -> Step;

    /// Makes `fault` fail: its sleeper must not sleep for ever. The loop has panicked, or the client has at this fault.
    fn give_up(&self, fault: &Fault);

    /// The client was dropped; its parked faults are. Not called when its registration is dropped.
    fn ended(&self, end: ClientEnd) {
        let _ = end;
    }

    /// The loop has panicked: from now on faults are given up.
    fn loop_failed(&self) {}

    /// How many faults in a row may be [refused](Step::Refused); with one more it is dropped.
    fn most_refused(&self) -> u32 {
        1024
    }

    /// Whether calls can wait for another process.
    fn may_block(&self) -> MayBlock;

    /// How many faults may be parked. At most [`BATCH`](super::BATCH) fewer are when more are read.
    fn most_parked(&self) -> usize {
        MOST_PARKED
    }
}

/// What an error of a call on somebody's userfaultfd says of him.
pub fn end_of(error: &io::Error) -> ClientEnd {
    match error.raw_os_error() {
        Some(libc::ESRCH) => ClientEnd::Gone,
        _ => ClientEnd::Broken,
    }
}
