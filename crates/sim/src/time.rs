//! Time that tests own: how fast the machine is decides nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memobj::pagers::Faulty;
use memobj::{Cache, CacheOptions, EngineClock, Event};

/// How much time passes at once.
const STEP: Duration = Duration::from_millis(50);

/// A cache with this budget, for which time passes only when the clock is advanced.
pub fn timeless(budget_bytes: u64) -> (Cache, EngineClock) {
    let clock = EngineClock::manual();
    let options = CacheOptions::new().budget_bytes(budget_bytes).clock(clock.clone());
    (Cache::new(options).unwrap(), clock)
}

/// Runs `work` while time passes by `clock`, without an end. For what only a time-out or a pause can let go on.
pub fn passing<R>(clock: &EngineClock, work: impl FnOnce() -> R) -> R {
    passing_while(clock, || true, work)
}

/// Runs `work`; time passes by `clock` only at moments at which `may_pass` holds.
pub fn passing_while<R>(
    clock: &EngineClock,
    may_pass: impl Fn() -> bool + Sync,
    work: impl FnOnce() -> R,
) -> R {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                if may_pass() {
                    clock.advance(STEP);
                }
                // waits: looks a thousand times a second; what it waits for has no event.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        work()
    })
}

/// Runs `work`, which makes calls of pagers that fail: whenever one is to be made again, `pause` of the number of tries so
/// far passes, and no more. Also returns the events of `cache` until then.
pub fn retrying<R>(
    (cache, clock): (&Cache, &EngineClock),
    pause: impl Fn(u32) -> Duration + Sync,
    work: impl FnOnce() -> R,
) -> (R, Vec<Event>) {
    let (seen, events) = (Mutex::new(Vec::new()), cache.events());
    let look = || {
        while let Some(event) = events.try_next() {
            if let Event::Retrying(error) = &event {
                clock.advance(pause(error.tries()));
            }
            seen.lock().unwrap().push(event);
        }
        false
    };
    let result = passing_while(clock, look, work);
    look();
    (result, seen.into_inner().unwrap())
}

/// Whether somebody waits for `pager`, and every call of a pager that `cache` has under way is one that hangs in it: so
/// that a time-out meets no other.
pub fn only_hangs<P: memobj::pagers::BlockingPager>(cache: &Cache, pager: &Faulty<P>) -> bool {
    let calls = cache.pager_calls();
    calls.waited_for > 0 && calls.waited_for + calls.given_up == pager.hanging()
}

/// Set when the work has ended, if by a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
