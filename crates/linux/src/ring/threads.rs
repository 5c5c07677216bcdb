//! Transfers through plain threads.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::{Completion, Direction, ReadFile, Repeat, Transfer};
use crate::eventfd::EventFd;
use crate::file::{read_full, write_full};
use crate::locks::{Rank, RankedMutex};
use crate::quiet::stay_quiet;

const MOST_THREADS: u32 = 16;

#[derive(Debug)]
pub(super) struct ThreadReads<T: Send + 'static> {
    reads: Option<Sender<Transfer<T>>>,
    done: Receiver<Completion<T>>,
    report: Sender<Completion<T>>,
    readers: Vec<JoinHandle<()>>,
    watchers: Vec<Watcher>,
    in_flight: usize,
}

/// Whether a watcher may look again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    /// It may.
    Open,
    /// Its last report is not dealt with.
    Shut,
    /// It is to end.
    Closed,
}

/// A thread that polls one descriptor, and pauses until its last report was taken.
#[derive(Debug)]
struct Watcher {
    thread: Option<JoinHandle<()>>,
    key: u32,
    repeat: Repeat,
    quit: Arc<EventFd>,
    gate: Arc<(RankedMutex<Gate>, Condvar)>,
}

impl<T: Send + 'static> ThreadReads<T> {
    pub(super) fn new(depth: u32) -> io::Result<Self> {
        let (reads, queue) = channel::<Transfer<T>>();
        let (report, done) = channel();
        let queue = Arc::new(RankedMutex::new(Rank::Transfers, queue));
        let mut readers = Vec::new();
        for _ in 0..depth.clamp(1, MOST_THREADS) {
            let (queue, report) = (Arc::clone(&queue), report.clone());
            let body = move || read_until_closed(&queue, &report);
            readers.push(std::thread::Builder::new().name("memobj-read".into()).spawn(body)?);
        }
        Ok(Self { reads: Some(reads), done, report, readers, watchers: Vec::new(), in_flight: 0 })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn start(&mut self, transfer: Transfer<T>) {
        self.in_flight += 1;
        if let Some(reads) = &self.reads {
            // It fails only when no reader is left, and readers end only after `reads` is closed.
            let _ = reads.send(transfer);
        }
    }

    pub(super) fn watch(&mut self, descriptor: ReadFile, key: u32, repeat: Repeat) -> io::Result<()> {
        let quit = Arc::new(EventFd::new()?);
        let first = if repeat == Repeat::Always { Gate::Open } else { Gate::Shut };
        let gate = Arc::new((RankedMutex::new(Rank::WatchGate, first), Condvar::new()));
        let report = self.report.clone();
        let (eventfd, own_gate) = (Arc::clone(&quit), Arc::clone(&gate));
        let body = move || watch_until_quit(&descriptor, key, &eventfd, &own_gate, &report);
        let thread = Some(std::thread::Builder::new().name("memobj-watch".into()).spawn(body)?);
        self.watchers.push(Watcher { thread, key, repeat, quit, gate });
        Ok(())
    }

    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        into: &mut Vec<Completion<T>>,
    ) -> io::Result<()> {
        self.open_gates();
        let first = match timeout {
            None => self.done.recv().ok(),
            Some(time) => self.done.recv_timeout(time).ok(),
        };
        for completion in first.into_iter().chain(self.done.try_iter()) {
            match &completion {
                Completion::Ended { .. } => self.in_flight -= 1,
                Completion::Ready(key) => self.shut_gate(*key),
            }
            into.push(completion);
        }
        Ok(())
    }

    /// Reports taken before this call were dealt with: their watchers may look again.
    fn open_gates(&self) {
        self.set_gates(Gate::Open, |watcher| watcher.repeat == Repeat::Always);
    }

    pub(super) fn look_again(&self, key: u32) {
        self.set_gates(Gate::Open, |watcher| watcher.key == key);
    }

    fn shut_gate(&self, key: u32) {
        self.set_gates(Gate::Shut, |watcher| watcher.key == key);
    }

    fn set_gates(&self, gate: Gate, which: impl Fn(&Watcher) -> bool) {
        for watcher in self.watchers.iter().filter(|watcher| which(watcher)) {
            *watcher.gate.0.lock() = gate;
            watcher.gate.1.notify_one();
        }
    }
}

fn read_until_closed<T>(queue: &RankedMutex<Receiver<Transfer<T>>>, report: &Sender<Completion<T>>) {
    stay_quiet();
    loop {
        let next = queue.lock().recv();
        let Ok(Transfer { direction, file, offset, mut target, len, token }) = next else { return };
        let go = || match direction {
            Direction::Read => read_full(&file, &mut target.as_mut_slice()[..len], offset),
            Direction::Write => write_full(&file, &target.as_mut_slice()[..len], offset),
        };
        // A transfer that is never reported would be waited for, for ever.
        let result = catch_unwind(AssertUnwindSafe(go)).unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        if report.send(Completion::Ended { target, token, result }).is_err() {
            return;
        }
    }
}

fn watch_until_quit<T>(
    descriptor: &ReadFile,
    key: u32,
    quit: &EventFd,
    gate: &(RankedMutex<Gate>, Condvar),
    report: &Sender<Completion<T>>,
) {
    stay_quiet();
    loop {
        let mut state = gate.0.lock();
        while *state == Gate::Shut {
            state = state.wait(&gate.1);
        }
        if *state == Gate::Closed {
            return;
        }
        drop(state);
        let mut polled = [
            PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(quit.as_fd(), PollFlags::IN),
        ];
        let answer = poll(&mut polled, None);
        if !polled[1].revents().is_empty() {
            return;
        }
        if answer.is_err() || polled[0].revents().is_empty() {
            continue;
        }
        let mut state = gate.0.lock();
        if *state == Gate::Closed {
            return;
        }
        *state = Gate::Shut;
        if report.send(Completion::Ready(key)).is_err() {
            return;
        }
    }
}

impl<T: Send + 'static> Drop for ThreadReads<T> {
    fn drop(&mut self) {
        self.reads = None;
        for watcher in &self.watchers {
            watcher.quit.notify();
        }
        self.set_gates(Gate::Closed, |_| true);
        let watchers = self.watchers.iter_mut().filter_map(|watcher| watcher.thread.take());
        for thread in watchers.chain(self.readers.drain(..)) {
            let _ = thread.join();
        }
    }
}
