//! What a cache measures its own time by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often threads that wait for a manual clock look at it.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The clock of a cache: time-outs of calls, pauses between tries, the limits of [`FailurePolicy`] are measured by it.
///
/// The default is the system's monotonic clock. A [manual](Self::manual) one is for tests: its time passes only when
/// it is told, so that how fast the machine is changes nothing. Clones are the same clock. Waits for other processes
/// (the lock of a file, a guest that attaches) are measured by the system's clock whatever the cache has.
///
/// [`FailurePolicy`]: crate::FailurePolicy
#[derive(Clone, Debug, Default)]
pub struct EngineClock(Option<Arc<Manual>>);

#[derive(Debug)]
struct Manual {
    start: Instant,
    passed_ns: AtomicU64,
}

impl EngineClock {
    /// The system's monotonic clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still but for [`advance`](Self::advance).
    pub fn manual() -> Self {
        Self(Some(Arc::new(Manual { start: Instant::now(), passed_ns: AtomicU64::new(0) })))
    }

    /// Lets time pass on a manual clock. Threads whose wait has ended by it notice within milliseconds.
    ///
    /// # Panics
    ///
    /// If this is the system's clock.
    pub fn advance(&self, by: Duration) {
        let manual = self.0.as_ref().expect("the system's clock cannot be advanced");
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        manual.passed_ns.fetch_add(by_ns, Ordering::AcqRel);
    }

    /// The time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.start + Duration::from_nanos(manual.passed_ns.load(Ordering::Acquire)),
        }
    }

    /// The end of a wait that begins now and takes `limit` at most.
    pub(crate) fn deadline(&self, limit: Duration) -> Deadline<'_> {
        Deadline { clock: self, at: self.now().checked_add(limit) }
    }

    /// How long to sleep, by the system's clock, before `left` of this clock's time may have passed.
    pub(crate) fn nap(&self, left: Duration) -> Duration {
        match &self.0 {
            None => left,
            Some(_) => LOOK_AGAIN.min(left),
        }
    }

    /// Waits for what `receiver` gets, until this clock's time is `until`.
    pub(crate) fn receive<T>(&self, receiver: &Receiver<T>, until: Instant) -> Result<T, RecvTimeoutError> {
        loop {
            let left = until.saturating_duration_since(self.now());
            match receiver.recv_timeout(self.nap(left)) {
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                ended => return ended,
            }
        }
    }
}

/// When a wait ends, by a clock; `None` is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline<'a> {
    clock: &'a EngineClock,
    at: Option<Instant>,
}

impl Deadline<'_> {
    pub(crate) fn is_over(self) -> bool {
        self.at.is_some_and(|at| self.clock.now() >= at)
    }
}

/// Whether both are the same clock.
impl PartialEq for EngineClock {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for EngineClock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_until_it_is_advanced() {
        let clock = EngineClock::manual();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (start, hour) = (clock.now(), Duration::from_secs(3600));
        let other = clock.clone();
        let waiting = std::thread::spawn(move || other.receive(&receiver, start + hour));
        assert_eq!(clock.now(), start);
        clock.advance(hour);
        assert_eq!(waiting.join().unwrap(), Err(RecvTimeoutError::Timeout));
        assert_eq!(clock.now(), start + hour);
        drop(sender);
        assert!(clock == clock.clone() && clock != EngineClock::manual() && clock != EngineClock::system());
    }
}
