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
//! (`unsynced.rs`), because a system that fails to make it durable forgets that it failed.
//!
//! Two targets bound what is Dirty: from the soft one on the cleaner works, at the hard one stores to further
//! pages wait for it. So half of the budget is there for reading, and a quarter where one object that cannot be
//! written blocks its half: the others have a share beyond it.

mod abandon;
mod await_store;
mod claims;
mod cleaner;
mod commit;
mod end;
mod gate;
mod guess;
mod install;
mod length;
mod pin_new;
mod requests;
mod store;
mod sync;
mod transfer;
mod unsynced;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memobj_linux::area::Area;

pub(crate) use cleaner::Cleaner;
#[cfg(test)]
pub(crate) use cleaner::THREAD as CLEANER;
pub(crate) use install::{Claim, CopyRoom};
pub(crate) use length::{CUT_OFF_UNTOLD, NOT_CUT_OFF, Obstacle};
pub(crate) use store::{FaultFor, MutPinned, Stored, expect};
pub(crate) use unsynced::Unsynced;
pub(crate) use users::User;

use crate::error::{SupplyError, WriteError, WriteStep};
use crate::event::Event;
use crate::locks::{Rank, RankedMutex, RankedRwLock};
use crate::options::FailurePolicy;
use crate::pages::{Errors, Fill, ObjectCore};
use crate::pins::Waits;
use crate::sequences::Sequences;
use claims::Claims;
use gate::Gate;
use guess::Guess;
use requests::Window;
use users::Users;

/// Pauses between tries to write what could not be written.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Changes of one object that can be written: which stores may go on, what goes to the pager and when, and what is known
/// of failed writes. Called by stores, by who syncs, commits or changes the length, by the cleaner and at the end; each
/// verb has a file here.
#[derive(Debug)]
pub(crate) struct Writes {
    area: Arc<Area>,
    object: Arc<ObjectCore>,
    errors: Arc<Errors>,
    fill: Arc<Fill>,
    waits: Arc<Waits>,
    gate: Gate,
    pub(crate) users: Users,
    guess: Guess,
    /// Pages of open transactions.
    claims: Claims,
    /// Writers that come page after page.
    sequences: Sequences,
    unsynced: Unsynced,
    /// Of pagers that must be asked.
    window: Window,
    write_failures: RankedMutex<WriteFailures>,
    commits_begun: AtomicU64,
    /// One sync of the pager, commit, or change of length at a time.
    turn: RankedMutex<()>,
    /// Whoever starts writes holds it for reading: what is copied while the length changes could be cut off at the
    /// new end, and the change fail. Taken before `turn`.
    resizing: RankedRwLock<()>,
    /// Nothing is written: guests of an owner before have pages open, and are not admitted again yet, so that nothing could
    /// be protected in them.
    held_back: AtomicBool,
    /// Pages are offered to the log.
    in_call: AtomicBool,
    /// The last write-back failed.
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct WriteFailures {
    /// The write that failed last.
    last: Option<WriteError>,
    /// For whoever syncs next.
    unreported: Option<WriteError>,
    /// The number of the commit that ended last, and how.
    last_commit: Option<(u64, Result<(), WriteError>)>,
    failures: u32,
    not_before: Option<Instant>,
    /// Syncs of the pager that have failed, and how the last did.
    failed_syncs: u64,
    sync_failure: Option<SupplyError>,
}

impl Drop for Writes {
    fn drop(&mut self) {
        // What pagers gave as causes is dropped where the pagers are.
        self.object.disposal.drop_aside(std::mem::take(self.write_failures.get_mut()));
    }
}

impl Writes {
    /// `unsynced` is of the object's pages.
    pub(crate) fn new(waits: &Arc<Waits>, unsynced: Unsynced) -> Self {
        let Fill { area, object, errors, .. } = &*waits.fill;
        Self {
            area: Arc::clone(area),
            object: Arc::clone(object),
            errors: Arc::clone(errors),
            fill: Arc::clone(&waits.fill),
            waits: Arc::clone(waits),
            gate: Gate::default(),
            users: Users::default(),
            guess: Guess::default(),
            claims: Claims::default(),
            sequences: Sequences::default(),
            unsynced,
            window: Window::new(object, waits.fill.allocator.budget.limit(), waits.fill.block_pages()),
            write_failures: RankedMutex::new(Rank::WriteFailures, WriteFailures::default()),
            commits_begun: AtomicU64::new(0),
            turn: RankedMutex::new(Rank::Turn, ()),
            resizing: RankedRwLock::new(Rank::Resizing, ()),
            held_back: AtomicBool::new(false),
            in_call: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        }
    }

    /// Holds writes back, or lets them begin.
    pub(crate) fn hold_back(&self, holds: bool) {
        self.held_back.store(holds, Ordering::Release);
    }

    fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Acquire)
    }

    /// A write-back in the background failed: told at once, and to whoever syncs next.
    fn write_failed(&self, error: WriteError) {
        self.failing.store(true, Ordering::Release);
        let mut write_failures = self.write_failures.lock();
        let pause = FIRST_PAUSE.saturating_mul(1 << write_failures.failures.min(10)).min(LONGEST_PAUSE);
        write_failures.failures += 1;
        write_failures.not_before = Some(self.object.clock.now() + pause);
        write_failures.unreported = Some(error.clone());
        write_failures.last = Some(error.clone());
        drop(write_failures);
        self.fill.reporter.event(Event::WriteFailed(error));
    }

    fn write_went_well(&self) {
        if self.failing.swap(false, Ordering::AcqRel) {
            let mut write_failures = self.write_failures.lock();
            write_failures.failures = 0;
            write_failures.not_before = None;
        }
    }

    /// Why stores cannot go on while too much is Dirty: the writes fail, and the policy says not to wait; or nobody writes
    /// any more.
    fn hopeless(&self) -> Option<WriteError> {
        if !self.gives_up() {
            return None;
        }
        let ended = self.fill.health.refusal();
        let ended = ended.map(|error| self.error_of_all(WriteStep::WriteBack, &error));
        ended.or_else(|| self.write_failures.lock().last.clone())
    }

    fn gives_up(&self) -> bool {
        let refused =
            self.failing.load(Ordering::Acquire) && self.object.options.policy == FailurePolicy::FailAtOnce;
        refused || self.fill.health.refuses()
    }

    /// An error for all of the object.
    fn error_of_all(&self, step: WriteStep, error: &SupplyError) -> WriteError {
        self.object.write_error(step, 0..self.area.length(), error)
    }
}
