//! Threads that panic: nobody waits for them, and it is told.

use std::ops::Range;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::pagers::{Blocking, BlockingPager, Bytes, Faulty, Inject, Injection, Pager};
use crate::{
    AccessError, Cache, CacheOptions, Delivery, ErrorKind, Event, MapOptions, Mapping, ObjectOptions,
    SupplyError, Writing, driver, workers, write,
};

const LIMIT: Duration = Duration::from_secs(20);
const LENGTH: u64 = 16 << 20;

/// Has to be called, and takes writes.
struct Called;

impl BlockingPager for Called {
    fn length(&self) -> u64 {
        LENGTH
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        buffer.fill((range.start >> 12) as u8 | 1);
        Ok(buffer.len())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn write_back(&self, _: Range<u64>, _: &[u8]) -> Result<(), SupplyError> {
        Ok(())
    }
}

fn small_cache() -> Cache {
    Cache::new(CacheOptions::new().budget_bytes(1 << 20)).unwrap()
}

fn map(cache: &Cache, pager: impl Pager + 'static, options: ObjectOptions, delivery: Delivery) -> Mapping {
    let object = cache.object("called", pager, options).unwrap();
    object.map(0..object.len(), MapOptions::new().delivery(delivery)).unwrap()
}

fn arm(cache: &Cache, thread: &'static str) {
    *cache.inner.shared.health.panics.lock().unwrap() = Some(thread);
}

fn within<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{what}: not done after {LIMIT:?}"))
}

fn kind(error: &AccessError) -> ErrorKind {
    match error {
        AccessError::Page(error) => error.kind(),
        AccessError::Write(error) => error.kind(),
        other => panic!("{other}"),
    }
}

fn told(cache: &Cache) -> &'static str {
    let events = cache.events();
    loop {
        if let Event::ThreadEnded { thread } = events.next_within(LIMIT).expect("an event") {
            return thread;
        }
    }
}

fn has_userfaultfd() -> bool {
    let has = memobj_linux::uffd::probe().is_ok();
    if !has {
        println!("skipped: no userfaultfd");
    }
    has
}

fn touch(mapping: &Mapping, offset: u64) -> Result<(), AccessError> {
    let mapping = mapping.clone();
    within("a fault", move || mapping.touch_at(offset, &mut [0]))
}

#[test]
fn faults_fail_when_the_thread_that_resolves_them_panics() {
    if !has_userfaultfd() {
        return;
    }
    let both = [(Delivery::InThread, driver::THREAD), (Delivery::ReaderThread, driver::LANE)];
    for (delivery, thread) in both {
        let cache = small_cache();
        let mapping = map(&cache, Blocking(Called), ObjectOptions::default(), delivery);
        let resident = mapping.pin(0..1).unwrap();
        // Without lanes the driver reads the events.
        let thread = if cache.inner.lanes.exist() { thread } else { driver::THREAD };
        arm(&cache, thread);
        // Another lane can have resolved the fault before the panic was told.
        if let Err(error) = touch(&mapping, 1 << 20) {
            assert_eq!(kind(&error), ErrorKind::Detached, "{delivery:?}");
        }
        assert_eq!(told(&cache), thread);
        let later = [touch(&mapping, 2 << 20), mapping.read_at(3 << 20, &mut [0])];
        for error in later.map(Result::unwrap_err) {
            assert_eq!(kind(&error), ErrorKind::Detached, "{delivery:?}");
        }
        assert_eq!(resident[..], [1]);
        within("the end", move || drop((resident, mapping, cache)));
    }
}

/// A panic in the event loop, while a fault of a guest is resolved: all of its mapping traps, and it is told.
#[test]
fn guests_are_dismissed_when_the_event_loop_panics() {
    if !has_userfaultfd() {
        return;
    }
    use crate::{AdmitOptions, FrameVisibility, GuestEnd, RemoteMapping};
    let cache = small_cache();
    let options = ObjectOptions::new().writing(Writing::InPlace).visibility(FrameVisibility::Shared);
    let object = cache.object("called", Blocking(Called), options).unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let attaching = std::thread::spawn(move || RemoteMapping::attach(theirs, LIMIT).unwrap());
    let guest = object.admit(ours, AdmitOptions::default()).unwrap();
    let remote = attaching.join().unwrap();
    remote.read_at(0, &mut [0]).unwrap();
    arm(&cache, memobj_linux::fault_loop::THREAD);
    let remote = within("a fault", move || {
        remote.read_at(1 << 20, &mut [0]).unwrap_err();
        remote
    });
    assert_eq!(guest.wait(LIMIT), Some(GuestEnd::Broken));
    assert_eq!(told(&cache), memobj_linux::fault_loop::THREAD);
    within("the end", move || drop((remote, guest, object, cache)));
}

#[test]
fn calls_fail_when_the_clock_panics() {
    let cache = small_cache();
    let plan = vec![Injection::new(0..4096, Inject::Hang)];
    let hanging = Faulty::new(Bytes::new(vec![7; 8192]), plan, 0);
    let options = ObjectOptions::new().supply_timeout(Duration::from_millis(20));
    let mapping = map(&cache, hanging, options, Delivery::PinOnly);
    arm(&cache, workers::CLOCK);
    let pinned = mapping.clone();
    let error = within("a call that hangs", move || pinned.pin(0..1).unwrap_err());
    assert_eq!(kind(&error), ErrorKind::Detached);
    assert_eq!(told(&cache), workers::CLOCK);
    let error = mapping.pin(4096..4097).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Detached);
    within("the end", move || drop((mapping, cache)));
}

#[test]
fn stores_fail_when_the_cleaner_panics_and_nothing_is_lost() {
    let cache = small_cache();
    let options = ObjectOptions::new().writing(Writing::InPlace);
    let mapping = map(&cache, Blocking(Called), options, Delivery::PinOnly);
    arm(&cache, write::CLEANER);
    let written = mapping.clone();
    let (error, at) = within("a store for which there is no room", move || {
        let mut pages = (0..LENGTH).step_by(4096);
        let refused = |at| written.write_at(at, &[9; 4096]).err().map(|error| (error, at));
        pages.find_map(refused).expect("more than the budget is never Dirty")
    });
    assert_eq!(kind(&error), ErrorKind::Detached);
    assert_eq!(told(&cache), write::CLEANER);
    assert_eq!(mapping.pin(at - 4096..at).unwrap()[..], [9; 4096]);
    mapping.sync(0..mapping.len()).unwrap();
    within("the end", move || drop((mapping, cache)));
}
