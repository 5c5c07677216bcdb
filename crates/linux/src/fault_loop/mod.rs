//! One event loop for the faults of others: guests, address spaces of this process, programs that are run.
//!
//! ```text
//!   client 1: userfaultfd, line, process --.                .--> resolved: woken in the client's own way
//!   client 2: userfaultfd -----------------+-- epoll --> turn --> parked: its page is demanded, nobody waits for it
//!   client n ...                          -'     ^         '--> refused: the client is dropped
//!                                                |
//!     what a parked fault waits for changes -----'   by `Listeners`: a page word, room for changes, the end of a commit
//! ```
//!
//! *Who owns what.* The loop of a process has one table of clients, each with its parked faults. A client has the memory:
//! it says what becomes of a fault, and wakes who sleeps on it. The table is behind one lock, [`Rank::FaultLoop`], a leaf
//! that is never held while a client is called.
//!
//! *A turn* is the work for one client: up to [`BATCH`] events are read, and up to [`BATCH`] parked faults looked at again.
//! Clients have turns in order, and one thread at a time has a turn of a client.
//!
//! *States of a fault:*
//!
//! ```text
//!   read --resolve--> Done                     the client has woken the sleeper
//!             |  ^
//!             |  '-- what it waits for has changed, or some time is over
//!             v  |
//!           parked                             bounded for each client; at the bound no more events of it are read
//! ```
//!
//! *Threads.*
//!
//! ```text
//!   leader   waits for events, has all turns
//!   spare    sleeps; while the leader has turns it looks every few milliseconds whether the leader is still in the same
//!            call of a client. If so it leads from now on, and another spare is started
//!   held up  was the leader; ends its turn when the call returns, and becomes the spare, or ends
//! ```
//!
//! A call of a client may wait for another process, whose kernel changes its address space at the moment; it never waits for
//! a page. The spare is started with the first client that says so. There are [`MOST_THREADS`] threads at most: that many
//! clients would have to hold up calls at the same time to block the others.
//!
//! *Panics.* A panic of a client's code makes its fault fail. A panic of the loop itself makes all faults fail that are
//! parked or come later: the loop goes on to tell those who sleep.

mod client;
mod listeners;
mod serve;
mod state;
#[cfg(test)]
mod tests;
mod turn;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Weak};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use crate::eventfd::EventFd;
use crate::fork::MakerProcess;
use crate::locks::{Rank, RankedMutex};
use crate::times::Times;

pub use client::{Awaited, Client, ClientEnd, Fault, MayBlock, Reading, Step, end_of};
#[cfg(test)]
pub(crate) use listeners::testing;
pub use listeners::{Listener, Listeners};
use state::State;

/// Events that are read, and parked faults that are resolved, in one turn of a client. A fault takes 10 us or so; who waits
/// for its turn beside a client that floods waits for so many.
pub const BATCH: usize = 1;
/// What its threads are called.
pub const THREAD: &str = "memobj-faults";
/// The most threads of a loop.
pub const MOST_THREADS: usize = 8;
/// The most faults of one client that are parked, unless it says otherwise.
pub const MOST_PARKED: usize = 256;

/// How long the end of a loop waits for threads that are blocked. What takes longer is left behind.
const GRACE: Duration = Duration::from_secs(2);
/// Of the epoll entry by which the loop is woken.
const WAKE: u64 = u64::MAX;

/// What the loop of a process does, and has done since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct FaultLoopMetrics {
    /// Clients now.
    pub clients: usize,
    /// Faults that wait for their pages now.
    pub parked: usize,
    /// Threads now.
    pub threads: usize,
    /// Faults that were read.
    pub events: u64,
    /// How often a client had so many parked faults that no more of its events were read for a while.
    pub held_back: u64,
    /// How often a call of a client took so long that another thread went on with the others.
    pub calls_held_up: u64,
    /// Clients that were dropped because they had ended, or did what clients do not do.
    pub dropped: u64,
}

/// The event loop; see the module. It ends with its last handle.
pub struct FaultLoop {
    shared: Arc<Shared>,
    owner: MakerProcess,
}

/// Keeps a client in the loop. Dropping it takes the client out: when that returns no thread of the loop calls the client
/// any more, unless the caller is one.
#[derive(Debug)]
pub struct Registration {
    owner: Arc<FaultLoop>,
    number: u64,
    /// Whether its end waits.
    wait: state::Wait,
}

/// What the threads share.
struct Shared {
    poll: OwnedFd,
    wake: Arc<EventFd>,
    /// Where listeners find `wake`.
    slot: usize,
    /// Wakes the spare.
    timer: OwnedFd,
    state: RankedMutex<State>,
    /// A turn of a client that is to be removed has ended, or a thread has.
    changed: Condvar,
    stopping: AtomicBool,
    /// The loop has panicked: faults fail.
    failed: AtomicBool,
    /// Which leader leads.
    generation: AtomicU64,
    /// The leader has work; counts its calls; the timer is set.
    is_active: AtomicBool,
    calls: AtomicU64,
    is_armed: AtomicBool,
    counters: Counters,
    /// The next round panics.
    #[cfg(test)]
    panics: AtomicBool,
}

