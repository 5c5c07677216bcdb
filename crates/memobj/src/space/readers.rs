//! The threads that read the faults of a space.
//!
//! ```text
//!   one reads      a page that is there: wakes the sleeper, and reads on
//!                  any other: queues the fault, lets another thread read, and resolves
//!   others         sleep, or resolve; a new one is started when none is left to read
//! ```
//!
//! So a fault costs one thread where it can be resolved at once, and a pager that does not answer holds up nobody but
//! those who wait for it: up to [`MOST`] such pages at a time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;

use memobj_core::address::VirtAddr;
use memobj_linux::uffd::EventBuffer;
use memobj_linux::wake::Doorbell;

use super::handle::Inner;
use crate::locks::{Guard, Rank, RankedMutex};
use crate::threads::{self, Serves};

/// The most threads of a space.
const MOST: usize = 64;

/// All threads of a space.
#[derive(Debug)]
pub(super) struct Readers {
    work: RankedMutex<Work>,
    changed: Condvar,
    stop: Doorbell,
    threads: RankedMutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Work {
    /// Pages whose faults nobody has begun to resolve.
    queue: VecDeque<VirtAddr>,
    /// Whether a thread reads events, or is about to.
    is_read: bool,
    idle: usize,
    threads: usize,
    stopping: bool,
}

/// What a thread does next.
enum Task {
    Read,
    Resolve(VirtAddr),
    Stop,
}

impl Readers {
    /// Starts the first thread.
    pub(super) fn start(inner: &Arc<Inner>) -> io::Result<Arc<Self>> {
        let readers = Arc::new(Self {
            work: RankedMutex::new(Rank::SpaceFaults, Work::default()),
            changed: Condvar::new(),
            stop: Doorbell::new()?,
            threads: RankedMutex::new(Rank::Threads, Vec::new()),
        });
        readers.lock().threads = 1;
        readers.add(inner)?;
        Ok(readers)
    }

    fn lock(&self) -> Guard<'_, Work> {
        self.work.lock()
    }

    /// Starts a thread, which is counted already.
    fn add(self: &Arc<Self>, inner: &Arc<Inner>) -> io::Result<()> {
        let (readers, inner) = (Arc::clone(self), Arc::clone(inner));
        let mut threads = self.threads.lock();
        let body = move || readers.run(&inner);
        threads.push(threads::start("memobj-space", Serves::All, body)?);
        Ok(())
    }

    /// Ends all threads, and waits for them. The memory of the space is closed already.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.stop.ring();
        self.changed.notify_all();
        loop {
            // A thread can be started up to the moment at which the one that starts it has seen the end.
            let threads = std::mem::take(&mut *self.threads.lock());
            if threads.is_empty() {
                return;
            }
            for thread in threads {
                // A space that a pager owns can be dropped by one of its own threads.
                if thread.thread().id() != std::thread::current().id() {
                    let _ = thread.join();
                }
            }
        }
    }

    fn run(self: &Arc<Self>, inner: &Arc<Inner>) {
        let mut events = EventBuffer::default();
        loop {
            match self.next() {
                Task::Stop => return,
                Task::Resolve(page) => {
                    if catch_unwind(AssertUnwindSafe(|| inner.resolve(page))).is_err() {
                        inner.give_up(page);
                    }
                }
                Task::Read => {
                    if catch_unwind(AssertUnwindSafe(|| self.read(inner, &mut events))).is_err() {
                        self.lock().is_read = false;
                        inner.reading_ended();
                    }
                }
            }
        }
    }

    fn next(&self) -> Task {
        let mut work = self.lock();
        loop {
            if work.stopping {
                return Task::Stop;
            }
            if let Some(page) = work.queue.pop_front() {
                return Task::Resolve(page);
            }
            if !std::mem::replace(&mut work.is_read, true) {
                return Task::Read;
            }
            work.idle += 1;
            work = work.wait(&self.changed);
            work.idle -= 1;
        }
    }

    /// Reads events until there is one that takes time.
    fn read(self: &Arc<Self>, inner: &Arc<Inner>, events: &mut EventBuffer) {
        let mut slow = Vec::new();
        while slow.is_empty() && inner.goes_on() {
            let count = inner.memory.wait_for_faults(self.stop.as_fd(), events).unwrap_or_else(|_| {
                // Nothing that is known of; faults would hang for ever without a reader.
                std::thread::yield_now();
                0
            });
            let pages = events.faults(count).map(|event| VirtAddr(event.address as u64));
            slow.extend(pages.filter(|page| !inner.resolve_at_once(*page)));
        }
        let mut work = self.lock();
        work.is_read = false;
        work.queue.extend(slow);
        // This thread takes the first; somebody has to read, and to take the others.
        let wanted = work.queue.len();
        for _ in 0..wanted.min(work.idle) {
            self.changed.notify_one();
        }
        let more = wanted.saturating_sub(work.idle).min(MOST - work.threads);
        if work.stopping {
            return;
        }
        work.threads += more;
        drop(work);
        for _ in 0..more {
            if self.add(inner).is_err() {
                // Those that there are do it, one after another.
                self.lock().threads -= 1;
            }
        }
    }
}
