//! The threads of the engine, and what is kept off them.
//!
//! ```text
//!   driver, lanes, cleaner, clock,   others wait for them: no code of users, no call that waits for somebody else;
//!     workers between two calls        what a user's value does when it is dropped happens on a thread of its own
//!   a worker in a call, one write    nobody else waits for them: they may block, and are left behind
//! ```
//!
//! A thread of the first kind that panics has met a bug of ours. It is told as an event, and from then on the cache
//! refuses what it would have to wait for: see `Health::thread_ended`.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::locks::{Guard, Rank, RankedMutex};

/// How long the end of a cache waits for values of users that are being dropped.
const GRACE: Duration = Duration::from_secs(2);
/// Who waits for a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serves {
    /// Everybody who uses the cache.
    All,
    /// Whoever asked for the one call that it makes.
    One,
}

thread_local! {
    static DISPOSES: Cell<bool> = const { Cell::new(false) };
}

/// Starts a thread of the engine. System calls that it makes raise no signals.
pub(crate) fn start<T: Send + 'static>(
    name: impl Into<String>,
    serves: Serves,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let body = move || {
        memobj_linux::quiet::stay_quiet();
        if serves == Serves::All {
            memobj_linux::serves::all();
        }
        body()
    };
    std::thread::Builder::new().name(name.into()).spawn(body)
}

/// As [`start`], for a thread that serves all and first makes what it works with: an error if it cannot.
pub(crate) fn start_with<S>(
    name: impl Into<String>,
    make: impl FnOnce() -> io::Result<S> + Send + 'static,
    run: impl FnOnce(S) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (report, started) = sync_channel(1);
    let body = move || match make() {
        Ok(made) => {
            let _ = report.send(Ok(()));
            run(made);
        }
        Err(error) => drop(report.send(Err(error))),
    };
    let thread = start(name, Serves::All, body)?;
    started.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    Ok(thread)
}

/// Waits for the ends of `threads`, but for the one that calls: it can drop the last handle of its own cache.
pub(crate) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    let this_thread = std::thread::current().id();
    for thread in threads.into_iter().filter(|thread| thread.thread().id() != this_thread) {
        let _ = thread.join();
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
        if !memobj_linux::serves::is_for_all() {
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
        join(threads);
    }
}

#[cfg(test)]
mod tests;
