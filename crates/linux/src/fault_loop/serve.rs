//! The threads of a loop: one leads, one is spare, and others are blocked.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::time::{Itimerspec, TimerfdTimerFlags, timerfd_settime};

use super::turn::Turn;
use super::{Counters, MOST_THREADS, Shared, WAKE};
use crate::locks::Guard;
use crate::{quiet, serves};

/// A leader that is in the same call at two looks that are so far apart is blocked.
const HELD_UP: Duration = Duration::from_millis(8);
/// What sets the timer off at once.
const AT_ONCE: Duration = Duration::from_nanos(1);
/// How long a thread of the loop runs at once where others want to, too. Somebody sleeps until it has resolved his fault.
const SLICE_NS: u64 = 100_000;
/// Descriptors of which one wait tells.
const MOST_READY: usize = 64;

thread_local! {
    static IS_LOOP_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is one of a loop's.
pub(super) fn is_loop_thread() -> bool {
    IS_LOOP_THREAD.get()
}

/// What a thread does next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Leads, as long as the generation is this.
    Lead(u64),
    Spare,
    End,
}

impl Shared {
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn start_leader(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state.lock();
        self.spawn(&mut state, Role::Lead(0))
    }

    /// Sees to it that a spare exists, or as many threads as there may be.
    pub(super) fn need_spare(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.threads.has_spare && state.threads.running < MOST_THREADS {
            self.spawn(&mut state, Role::Spare)?;
            state.threads.has_spare = true;
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>, state: &mut Guard<'_, super::State>, role: Role) -> io::Result<()> {
        let shared = Arc::clone(self);
        let body = move || shared.serve(role);
        let thread = std::thread::Builder::new().name(super::THREAD.into()).spawn(body)?;
        let threads = &mut state.threads;
        threads.running += 1;
        threads.handles.retain(|handle| !handle.is_finished());
        threads.handles.push(thread);
        Ok(())
    }

    fn serve(self: Arc<Self>, mut role: Role) {
        quiet::stay_quiet();
        serves::all();
        // Refused in a container, for example: then it takes its turn as others do.
        let _ = crate::processor::run_in_short_slices(SLICE_NS);
        IS_LOOP_THREAD.set(true);
        while role != Role::End {
            role = match role {
                Role::Lead(generation) => self.lead(generation),
                Role::Spare => self.be_spare(),
                Role::End => Role::End,
            };
        }
        self.state.lock().threads.running -= 1;
        self.changed.notify_all();
    }

    fn lead(&self, generation: u64) -> Role {
        while !self.is_stopping() {
            if self.generation.load(Ordering::Acquire) != generation {
                return self.after_being_held_up();
            }
            if catch_unwind(AssertUnwindSafe(|| self.round(generation))).is_err() {
                self.fail();
            }
        }
        Role::End
    }

    /// Another leads by now.
    fn after_being_held_up(&self) -> Role {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.threads.has_spare, true) {
            return Role::End;
        }
        drop(state);
        self.set_timer(HELD_UP);
        Role::Spare
    }

    /// Waits for events, and gives each client that has some a turn.
    fn round(&self, generation: u64) {
        let patience = self.state.lock().patience();
        let mut ready = Vec::with_capacity(MOST_READY);
        if patience != Some(Duration::ZERO) {
            self.is_active.store(false, Ordering::SeqCst);
        }
        let limit = patience.map(|patience| Timespec { tv_sec: 0, tv_nsec: patience.as_nanos() as i64 });
        // Interrupted: nothing is ready.
        let _ = epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut ready), limit.as_ref());
        self.is_active.store(true, Ordering::SeqCst);
        #[cfg(test)]
        assert!(!self.panics.swap(false, Ordering::Relaxed), "a test says so");
        let turns = self.queue_ready(&ready, patience);
        if turns > 0 {
            self.arm();
        }
        for _ in 0..turns {
            let Some(turn) = Turn::begin(self) else { return };
            turn.run();
            if self.generation.load(Ordering::Acquire) != generation || self.is_stopping() {
                return;
            }
        }
    }

    /// Queues the clients that are to have turns; how many there are.
    fn queue_ready(&self, ready: &[epoll::Event], patience: Option<Duration>) -> usize {
        let is_woken = ready.iter().any(|event| event.data.u64() == WAKE);
        if is_woken {
            // First: what changes from here on rings again.
            self.wake.clear();
        }
        let mut state = self.state.lock();
        for event in ready.iter().filter(|event| event.data.u64() != WAKE) {
            state.has_events(&self.poll, event.data.u64());
        }
        let time_is_over = ready.is_empty() && patience != Some(Duration::ZERO);
        if is_woken || time_is_over || state.is_look_due() {
            state.look();
        }
        state.order_queue();
        state.queued()
    }

    /// A bug of the loop: its clients hear of it, and faults fail from now on.
    fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        let clients = self.state.lock().all();
        for client in clients {
            let _ = catch_unwind(AssertUnwindSafe(|| client.loop_failed()));
        }
        self.state.lock().look_at_all();
    }

    /// The leader has work: the spare is to look after it.
    fn arm(&self) {
        if !self.is_armed.swap(true, Ordering::SeqCst) {
            self.set_timer(HELD_UP);
        }
    }

    fn set_timer(&self, after: Duration) {
        let value = Timespec { tv_sec: 0, tv_nsec: after.as_nanos() as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // Refused for malformed times only.
        let _ = timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::empty(), &once);
    }

    /// Sleeps until the leader has work, and takes its place once it is blocked.
    fn be_spare(self: &Arc<Self>) -> Role {
        let mut seen = None;
        loop {
            // It blocks until the timer has run out. Interrupted: looks once more.
            let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
            if self.is_stopping() {
                return Role::End;
            }
            if !self.is_active.load(Ordering::SeqCst) {
                seen = None;
                self.is_armed.store(false, Ordering::SeqCst);
                if self.is_active.load(Ordering::SeqCst) {
                    self.arm();
                }
                continue;
            }
            let calls = self.calls.load(Ordering::Relaxed);
            if seen == Some(calls) {
                return self.take_over();
            }
            seen = Some(calls);
            self.set_timer(HELD_UP);
        }
    }

    fn take_over(self: &Arc<Self>) -> Role {
        let mut state = self.state.lock();
        state.threads.has_spare = false;
        if state.threads.running < MOST_THREADS {
            // Without one more, somebody waits longer.
            state.threads.has_spare = self.spawn(&mut state, Role::Spare).is_ok();
        }
        Counters::add(&self.counters.calls_held_up, 1);
        let generation = self.generation.load(Ordering::Acquire) + 1;
        self.generation.store(generation, Ordering::Release);
        drop(state);
        self.set_timer(HELD_UP);
        Role::Lead(generation)
    }

    /// Ends all threads, and waits for them until `until`.
    pub(super) fn stop(&self, until: Instant) {
        self.stopping.store(true, Ordering::Release);
        self.wake.notify();
        self.set_timer(AT_ONCE);
        let own = usize::from(is_loop_thread());
        let mut state = self.state.lock();
        while state.threads.running > own {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = state.wait_within(&self.changed, left);
        }
        let handles = std::mem::take(&mut state.threads.handles);
        drop(state);
        let this = std::thread::current().id();
        for handle in handles.into_iter().filter(|handle| handle.thread().id() != this) {
            let _ = handle.join();
        }
    }
}
