//! What objects that can be written need besides: which stores may go on, and what is known of failed writes.

mod gate;
mod guess;
mod unsynced;
mod users;

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use crate::error::{SupplyError, WriteError};
use crate::locks::{Guard, Rank, RankedMutex, RankedRwLock};
use crate::streams::Streams;
use gate::Gate;
use guess::Guess;
use unsynced::Unsynced;

pub(crate) use gate::Inside;
pub(crate) use users::{User, Users};

/// What a frame store has besides, if its object can be written.
#[derive(Debug)]
pub(crate) struct WriteState {
    pub(crate) gate: Gate,
    pub(crate) users: Users,
    pub(crate) guess: Guess,
    /// Writers that come page after page.
    pub(crate) streams: Streams,
    pub(crate) unsynced: Unsynced,
    pub(crate) trouble: RankedMutex<Trouble>,
    pub(crate) commits_begun: AtomicU64,
    /// One sync of the pager, commit, or change of length at a time.
    pub(crate) turn: RankedMutex<()>,
    /// Whoever starts writes holds it for reading: what is copied while the length changes could be cut off at the
    /// new end, and the change fail. Taken before `turn`.
    pub(crate) resizing: RankedRwLock<()>,
    /// A thread is in a call of the pager's `write_back`.
    pub(crate) in_call: AtomicBool,
    /// The last write-back failed.
    pub(crate) failing: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// The write that failed last.
    pub(crate) last: Option<WriteError>,
    /// For whoever syncs next.
    pub(crate) unreported: Option<WriteError>,
    /// For whoever syncs, until discarded.
    pub(crate) lost: Vec<WriteError>,
    /// The number of the commit that ended last, and how.
    pub(crate) last_commit: Option<(u64, Result<(), WriteError>)>,
    pub(crate) failures: u32,
    pub(crate) not_before: Option<Instant>,
    /// Syncs of the pager that have failed, and how the last did.
    pub(crate) failed_syncs: u64,
    pub(crate) sync_failure: Option<SupplyError>,
}

impl WriteState {
    pub(crate) fn new(pages: u64) -> std::io::Result<Self> {
        Ok(Self {
            gate: Gate::default(),
            users: Users::default(),
            guess: Guess::default(),
            streams: Streams::default(),
            unsynced: Unsynced::new(pages)?,
            trouble: RankedMutex::new(Rank::Trouble, Trouble::default()),
            commits_begun: AtomicU64::new(0),
            turn: RankedMutex::new(Rank::Turn, ()),
            resizing: RankedRwLock::new(Rank::Resizing, ()),
            in_call: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        })
    }

    pub(crate) fn trouble(&self) -> Guard<'_, Trouble> {
        self.trouble.lock()
    }
}
