//! What happens to machines, for logs.

use std::fmt;

use tracing::{info, warn};

/// What happens to machines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// A monitor has said where its memory is, and is served.
    Admitted {
        /// Its process.
        pid: i32,
        /// How many regions it has, and bytes in them.
        regions: usize,
        /// Bytes of all of them.
        bytes: u64,
    },
    /// A machine of a server before this one is served again.
    TakenOver {
        /// Its process.
        pid: i32,
    },
    /// Whoever has connected is not served.
    Refused {
        /// Its process, if that is known.
        pid: Option<i32>,
        /// Why.
        why: String,
    },
    /// A machine waits for a page that cannot be supplied.
    Waits {
        /// Its process.
        pid: i32,
        /// Which page of which object, and why.
        why: String,
    },
    /// A machine is ended, since a page cannot be supplied.
    Killed {
        /// Its process.
        pid: i32,
        /// What it touched.
        address: u64,
        /// Which page of which object, and why.
        why: String,
        /// What the system says, if it could not be ended: then it sleeps for ever.
        refused: Option<String>,
    },
    /// What was to be copied before it is touched was.
    Prefetched {
        /// Its process.
        pid: i32,
        /// Bytes that could not be had.
        failed_bytes: u64,
    },
    /// A machine has ended.
    Left {
        /// Its process.
        pid: i32,
        /// Faults that were read.
        faults: u64,
        /// Bytes that were put in place.
        placed_bytes: u64,
    },
    /// A machine has done what none does, and is not served any more: it sleeps at its next missing page.
    Dropped {
        /// Its process.
        pid: i32,
    },
    /// The next server would not know of a machine, if this one died.
    NotKept {
        /// Its process.
        pid: i32,
        /// What the system said.
        why: String,
    },
}

impl Event {
    /// Hands it to the subscriber of the calling thread.
    pub(super) fn trace(&self) {
        match self {
            Self::Admitted { pid: process, regions, bytes } => info!(process, regions, bytes, "{self}"),
            Self::TakenOver { pid: process } => info!(process, "{self}"),
            Self::Refused { pid: process, why } => warn!(process, why, "{self}"),
            Self::Waits { pid: process, why } => warn!(process, why, "{self}"),
            Self::Killed { pid: process, address, why, refused } => {
                warn!(process, address, why, refused, "{self}");
            }
            Self::Prefetched { pid: process, failed_bytes: 0 } => info!(process, "{self}"),
            Self::Prefetched { pid: process, failed_bytes } => warn!(process, failed_bytes, "{self}"),
            Self::Left { pid: process, faults, placed_bytes } => {
                info!(process, faults, placed_bytes, "{self}");
            }
            Self::Dropped { pid: process } => warn!(process, "{self}"),
            Self::NotKept { pid: process, why } => warn!(process, why, "{self}"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admitted { pid, regions, bytes } => {
                write!(f, "machine {pid}: served, {bytes} bytes in {regions} regions")
            }
            Self::TakenOver { pid } => write!(f, "machine {pid}: served again"),
            Self::Refused { pid: Some(pid), why } => write!(f, "process {pid} is refused: {why}"),
            Self::Refused { pid: None, why } => write!(f, "a connection is refused: {why}"),
            Self::Waits { pid, why } => write!(f, "machine {pid}: waits: {why}"),
            Self::Killed { pid, address, why, refused: None } => {
                write!(f, "machine {pid}: ended, since it touched {address:#x}: {why}")
            }
            Self::Killed { pid, address, why, refused: Some(refused) } => {
                write!(
                    f,
                    "machine {pid}: sleeps for ever at {address:#x} ({why}): it cannot be ended: {refused}"
                )
            }
            Self::Prefetched { pid, failed_bytes: 0 } => write!(f, "machine {pid}: everything is in place"),
            Self::Prefetched { pid, failed_bytes } => {
                write!(
                    f,
                    "machine {pid}: everything is in place but {failed_bytes} bytes that could not be read"
                )
            }
            Self::Left { pid, faults, placed_bytes } => {
                write!(f, "machine {pid}: has left after {faults} faults, {placed_bytes} bytes were copied")
            }
            Self::Dropped { pid } => write!(f, "machine {pid}: dropped: it does what machines do not do"),
            Self::NotKept { pid, why } => write!(f, "machine {pid}: is not kept: {why}"),
        }
    }
}
