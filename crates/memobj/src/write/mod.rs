//! Objects that can be written.
//!
//! ```text
//!   a store ---> Dirty ---> cleaner (in the background, from a soft target on) --.
//!                  |                                                             +--> pager: write_back
//!                  '------> sync (by whoever calls it) --------------------------'         then sync
//! ```
//!
//! Pages are write-protected until the first store, which faults and makes them Dirty. Both writers of pages
//! (`cleaner`, `sync`) do the same: lock what is Dirty, protect it, copy it, let stores go on, write the copy. A
//! write that fails leaves its pages Dirty. What was written and not yet made durable is remembered
//! ([`unsynced`]), because a system that fails to make it durable forgets that it failed.
//!
//! Two targets bound what is Dirty: from the soft one on the cleaner works, at the hard one stores to further
//! pages wait for it. So half of the budget is there for reading, and a quarter where one object that cannot be
//! written holds up its half: the others have a share beyond it.

mod abandon;
mod call;
mod cleaner;
mod commit;
mod end;
mod gate;
mod guess;
mod length;
mod lost;
mod store;
mod sync;
mod transfer;
mod unsynced;
mod users;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use cleaner::Cleaner;
#[cfg(test)]
pub(crate) use cleaner::THREAD as CLEANER;
pub(crate) use end::flush_at_exit;
pub(crate) use length::Changed;
pub(crate) use store::{Access, MutPinShare, MutPinned, Stored};
pub(crate) use users::{User, Users};

use crate::error::{SupplyError, WriteError, WriteStep};
use crate::event::Event;
use crate::locks::{Guard, Rank, RankedMutex, RankedRwLock};
use crate::options::FailurePolicy;
use crate::store::FrameStore;
use crate::streams::Streams;
use gate::Gate;
use guess::Guess;
use unsynced::Unsynced;

/// Pauses between tries to write what could not be written.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What a frame store has besides, if its object can be written.
#[derive(Debug)]
pub(crate) struct WriteState {
    gate: Gate,
    pub(crate) users: Users,
    guess: Guess,
    /// Writers that come page after page.
    streams: Streams,
    unsynced: Unsynced,
    trouble: RankedMutex<Trouble>,
    commits_begun: AtomicU64,
    /// One sync of the pager, commit, or change of length at a time.
    turn: RankedMutex<()>,
    /// Whoever starts writes holds it for reading: what is copied while the length changes could be cut off at the
    /// new end, and the change fail. Taken before `turn`.
    resizing: RankedRwLock<()>,
    /// A thread is in a call of the pager's `write_back`.
    in_call: AtomicBool,
    /// The last write-back failed.
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Trouble {
    /// The write that failed last.
    last: Option<WriteError>,
    /// For whoever syncs next.
    unreported: Option<WriteError>,
    /// For whoever syncs, until discarded.
    lost: Vec<WriteError>,
    /// The number of the commit that ended last, and how.
    last_commit: Option<(u64, Result<(), WriteError>)>,
    failures: u32,
    not_before: Option<Instant>,
    /// Syncs of the pager that have failed, and how the last did.
    failed_syncs: u64,
    sync_failure: Option<SupplyError>,
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

    fn trouble(&self) -> Guard<'_, Trouble> {
        self.trouble.lock()
    }
}

/// What is known of an object's writes beside its Dirty pages.
impl FrameStore {
    fn write_error(&self, step: WriteStep, range: Range<u64>, error: &SupplyError) -> WriteError {
        WriteError::new(&self.object.name, step, range, error)
    }

    /// A write-back in the background failed: told at once, and to whoever syncs next.
    fn write_failed(&self, writes: &WriteState, error: WriteError) {
        writes.failing.store(true, Ordering::Release);
        let mut trouble = writes.trouble();
        let pause = FIRST_PAUSE.saturating_mul(1 << trouble.failures.min(10)).min(LONGEST_PAUSE);
        trouble.failures += 1;
        trouble.not_before = Some(self.cache.now() + pause);
        trouble.unreported = Some(error.clone());
        trouble.last = Some(error.clone());
        drop(trouble);
        self.cache.tell(Event::WriteFailed(error));
    }

    fn write_went_well(&self, writes: &WriteState) {
        if writes.failing.swap(false, Ordering::AcqRel) {
            let mut trouble = writes.trouble();
            trouble.failures = 0;
            trouble.not_before = None;
        }
    }

    /// Why stores cannot go on while too much is Dirty: the writes fail, and the policy says not to wait; or nobody writes
    /// any more.
    fn hopeless(&self, writes: &WriteState) -> Option<WriteError> {
        if !self.gives_up(writes) {
            return None;
        }
        let ended = self.cache.refusal();
        let ended = ended.map(|error| self.write_error(WriteStep::WriteBack, 0..self.area.length(), &error));
        ended.or_else(|| writes.trouble().last.clone())
    }

    fn gives_up(&self, writes: &WriteState) -> bool {
        let refused =
            writes.failing.load(Ordering::Acquire) && self.object.options.policy == FailurePolicy::FailAtOnce;
        refused || self.cache.refuses()
    }
}
