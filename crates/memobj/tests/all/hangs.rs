//! Pagers that answer late or never: everybody else goes on, and dropping everything ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use memobj::pagers::{Bytes, Faulty, Inject, Injection};
use memobj::{Cache, ErrorKind, Event, MapOptions, Mapping};
use memobj_sim::fixture::{MIB, Reading, Way, check_sample, sample_pager, wait_until, ways, within};
use memobj_sim::time::{only_hangs, passing, passing_while, timeless};
use memobj_sim::{Calls, Counted, Gate, Gated};

const BAD: u64 = 2;
const PAGES: u64 = 6;
const SHORT: Duration = Duration::from_millis(50);

type Sample = Arc<Faulty<Bytes>>;

fn hanging(way: &Way, calls: &Calls) -> (Cache, Mapping, Sample) {
    let plan = vec![Injection::new(way.page(BAD), Inject::Hang)];
    let faulty = Arc::new(Faulty::new(sample_pager(PAGES * way.page), plan, 0));
    let (cache, mapping) = way.map(Counted::new(Arc::clone(&faulty), calls.clone()));
    (cache, mapping, faulty)
}

#[test]
fn a_pager_that_never_answers_is_a_timeout() {
    for mut way in ways().map(Way::timeless) {
        way.object.supply_timeout = Some(SHORT);
        for reading in Reading::ALL {
            let (cache, mapping, pager) = hanging(&way, &Calls::default());
            let (way, label) = (way.clone(), format!("{reading:?} {}", way.label));
            within(20, &label.clone(), move || {
                let read = || reading.read(&mapping, 0..PAGES * way.page).unwrap_err();
                let error = passing_while(&way.clock, || only_hangs(&cache, &pager), read);
                let page_error = error.page_error().unwrap();
                assert_eq!(page_error.kind(), ErrorKind::Timeout, "{label}");
                assert_eq!(page_error.range(), way.page(BAD), "{label}");
                for page in [BAD - 1, BAD + 1] {
                    let bytes = reading.read(&mapping, way.page(page)).unwrap();
                    check_sample(way.page(page), &bytes, &label);
                }
            });
        }
    }
}

#[test]
fn an_answer_after_the_timeout_is_thrown_away() {
    for mut way in ways().map(Way::timeless) {
        way.object.supply_timeout = Some(SHORT);
        for reading in Reading::ALL {
            let (calls, gate) = (Calls::default(), Gate::default());
            let late = Gated::new(sample_pager(PAGES * way.page), gate.clone(), 1);
            let (_cache, mapping) = way.map(Counted::new(late, calls.clone()));
            let read = || reading.read(&mapping, way.page(BAD)).unwrap_err();
            let error = passing_while(&way.clock, || calls.running() > 0, read);
            assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Timeout, "{}", way.label);
            // Once the page is resident with the right bytes, and once while it has failed still.
            if reading == Reading::Pin {
                assert_eq!(mapping.retry(way.page(BAD)).unwrap(), 1);
                check_sample(way.page(BAD), &mapping.pin(way.page(BAD)).unwrap(), &way.label);
            }
            gate.open();
            wait_until("the late answer is there", || calls.running() == 0);
            if reading != Reading::Pin {
                let error = reading.read(&mapping, way.page(BAD)).unwrap_err();
                assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Timeout, "{}", way.label);
                assert_eq!(mapping.retry(way.page(BAD)).unwrap(), 1);
            }
            check_sample(way.page(BAD), &reading.read(&mapping, way.page(BAD)).unwrap(), &way.label);
        }
    }
}

#[test]
fn dropping_everything_ends_a_pager_that_hangs() {
    // No time passes: what ends does not end because it was waited for long enough.
    for way in ways().map(Way::timeless) {
        let calls = Calls::default();
        let (cache, mapping, pager) = hanging(&way, &calls);
        drop(pager);
        mapping.prefetch(&[way.page(BAD)]).unwrap();
        wait_until("the pager hangs", || calls.running() > 0);
        within(20, &way.label, move || drop((mapping, cache)));
        assert_eq!((calls.detached(), calls.running()), (1, 0), "{}", way.label);
    }
}

