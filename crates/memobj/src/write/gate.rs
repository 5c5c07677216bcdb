//! The gate that every first store to a page goes through, so that a commit can close it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use memobj_linux::fault_loop::Listeners;
use memobj_linux::futex;

/// Open, with some stores inside; or closed, with none.
///
/// Two flags, each written before the other is read (Dekker): a store that finds the gate open is seen by whoever
/// closes it, who waits until it is out.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: AtomicU32,
    inside: AtomicU32,
    /// Hear that it is opened.
    pub(super) listeners: Listeners,
}

/// A store on its way through.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Gate);

/// The gate is closed while this lives.
#[derive(Debug)]
pub(crate) struct Closed<'a>(&'a Gate);

impl Gate {
    /// Goes in, or finds the gate closed. Never blocks; safe in a signal handler.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(self);
        (self.closed.load(Ordering::SeqCst) == 0).then_some(inside)
    }

    /// Sleeps while the gate is closed, at most `limit`. Safe in a signal handler.
    pub(crate) fn wait(&self, limit: Duration) {
        futex::wait(&self.closed, 1, Some(limit));
    }

    /// Whether it is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst) != 0
    }

    /// Closes the gate and waits until nobody is inside, one at a time. Mostly that lasts for system calls that do not
    /// block; but a thread inside can wait for a frame, or fault and find the gate closed to itself. So after `limit`
    /// the gate is open again, and it is to be tried later.
    pub(crate) fn close(&self, limit: Duration) -> Option<Closed<'_>> {
        self.closed.store(1, Ordering::SeqCst);
        let closed = Closed(self);
        let until = Instant::now() + limit;
        while self.inside.load(Ordering::SeqCst) != 0 {
            if Instant::now() >= until {
                return None;
            }
            std::thread::yield_now();
        }
        Some(closed)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.closed.store(0, Ordering::SeqCst);
        futex::wake_all(&self.0.closed);
        self.0.listeners.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn nobody_is_inside_while_it_is_closed() {
        let gate = Gate::default();
        let (inside, rounds) = (AtomicU64::new(0), 20_000);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let Some(_inside) = gate.enter() else {
                            gate.wait(Duration::from_millis(1));
                            continue;
                        };
                        inside.fetch_add(1, Ordering::Relaxed);
                        inside.fetch_sub(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..200 {
                let Some(closed) = gate.close(Duration::from_secs(10)) else {
                    panic!("somebody stays inside")
                };
                assert_eq!(inside.load(Ordering::Relaxed), 0);
                assert!(gate.enter().is_none());
                drop(closed);
                std::thread::yield_now();
            }
        });
        assert!(gate.enter().is_some());
    }

    #[test]
    fn it_opens_again_if_somebody_stays_inside() {
        let gate = Gate::default();
        let inside = gate.enter();
        assert!(gate.close(Duration::from_millis(5)).is_none());
        assert!(gate.enter().is_some());
        drop(inside);
        assert!(gate.close(Duration::from_millis(5)).is_some());
    }
}
