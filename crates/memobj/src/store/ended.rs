//! What follows when a thread that others wait for has ended by a panic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memobj_core::address::PageRange;
use memobj_sys::area::FillClaim;

use super::{Asked, CacheShared, FrameStore};
use crate::error::{ErrorKind, SupplyError};
use crate::event::Event;

/// How soon a thread that could not be set up again tries once more.
const AGAIN: Duration = Duration::from_millis(20);

/// Whether a thread that others wait for has ended by a panic.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    ended: AtomicBool,
    #[cfg(test)]
    pub(crate) panics: std::sync::Mutex<Option<&'static str>>,
}

/// Has `run` serve with `first` until it returns. After a panic the cache refuses, and what `next` makes serves on: somebody
/// has to tell those who wait.
pub(crate) fn serve<S>(
    shared: &CacheShared,
    name: &'static str,
    first: S,
    mut next: impl FnMut() -> io::Result<S>,
    run: impl Fn(&mut S),
) {
    let mut server = Some(first);
    while !shared.closing.load(Ordering::Acquire) {
        let Some(mut current) = server.take().or_else(|| next().ok()) else {
            std::thread::sleep(AGAIN);
            continue;
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| run(&mut current))).is_err();
        // Apart from the panic: a second one while it unwinds would abort the process.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(current)));
        if !panicked {
            return;
        }
        shared.thread_ended(name);
    }
}

impl CacheShared {
    /// The thread `name` has ended by a panic. From now on nothing is supplied any more: what would wait for that thread
    /// fails. Who sleeps on a fault that it had read faults again.
    pub(crate) fn thread_ended(&self, name: &'static str) {
        if !self.ended.ended.swap(true, Ordering::AcqRel) {
            self.tell(Event::ThreadEnded { thread: name });
        }
        for slot in 0..self.members.end() {
            self.members.with(slot, |store| {
                store.area.wake(PageRange { start: 0, end: store.area.pages() });
            });
        }
        self.cleaner.wake_waiters();
    }

    /// Why nothing is supplied any more, if that is so.
    pub(crate) fn refusal(&self) -> Option<SupplyError> {
        self.ended.ended.load(Ordering::Acquire).then(|| {
            let why = io::Error::other("a thread of the cache has ended by a panic");
            SupplyError::because(ErrorKind::Detached, why)
        })
    }

    /// Whether that is so. Safe in a signal handler.
    pub(crate) fn refuses(&self) -> bool {
        self.ended.ended.load(Ordering::Acquire)
    }

    /// Where tests have a thread panic, once.
    pub(crate) fn may_panic(&self, thread: &'static str) {
        #[cfg(test)]
        if self.ended.panics.lock().unwrap().take_if(|name| *name == thread) == Some(thread) {
            panic!("a test says so");
        }
        #[cfg(not(test))]
        let _ = thread;
    }
}

impl FrameStore {
    /// Fails what is claimed if the cache supplies nothing any more; else gives the claim back.
    pub(crate) fn refuse(&self, claim: FillClaim, asked: Asked) -> Option<FillClaim> {
        let Some(error) = self.cache.refusal() else { return Some(claim) };
        if asked != Asked::InAdvance {
            for claim in split(claim) {
                let bytes = claim.bytes();
                self.fail(claim, &error, 0, bytes);
            }
        }
        None
    }
}

/// The pages of a claim one by one, in order.
pub(crate) fn split(mut claim: FillClaim) -> Vec<FillClaim> {
    let mut singles: Vec<FillClaim> = claim.pages().iter().rev().map(|page| claim.split_off(page)).collect();
    singles.reverse();
    singles
}