#[test]
fn dropping_everything_leaves_a_pager_behind_that_ignores_its_end() {
    let way = ways().next().unwrap().timeless();
    let (calls, gate) = (Calls::default(), Gate::default());
    let stuck = Gated::new(sample_pager(way.page), gate.clone(), 1);
    let (cache, mapping) = way.map(Counted::new(stuck, calls.clone()));
    mapping.prefetch(&[way.page(0)]).unwrap();
    wait_until("the pager hangs", || calls.running() > 0);
    let events = cache.events();
    let clock = way.clock.clone();
    within(20, "drop", move || passing(&clock, || drop((mapping, cache))));
    let told = events.try_next();
    assert!(matches!(&told, Some(Event::PagerDidNotReturn { object }) if object == "sample"), "{told:?}");
    gate.open();
    wait_until("the pager has returned", || calls.running() == 0);
}

/// More is on its way than the budget holds, and what comes too late finds no mapping that would give room.
#[test]
fn dropping_a_mapping_while_much_is_on_its_way_ends() {
    for way in ways() {
        let length = 24 * MIB;
        let plan = vec![Injection::new(0..length, Inject::Delay(SHORT))];
        let calls = Calls::default();
        let pager = Counted::new(Faulty::new(sample_pager(length), plan, 0), calls.clone());
        let (cache, mapping) = way.map(pager);
        let reader = std::thread::spawn({
            let mapping = mapping.clone();
            move || mapping.populate(0..2 * MIB)
        });
        mapping.prefetch(std::slice::from_ref(&(2 * MIB..length))).unwrap();
        wait_until("many calls run", || calls.most() >= 4);
        within(20, "the reader", move || reader.join().unwrap().unwrap());
        within(20, &way.label, move || drop((mapping, cache)));
        assert_eq!(calls.running(), 0, "{}", way.label);
    }
}

/// A reader waits for a page that nobody will supply; the other handles go away meanwhile.
#[test]
fn a_waiting_reader_keeps_what_it_needs() {
    for way in ways() {
        let (calls, gate) = (Calls::default(), Gate::default());
        let slow = memobj_sim::Gated::new(sample_pager(PAGES * way.page), gate.clone(), 1);
        let (cache, mapping) = way.map(Counted::new(slow, calls.clone()));
        let page = way.page(BAD);
        let reader = std::thread::spawn(move || Reading::Touch.read(&mapping, page).unwrap());
        wait_until("the pager is asked", || calls.running() > 0);
        drop(cache);
        gate.open();
        let bytes = within(20, "the reader", move || reader.join().unwrap());
        // The gate answers with bytes of its own, in time: they are the object's, then.
        assert!(bytes.iter().all(|byte| *byte == 0xbd), "{}", way.label);
    }
}

/// Many more calls hang than threads may: the later ones time out as well, and other objects are served.
#[test]
fn a_pager_that_hangs_everywhere_exhausts_nothing() {
    let way = ways().next().unwrap();
    let length = 400 * way.page;
    let plan = vec![Injection::new(0..length, Inject::Hang)];
    let (cache, clock) = timeless(4 * MIB);
    let options = way.object.clone().supply_timeout(SHORT);
    let object = cache.object("stuck", Faulty::new(sample_pager(length), plan, 0), options.clone()).unwrap();
    let stuck = object.map(0..length, way.map).unwrap();
    let page = way.page;
    let hands = clock.clone();
    let stuck = within(30, "the last page of an object that hangs", move || {
        assert!(passing(&hands, || stuck.populate(0..length)).is_err());
        let error = passing(&hands, || stuck.pin(length - page..length).unwrap_err());
        assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Timeout);
        stuck
    });
    let plan = vec![Injection::new(0..1, Inject::Delay(SHORT / 10))];
    let other = Faulty::new(Bytes::new(vec![7; 8192]), plan, 0);
    let options = options.supply_timeout(Duration::from_secs(10));
    let other = cache.object("other", other, options).unwrap();
    within(30, "another object", move || {
        let mapping = other.map(0..8192, MapOptions::default()).unwrap();
        assert_eq!(mapping.pin(0..8192).unwrap()[..], [7; 8192]);
    });
    within(30, "the drop", move || drop((stuck, object, cache)));
}

