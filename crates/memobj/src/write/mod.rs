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
//! (`store/writes/unsynced.rs`), because a system that fails to make it durable forgets that it failed.
//!
//! Two targets bound what is Dirty: from the soft one on the cleaner works, at the hard one stores to further
//! pages wait for it. So half of the budget is there for reading, and a quarter where one object that cannot be
//! written holds up its half: the others have a share beyond it.

mod abandon;
mod call;
mod cleaner;
mod commit;
mod end;
mod length;
mod lost;
mod pin_new;
mod store;
mod sync;
mod transfer;

use std::sync::atomic::Ordering;
use std::time::Duration;

#[cfg(test)]
pub(crate) use cleaner::THREAD as CLEANER;
pub(crate) use cleaner::{start as start_cleaner, stop as stop_cleaner};
pub(crate) use end::flush_at_exit;
pub(crate) use length::Changed;
pub(crate) use store::{Access, MutPinShare, MutPinned, Stored};

use crate::error::{WriteError, WriteStep};
use crate::event::Event;
use crate::options::FailurePolicy;
use crate::store::{FrameStore, WriteState};

/// Pauses between tries to write what could not be written.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is known of an object's writes beside its Dirty pages.
impl FrameStore {
    /// A write-back in the background failed: told at once, and to whoever syncs next.
    fn write_failed(&self, writes: &WriteState, error: WriteError) {
        writes.failing.store(true, Ordering::Release);
        let mut trouble = writes.trouble();
        let pause = FIRST_PAUSE.saturating_mul(1 << trouble.failures.min(10)).min(LONGEST_PAUSE);
        trouble.failures += 1;
        trouble.not_before = Some(self.cache.options.clock.now() + pause);
        trouble.unreported = Some(error.clone());
        trouble.last = Some(error.clone());
        drop(trouble);
        self.cache.tell.event(Event::WriteFailed(error));
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
        let ended = self.cache.health.refusal();
        let ended = ended.map(|error| self.write_error(WriteStep::WriteBack, 0..self.area.length(), &error));
        ended.or_else(|| writes.trouble().last.clone())
    }

    fn gives_up(&self, writes: &WriteState) -> bool {
        let refused =
            writes.failing.load(Ordering::Acquire) && self.object.options.policy == FailurePolicy::FailAtOnce;
        refused || self.cache.health.refuses()
    }
}
