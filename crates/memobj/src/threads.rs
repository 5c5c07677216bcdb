//! The threads of the engine, and what is kept off them.
//!
//! ```text
//!   driver, lanes, cleaner, clock,   others wait for them: no code of users, no call that waits for somebody else;
//!     workers between two calls        what a user's value does when it is dropped happens on a thread of its own
//!   a worker in a call, one write    nobody else waits for them: they may block, and are left behind
//! ```
//!
//! A thread of the first kind that panics has met a bug of ours. It is told as an event, and from then on the cache
//! refuses what it would have to wait for: see [`CacheShared::thread_ended`].

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memobj_core::address::PageRange;
use memobj_sys::area::FillClaim;

use crate::cache::CacheShared;
use crate::error::{ErrorKind, SupplyError};
use crate::event::Event;
use crate::locks::{Guard, Rank, RankedMutex};
use crate::store::FrameStore;
use crate::workers::{Asked, split};

/// How long the end of a cache waits for values of users that are being dropped.
const GRACE: Duration = Duration::from_secs(2);
/// How soon a thread that could not be set up again tries once more.
const AGAIN: Duration = Duration::from_millis(20);

/// Who waits for a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serves {
    /// Everybody who uses the cache.
    All,
    /// Whoever asked for the one call that it makes.
    One,
}

thread_local! {
    static SERVES_ALL: Cell<bool> = const { Cell::new(false) };
    static DISPOSES: Cell<bool> = const { Cell::new(false) };
}

/// Starts a thread of the engine. System calls that it makes raise no signals.
pub(crate) fn start<T: Send + 'static>(
    name: impl Into<String>,
    serves: Serves,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let body = move || {
        memobj_sys::quiet::stay_quiet();
        SERVES_ALL.set(serves == Serves::All);
        body()
    };
    std::thread::Builder::new().name(name.into()).spawn(body)
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

/// Drops what users gave us where nobody waits for it.
#[derive(Debug)]
pub(crate) struct Disposal {
    state: RankedMutex<Waste>,
    ended: Condvar,
}

#[derive(Default)]
struct Waste {
    left: VecDeque<Box<dyn Any + Send>>,
    /// Threads that drop something.
    running: usize,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Waste {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waste").field("left", &self.left.len()).field("running", &self.running).finish()
    }
}

impl Disposal {
    pub(crate) fn new() -> Self {
        Self { state: RankedMutex::new(Rank::Disposal, Waste::default()), ended: Condvar::new() }
    }

    fn lock(&self) -> Guard<'_, Waste> {
        self.state.lock()
    }

    /// Drops `value`: here, or on a thread of its own if others wait for the calling thread.
    pub(crate) fn drop_aside(self: &Arc<Self>, value: impl Any + Send) {
        if !SERVES_ALL.get() {
            return drop(value);
        }
        let mut waste = self.lock();
        waste.left.push_back(Box::new(value));
        waste.threads.retain(|thread| !thread.is_finished());
        let disposal = Arc::clone(self);
        // Without a thread it waits for the next one, or for the end of the cache.
        if let Ok(thread) = start("memobj-drop", Serves::One, move || disposal.work()) {
            waste.running += 1;
            waste.threads.push(thread);
        }
    }

    fn work(&self) {
        DISPOSES.set(true);
        let mut waste = self.lock();
        while let Some(value) = waste.left.pop_front() {
            drop(waste);
            // A panic of the user's is the user's.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(value)));
            waste = self.lock();
        }
        waste.running -= 1;
        self.ended.notify_all();
    }

    /// Waits until all is dropped, for some time: what takes longer is left behind.
    pub(crate) fn finish(&self) {
        let until = Instant::now() + GRACE;
        let mut waste = self.lock();
        while let Some(value) = waste.left.pop_front() {
            drop(waste);
            drop(value);
            waste = self.lock();
        }
        // The last handle of a cache can be in something that is being dropped.
        let own = usize::from(DISPOSES.get());
        while waste.running > own {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waste = waste.wait_within(&self.ended, left);
        }
        let threads = std::mem::take(&mut waste.threads);
        drop(waste);
        let this_thread = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this_thread) {
            let _ = thread.join();
        }
    }
}

/// Whether a thread that others wait for has ended by a panic.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    ended: AtomicBool,
    #[cfg(test)]
    pub(crate) panics: std::sync::Mutex<Option<&'static str>>,
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

#[cfg(test)]
mod tests;