/// Frames that are read ahead but not in place must make room for pins that may hold all the rest.
#[test]
fn frames_kept_ready_do_not_starve_pins() {
    let sample = memobj_sim::fixture::Sample::new(24 * MIB);
    let long = memobj_sim::fixture::Sample::new(24 * MIB);
    let way = ways().find(|way| way.page > 4096).unwrap();
    let cache = memobj_sim::fixture::cache(way.budget);
    // Kept open: what they read ahead stays theirs.
    let readers: Vec<Mapping> = (0..4)
        .map(|_| {
            let object = cache.open_file(long.path(), way.object.clone()).unwrap();
            let mapping = object.map(0..object.len(), way.map).unwrap();
            mapping.advise(0..object.len(), memobj::Advice::Sequential).unwrap();
            mapping.touch_at(0, &mut [0]).unwrap();
            mapping
        })
        .collect();
    let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
    let mapping = object.map(0..object.len(), way.map).unwrap();
    let pins = within(30, "pins of seven eighths of the budget", move || {
        let whole = mapping.pin(0..24 * MIB).unwrap();
        let more: Vec<_> = readers.iter().take(2).map(|reader| reader.pin(0..1).unwrap()).collect();
        check_sample(0..24 * MIB, &whole, "pinned");
        (whole, more)
    });
    assert_eq!(cache.metrics().pinned_bytes, 28 * MIB);
    drop(pins);
}

/// Says that it answers later, and hangs in its calls all the same.
#[derive(Debug)]
struct HangsInCall {
    gate: Gate,
    length: u64,
}

impl memobj::pagers::Pager for HangsInCall {
    fn describe(&self) -> memobj::pagers::Description {
        memobj::pagers::Description::new(self.length)
    }

    fn supply(&self, request: memobj::pagers::SupplyRequest) {
        self.gate.pass();
        drop(request);
    }
}

fn times_out(mapping: &Mapping, page: u64, what: &str) {
    let mapping = mapping.clone();
    let error = within(20, what, move || mapping.pin(page * 4096..(page + 1) * 4096).unwrap_err());
    assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Timeout, "{what}");
}

#[test]
fn the_second_page_of_a_pager_that_hangs_in_its_call_times_out() {
    let cache = memobj_sim::fixture::cache(4 * MIB);
    let gate = Gate::default();
    let options = memobj::ObjectOptions::new().supply_timeout(SHORT);
    let object = cache.object("hangs", HangsInCall { gate: gate.clone(), length: MIB }, options).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap();
    times_out(&mapping, 0, "the first page");
    times_out(&mapping, 100, "the second page");
    gate.open();
}

