//! Pagers that answer late or never: everybody else goes on, and dropping everything ends.

use std::sync::Arc;
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