/// How long faults took that the loop of this process has resolved, from when they were read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resolved {
    /// Faults that were resolved when they were first looked at: nothing was to be waited for.
    pub at_once: u64,
    /// All of them, as [`Times::counts`] tells it.
    pub counts: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Counters {
    at_once: AtomicU64,
    times: Times,
    events: AtomicU64,
    held_back: AtomicU64,
    calls_held_up: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

impl fmt::Debug for FaultLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultLoop").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}

/// The loop of this process, while somebody has it.
static OF_PROCESS: RankedMutex<Weak<FaultLoop>> = RankedMutex::new(Rank::FaultLoopOfProcess, Weak::new());

impl FaultLoop {
    /// The loop of this process, which all caches and spaces share. Started if there is none.
    ///
    /// # Errors
    ///
    /// What the system says to an epoll, an eventfd, a timerfd or a thread.
    pub fn of_process() -> io::Result<Arc<Self>> {
        let mut known = OF_PROCESS.lock();
        // A child of fork has its parent's, without its threads.
        let usable = |found: &Arc<Self>| found.is_here() && !found.has_failed();
        let found = known.upgrade();
        if let Some(found) = found.as_ref().filter(|found| usable(found)) {
            return Ok(Arc::clone(found));
        }
        let new = Arc::new(Self::start()?);
        *known = Arc::downgrade(&new);
        drop(known);
        if let Some(inherited) = found.filter(|found| !found.is_here()) {
            std::mem::forget(inherited);
        }
        Ok(new)
    }

    /// What the loop of this process does; zeros if there is none.
    pub fn metrics_of_process() -> FaultLoopMetrics {
        let found = OF_PROCESS.lock().upgrade();
        let metrics = found.as_ref().filter(|found| found.is_here()).map(|found| found.metrics());
        if let Some(inherited) = found.filter(|found| !found.is_here()) {
            std::mem::forget(inherited);
        }
        metrics.unwrap_or_default()
    }

    /// How long faults took that the loop of this process has resolved; nothing if there is none.
    pub fn resolved_of_process() -> Resolved {
        let found = OF_PROCESS.lock().upgrade();
        let resolved = found.as_ref().filter(|found| found.is_here()).map(|found| {
            let counters = &found.shared.counters;
            Resolved { at_once: counters.at_once.load(Ordering::Relaxed), counts: counters.times.counts() }
        });
        if let Some(inherited) = found.filter(|found| !found.is_here()) {
            std::mem::forget(inherited);
        }
        resolved.unwrap_or_default()
    }

    /// A loop of its own, with one thread.
    pub fn start() -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Arc::new(EventFd::new()?);
        epoll::add(&poll, &*wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let owner = MakerProcess::new()?;
        let slot = listeners::add_loop(&wake).ok_or(io::ErrorKind::OutOfMemory)?;
        let shared = Arc::new(Shared {
            poll,
            wake,
            slot,
            timer,
            state: RankedMutex::new(Rank::FaultLoop, State::default()),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            is_active: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            is_armed: AtomicBool::new(false),
            counters: Counters::default(),
            #[cfg(test)]
            panics: AtomicBool::new(false),
        });
        // From here on the end of the loop gives all of it back.
        let new = Self { shared, owner };
        new.shared.start_leader()?;
        Ok(new)
    }

    fn is_here(&self) -> bool {
        self.owner.is_this_process()
    }

    /// Whether it has panicked. Its clients are told of nothing but failures.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Has the faults of `client` resolved from now on.
    ///
    /// # Errors
    ///
    /// If one of the descriptors cannot be watched, or the thread that calls of the client may take cannot be started.
    pub fn add(self: &Arc<Self>, client: Arc<dyn Client>) -> io::Result<Registration> {
        if client.may_block() == MayBlock::Yes {
            self.shared.need_spare()?;
        }
        let number = self.shared.add(client)?;
        Ok(Registration { owner: Arc::clone(self), number, wait: state::Wait::ForTurn })
    }

    /// What it does.
    pub fn metrics(&self) -> FaultLoopMetrics {
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.shared.state.lock();
        FaultLoopMetrics {
            clients: state.clients(),
            parked: state.parked(),
            threads: state.threads.running,
            events: get(&counters.events),
            held_back: get(&counters.held_back),
            calls_held_up: get(&counters.calls_held_up),
            dropped: get(&counters.dropped),
        }
    }
}

impl Drop for FaultLoop {
    fn drop(&mut self) {
        if !self.is_here() {
            // A child of fork: the threads are the parent's.
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        listeners::remove_loop(self.shared.slot);
        self.shared.stop(Instant::now() + GRACE);
    }
}

impl Registration {
    /// Takes the client out without waiting for a turn of it that is under way.
    pub fn end_later(mut self) {
        self.wait = state::Wait::No;
    }

    /// The loop that the client is in.
    pub fn fault_loop(&self) -> &Arc<FaultLoop> {
        &self.owner
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.owner.is_here() {
            self.owner.shared.remove(self.number, self.wait);
        }
    }
}