/// Two objects whose pagers block and hang: every wait for every page of both ends.
#[test]
fn pages_of_two_objects_that_hang_time_out() {
    let cache = memobj_sim::fixture::cache(4 * MIB);
    let mapped = |name: &str| {
        let plan = vec![Injection::new(0..MIB, Inject::Hang)];
        let options = memobj::ObjectOptions::new().supply_timeout(SHORT);
        let object = cache.object(name, Faulty::new(sample_pager(MIB), plan, 0), options).unwrap();
        object.map(.., MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap()
    };
    let mappings = [mapped("one"), mapped("two")];
    for page in 0..20 {
        for (at, mapping) in mappings.iter().enumerate() {
            times_out(mapping, page * 8, &format!("page {page} of object {at}"));
        }
    }
}

/// One object that hangs, mapped again and again, leaves others alone.
#[test]
fn an_object_that_hangs_and_is_mapped_again_exhausts_nothing() {
    let cache = Cache::new(memobj::CacheOptions::new().budget_bytes(4 * MIB).workers(4)).unwrap();
    let short = Duration::from_millis(5);
    let gate = Gate::default();
    let pager = memobj_sim::Gated::new(sample_pager(MIB), gate.clone(), 10_000);
    let object = cache.object("hangs", pager, memobj::ObjectOptions::new().supply_timeout(short)).unwrap();
    for _ in 0..100 {
        let mapping = object.map(.., MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap();
        times_out(&mapping, 0, "a page of the object that hangs");
    }
    let plan = vec![Injection::new(0..1, Inject::Delay(SHORT / 10))];
    let other = Faulty::new(Bytes::new(vec![7; 8192]), plan, 0);
    let options = memobj::ObjectOptions::new().supply_timeout(None);
    let other = cache.object("other", other, options).unwrap();
    let result = within(30, "another object", move || {
        let mapping = other.map(0..8192, MapOptions::default()).unwrap();
        mapping.pin(0..8192).map(|bytes| bytes[0])
    });
    gate.open();
    assert_eq!(result.unwrap(), 7);
}

/// Who waits until less is queued goes on when the object whose requests these are is closed.
#[test]
fn who_waits_for_room_goes_on_when_what_is_queued_is_forgotten() {
    let cache = memobj_sim::fixture::cache(64 * MIB);
    let full = memobj_sim::Kept::new(memobj::pagers::Description::new(16 * MIB).depth(1));
    let object = cache.object("full", full.clone(), memobj::ObjectOptions::new()).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap();
    let ranges: Vec<_> = (0..1000).map(|at| at * 8192..at * 8192 + 4096).collect();
    mapping.prefetch(&ranges).unwrap();
    wait_until("much is queued", || cache.pager_calls().waited_for >= 257);
    let kept = full.supplies(1);
    let other =
        Faulty::new(Bytes::new(vec![7; 8192]), vec![Injection::new(0..1, Inject::Delay(SHORT / 10))], 0);
    let other = cache.object("other", other, memobj::ObjectOptions::new()).unwrap();
    let other = other.map(.., MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap();
    let (sender, done) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let byte = other.pin(0..4096).map(|bytes| bytes[0]);
        sender.send(()).unwrap();
        byte
    });
    assert!(done.recv_timeout(Duration::from_millis(500)).is_err(), "it does not wait for room: no test");
    drop((mapping, object));
    let in_time = done.recv_timeout(Duration::from_secs(10)).is_ok();
    drop(kept);
    assert_eq!(reader.join().unwrap().unwrap(), 7);
    assert!(in_time, "it waited until the closed object's pager had answered");
}

/// Takes writes, and hangs in its calls.
#[derive(Debug)]
struct HangsInWrite {
    gate: Gate,
    lengths: Arc<std::sync::atomic::AtomicU64>,
    _token: Arc<()>,
}

impl memobj::pagers::Pager for HangsInWrite {
    fn describe(&self) -> memobj::pagers::Description {
        memobj::pagers::Description::new(MIB).writable()
    }

    fn supply(&self, mut request: memobj::pagers::SupplyRequest) {
        let range = request.range();
        request.fill(range.start, &vec![1; (range.end - range.start) as usize]).unwrap();
        request.done();
    }

    fn write_back(&self, request: memobj::pagers::WriteRequest) {
        self.gate.pass();
        request.done();
    }

    fn set_length(&self, request: memobj::pagers::LengthRequest) {
        self.lengths.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        request.done();
    }
}

fn writable() -> memobj::ObjectOptions {
    memobj::ObjectOptions::new().writing(memobj::Writing::InPlace).supply_timeout(SHORT)
}

/// What is queued for a pager when its cache ends keeps nothing for ever.
#[test]
fn what_is_queued_at_the_end_is_dropped() {
    let (gate, token) = (Gate::default(), Arc::new(()));
    let weak = Arc::downgrade(&token);
    let cache = memobj_sim::fixture::cache(4 * MIB);
    let pager = HangsInWrite { gate: gate.clone(), lengths: Arc::default(), _token: token };
    let object = cache.object("hangs", pager, writable()).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap();
    mapping.write_at(0, &vec![2; MIB as usize / 2]).unwrap();
    within(30, "the drop", move || drop((mapping, object, cache)));
    gate.open();
    wait_until("the pager is dropped", || weak.upgrade().is_none());
}

/// A change of the length that has failed for want of time is not made later.
#[test]
fn a_length_that_failed_is_not_set_later() {
    let (gate, lengths) = (Gate::default(), Arc::<std::sync::atomic::AtomicU64>::default());
    let cache = memobj_sim::fixture::cache(4 * MIB);
    let pager = HangsInWrite { gate: gate.clone(), lengths: Arc::clone(&lengths), _token: Arc::default() };
    let object = cache.object("hangs", pager, writable()).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap();
    mapping.write_at(0, &[2; 4096]).unwrap();
    assert!(mapping.sync(..).is_err());
    let error = object.set_len(MIB / 2).unwrap_err();
    assert_eq!((error.kind(), object.len()), (ErrorKind::Timeout, MIB));
    gate.open();
    // It is asked after all that was queued before.
    wait_until("the pager answers again", || mapping.sync(..).is_ok());
    assert_eq!(lengths.load(std::sync::atomic::Ordering::SeqCst), 0, "the pager's length has changed");
    object.set_len(MIB / 2).unwrap();
    assert_eq!(lengths.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// Notes the lengths that it is asked for, and keeps the requests until it is to answer.
#[derive(Debug, Default)]
struct LateLength {
    lengths: Vec<u64>,
    kept: Vec<memobj::pagers::LengthRequest>,
    answers: bool,
}

#[derive(Clone, Debug, Default)]
struct Late(Arc<Mutex<LateLength>>);

impl memobj::pagers::Pager for Late {
    fn describe(&self) -> memobj::pagers::Description {
        memobj::pagers::Description::new(MIB).writable()
    }

    fn supply(&self, request: memobj::pagers::SupplyRequest) {
        drop(request);
    }

    fn set_length(&self, request: memobj::pagers::LengthRequest) {
        let mut late = self.0.lock().unwrap();
        late.lengths.push(request.length());
        match late.answers {
            true => request.done(),
            false => late.kept.push(request),
        }
    }
}

/// A pager that was called to cut off and does not answer can do so at any time: nobody may see what is behind that end, and
/// it is told once more before anything is built on it.
#[test]
fn an_object_whose_pager_may_cut_it_off_later_is_cut_off() {
    for is_mapped in [true, false] {
        let late = Late::default();
        let cache = memobj_sim::fixture::cache(4 * MIB);
        let object = cache.object("late", late.clone(), writable()).unwrap();
        let options = MapOptions::new().delivery(memobj::Delivery::PinOnly);
        let mapping = is_mapped.then(|| object.map(0..object.len(), options).unwrap());
        let error = object.set_len(MIB / 2).unwrap_err();
        assert_eq!((error.kind(), object.len()), (ErrorKind::Timeout, MIB / 2), "mapped: {is_mapped}");
        assert!(error.to_string().contains("the object ends there now"), "{error}");
        assert!(mapping.iter().all(|mapping| mapping.pin(MIB / 2..MIB / 2 + 1).is_err()));
        for (what, result) in [("another length", object.set_len(MIB)), ("a sync", object.sync())] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Timeout, "{what}, mapped: {is_mapped}");
        }
        assert_eq!((object.len(), &late.0.lock().unwrap().lengths[..]), (MIB / 2, &[MIB / 2][..]));
        let kept = {
            let mut late = late.0.lock().unwrap();
            late.answers = true;
            std::mem::take(&mut late.kept)
        };
        // It did not do it, after all.
        kept.into_iter().for_each(|request| request.fail(memobj::SupplyError::new(ErrorKind::Io)));
        object.set_len(MIB).unwrap();
        object.sync().unwrap();
        assert_eq!(late.0.lock().unwrap().lengths, [MIB / 2, MIB / 2, MIB], "it was told again");
    }
}

/// A page that is wanted while the pager hangs in a write times out.
#[test]
fn a_page_behind_a_write_that_hangs_in_its_call_times_out() {
    let gate = Gate::default();
    let cache = memobj_sim::fixture::cache(4 * MIB);
    let pager = HangsInWrite { gate: gate.clone(), lengths: Arc::default(), _token: Arc::default() };
    let object = cache.object("hangs", pager, writable()).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap();
    mapping.write_at(0, &[2; 4096]).unwrap();
    assert!(mapping.sync(..).is_err());
    times_out(&mapping, 100, "a page behind the write");
    gate.open();
}
