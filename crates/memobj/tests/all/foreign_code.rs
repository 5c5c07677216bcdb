//! Code of users that blocks or panics where it can: whoever else uses the cache goes on.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use memobj::pagers::{Blocking, BlockingPager, Bytes, Description, Pager, PagerReports, SupplyRequest};
use memobj::{Cache, CacheOptions, Delivery, Event, FailurePolicy, MapOptions, ObjectOptions, SupplyError};
use memobj_sim::fixture::{check_sample, sample_bytes, sample_pager, wait_until, ways, within};
use memobj_sim::time::timeless;
use memobj_sim::{Calls, Counted, Gate, Gated};

/// Notes who asks what it is.
struct Counting {
    inner: Bytes,
    askers: Arc<Mutex<Vec<ThreadId>>>,
}

impl Pager for Counting {
    fn describe(&self) -> Description {
        let mut askers = self.askers.lock().unwrap();
        askers.push(std::thread::current().id());
        self.inner.describe()
    }

    fn supply(&self, request: SupplyRequest) {
        Pager::supply(&self.inner, request);
    }
}

/// A `describe` that blocks or panics would end or stop a thread of the engine if one asked.
#[test]
fn a_pager_describes_itself_once_to_who_makes_the_object() {
    for way in ways() {
        let askers: Arc<Mutex<Vec<ThreadId>>> = Arc::default();
        let pager = Counting { inner: sample_pager(64 * way.page.min(4096)), askers: Arc::clone(&askers) };
        let (_cache, mapping) = way.map(pager);
        let mut buffer = vec![0; mapping.len() as usize];
        mapping.touch_at(0, &mut buffer).unwrap();
        check_sample(0..mapping.len(), &buffer, &way.label);
        mapping.advise(0..mapping.len(), memobj::Advice::DontNeed).unwrap();
        let all = 0..mapping.len();
        mapping.prefetch(std::slice::from_ref(&all)).unwrap();
        check_sample(0..mapping.len(), &mapping.pin(0..mapping.len()).unwrap(), &way.label);
        assert_eq!(*askers.lock().unwrap(), [std::thread::current().id()], "{}", way.label);
    }
}

/// Reports a silence when it is attached, and asks for a pause when it fails for the first time.
struct Reporting {
    inner: Bytes,
    pauses: Mutex<Option<Duration>>,
}

impl Pager for Reporting {
    fn describe(&self) -> Description {
        // As a server: with no bytes that the engine has already.
        Description::new(BlockingPager::length(&self.inner))
    }

    fn attach(&self, reports: PagerReports) {
        assert_eq!(reports.object(), "told");
        reports.server_silent("host:564", Duration::from_secs(3), "connection refused");
        reports.server_answers("host:564", Duration::from_secs(4));
        reports.copy_damaged(0..4096, "block");
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("network_read_bytes", 7)]
    }

    fn supply(&self, request: SupplyRequest) {
        match self.pauses.lock().unwrap().take() {
            Some(pause) => request.fail(SupplyError::new(memobj::ErrorKind::Io).retry_after(pause)),
            None => Pager::supply(&self.inner, request),
        }
    }
}

#[test]
fn what_a_pager_reports_is_an_event_and_what_it_counts_is_the_objects() {
    let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20)).unwrap();
    let pager = Reporting { inner: sample_pager(4096), pauses: Mutex::default() };
    let object = cache.object("told", pager, ObjectOptions::default()).unwrap();
    assert_eq!(object.pager_counters(), [("network_read_bytes", 7)]);
    let events: Vec<_> = std::iter::from_fn(|| cache.events().try_next()).collect();
    let [
        Event::ServerSilent { server, .. },
        Event::ServerAnswers { silence, .. },
        Event::CopyDamaged { bytes, .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((server.as_str(), *silence, bytes), ("host:564", Duration::from_secs(4), &(0..4096)));
}

/// A server that says when to come again is not asked before, however short the engine's own pause is.
#[test]
fn a_retry_waits_as_long_as_the_server_asks_for() {
    let (cache, clock) = timeless(1 << 20);
    let pause = Duration::from_secs(30);
    let pager = Reporting { inner: sample_pager(4096), pauses: Mutex::new(Some(pause)) };
    let options = ObjectOptions::new().policy(FailurePolicy::WaitForEver);
    let object = cache.object("told", pager, options).unwrap();
    let mapping = object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| mapping.pin(..).map(|pinned| (pinned.len(), clock.now())));
        let start = clock.now();
        wait_until("the pager fails", || cache.metrics().retries == 1);
        clock.advance(pause - Duration::from_millis(1));
        clock.advance(Duration::from_millis(1));
        let (len, at) = pinned.join().unwrap().unwrap();
        assert_eq!(len, 4096);
        assert!(at >= start + pause, "asked again after {:?}", at - start);
    });
}

/// Its drop waits for a gate.
struct Reluctant<P> {
    inner: P,
    calls: Calls,
    gate: Gate,
}

impl<P: BlockingPager> BlockingPager for Reluctant<P> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        self.inner.supply(range, buffer)
    }
}

impl<P> Drop for Reluctant<P> {
    fn drop(&mut self) {
        let dropping = Gated::new(Bytes::new(vec![0; 4096]), self.gate.clone(), 1);
        let dropping = Counted::new(dropping, self.calls.clone());
        let _ = BlockingPager::supply(&dropping, 0..4096, &mut [0; 4096]);
    }
}

/// The only worker is the last to know a pager, whose drop blocks.
#[test]
fn a_pager_whose_drop_blocks_stops_nobody() {
    let cache = Cache::new(CacheOptions::new().workers(1)).unwrap();
    let (calls, answer) = (Calls::default(), Gate::default());
    let (drops, release) = (Calls::default(), Gate::default());
    let slow = Counted::new(Gated::new(sample_pager(4096), answer.clone(), 1), calls.clone());
    let pager = Reluctant { inner: slow, calls: drops.clone(), gate: release.clone() };
    let object = cache.object("reluctant", Blocking(pager), ObjectOptions::default()).unwrap();
    let pins = MapOptions::new().delivery(Delivery::PinOnly);
    let mapping = object.map(0..4096, pins).unwrap();
    let range = 0..4096;
    mapping.prefetch(std::slice::from_ref(&range)).unwrap();
    wait_until("the worker is in the pager", || calls.running() == 1);
    drop((mapping, object));
    answer.open();
    wait_until("the pager is being dropped", || drops.running() == 1);

    let plain = Counted::new(Bytes::new(sample_bytes(8192)), Calls::default());
    let other = cache.object("other", plain, ObjectOptions::default()).unwrap();
    within(20, "another object", move || {
        let mapping = other.map(0..8192, pins).unwrap();
        check_sample(0..8192, &mapping.pin(0..8192).unwrap(), "other");
    });
    release.open();
    wait_until("it is dropped", || drops.running() == 0);
    within(20, "the end of the cache", move || drop(cache));
}
