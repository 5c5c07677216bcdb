//! Code of users that blocks or panics where it can: whoever else uses the cache goes on.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use memobj::pagers::{Blocking, BlockingPager, Bytes, Description, Pager, SupplyRequest};
use memobj::{Cache, CacheOptions, Delivery, MapOptions, ObjectOptions, SupplyError};
use memobj_sim::fixture::{check_sample, sample_bytes, sample_pager, wait_until, ways, within};
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
