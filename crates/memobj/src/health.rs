//! Whether a cache still serves: what follows when it is closed, or a thread that others wait for has ended by a panic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::allocator::FrameAllocator;
use crate::error::{ErrorKind, SupplyError};
use crate::event::Event;
use crate::reporter::Reporter;
use crate::threads;

/// How soon a thread that could not be set up again tries once more.
const AGAIN: Duration = Duration::from_millis(20);

/// Two flags that are set once. Threads of the cache ask the first; who is about to wait for them asks the second.
#[derive(Debug)]
pub(crate) struct Health {
    closing: AtomicBool,
    ended: AtomicBool,
    #[cfg(test)]
    pub(crate) panics: std::sync::Mutex<Option<&'static str>>,
    allocator: Arc<FrameAllocator>,
    reporter: Arc<Reporter>,
}

impl Health {
    pub(crate) fn new(allocator: &Arc<FrameAllocator>, reporter: &Arc<Reporter>) -> Self {
        Self {
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            #[cfg(test)]
            panics: std::sync::Mutex::default(),
            allocator: Arc::clone(allocator),
            reporter: Arc::clone(reporter),
        }
    }

    /// The last handle of the cache is gone: its threads are to end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether that is so. Safe in a signal handler.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Starts `thread`, which has `run` serve with what `new` makes there: a ring belongs to the thread that makes it. An
    /// error if that cannot be made.
    ///
    /// After a panic the cache refuses, and what `new` makes then serves on: somebody has to tell those who wait. The
    /// panic is told as that of `name`.
    pub(crate) fn start_server<S: 'static>(
        self: &Arc<Self>,
        thread: impl Into<String>,
        name: &'static str,
        mut new: impl FnMut() -> io::Result<S> + Send + 'static,
        run: fn(&mut S),
    ) -> io::Result<JoinHandle<()>> {
        let health = Arc::clone(self);
        let make = move || Ok((new()?, new));
        threads::start_with(thread, make, move |(first, new)| health.serve(name, first, new, run))
    }

    fn serve<S>(
        &self,
        name: &'static str,
        first: S,
        mut next: impl FnMut() -> io::Result<S>,
        run: fn(&mut S),
    ) {
        let mut server = Some(first);
        while !self.is_closing() {
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
            self.thread_ended(name);
        }
    }

    /// The thread `name` has ended by a panic. From now on nothing is supplied any more: what would wait for that thread
    /// fails. Who sleeps on a fault that it had read faults again.
    pub(crate) fn thread_ended(&self, name: &'static str) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.reporter.event(Event::ThreadEnded { thread: name });
        }
        self.allocator.wake_all();
    }

    /// Whether nothing is supplied any more. Safe in a signal handler.
    pub(crate) fn refuses(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Why that is so, if it is.
    pub(crate) fn refusal(&self) -> Option<SupplyError> {
        self.refuses().then(|| {
            let why = io::Error::other("a thread of the cache has ended by a panic");
            SupplyError::because(ErrorKind::Detached, why)
        })
    }

    /// Where tests have a thread panic, once.
    pub(crate) fn may_panic(&self, thread: &'static str) {
        #[cfg(test)]
        if self.panics.lock().unwrap().take_if(|name| *name == thread) == Some(thread) {
            panic!("a test says so");
        }
        #[cfg(not(test))]
        let _ = thread;
    }
}
