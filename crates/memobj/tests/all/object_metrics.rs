//! What is counted of one object.

use std::time::Duration;

use memobj::pagers::{Faulty, Inject, Injection, Zero};
use memobj::{Delivery, MapOptions, ObjectOptions, Writing};
use memobj_sim::fixture::{MIB, Sample, cache, wait_until};
use memobj_sim::time::timeless;
use memobj_sim::writable_fixture::{mapped, writable};

const PAGE: u64 = 4096;

#[test]
fn an_object_counts_what_is_its_own() {
    let (one, other) = (Sample::new(MIB), Sample::new(MIB));
    let cache = cache(4 * MIB);
    let one = cache.open_file(one.path(), writable()).unwrap();
    let other = cache.open_file(other.path(), writable()).unwrap();
    let mapping = one.map(.., mapped(Delivery::PinOnly)).unwrap();
    assert_eq!(one.metrics(), other.metrics());

    mapping.populate(..16 * PAGE).unwrap();
    mapping.write_at(0, &[1]).unwrap();
    mapping.sync(..).unwrap();
    one.sync().unwrap();
    let metrics = one.metrics();
    assert!(metrics.supplied_pages >= 16 && metrics.read_bytes >= 16 * PAGE, "{metrics:?}");
    assert_eq!((metrics.written_pages, metrics.written_bytes, metrics.syncs), (1, PAGE, 2));
    assert_eq!((metrics.faults, metrics.failed_pages, metrics.commits), (0, 0, 0));
    assert_eq!(other.metrics(), Default::default());
    let all = cache.metrics();
    assert_eq!((all.read_bytes, all.written_pages), (metrics.read_bytes, 1));
    // A pin of what is there counts nothing.
    mapping.pin(0..16).unwrap();
    assert_eq!(one.metrics(), metrics);
}

#[test]
fn failures_retries_and_waits_are_counted() {
    let (cache, clock) = timeless(MIB);
    let plan =
        vec![Injection::new(0..PAGE, Inject::Error).times(1), Injection::new(PAGE..2 * PAGE, Inject::Hang)];
    let pager = Faulty::new(Zero::new(4 * PAGE), plan, 0);
    let options = ObjectOptions::new().supply_timeout(Duration::from_secs(5));
    let object = cache.object("failing", pager, options).unwrap();
    let mapping = object.map(.., mapped(Delivery::PinOnly)).unwrap();
    mapping.pin(..PAGE).unwrap_err();
    assert_eq!((object.metrics().failed_pages, cache.metrics().failed_pages), (1, 1));

    let waiting = mapping.clone();
    let thread = std::thread::spawn(move || waiting.pin(PAGE..2 * PAGE).unwrap_err());
    wait_until("it waits", || cache.pager_calls().waited_for == 1);
    wait_until("it fails", || {
        clock.advance(Duration::from_secs(1));
        thread.is_finished()
    });
    thread.join().unwrap();
    let metrics = object.metrics();
    assert_eq!(metrics.failed_pages, 2);
    assert!(metrics.waits >= 1 && metrics.wait_time >= Duration::from_secs(1), "{metrics:?}");
}

#[test]
fn commits_and_checkpoints_are_counted() {
    let sample = Sample::new(MIB);
    let options = writable().writing(Writing::Atomic);
    let object = cache(4 * MIB).open_file(sample.path(), options).unwrap();
    let mapping = object.map_all(MapOptions::default()).unwrap();
    for round in 0..3 {
        mapping.write_at(round * PAGE, &[1]).unwrap();
        object.commit().unwrap();
    }
    let metrics = object.metrics();
    assert_eq!((metrics.commits, metrics.checkpoints, metrics.written_pages), (3, 0, 3));
    object.close().unwrap();
    let metrics = object.metrics();
    assert!(metrics.checkpoints >= 1 && metrics.checkpoint_time > Duration::ZERO, "{metrics:?}");
}

#[test]
fn faults_are_counted_for_the_object_that_they_are_in() {
    let sample = Sample::new(MIB);
    let cache = cache(4 * MIB);
    for delivery in [Delivery::InThread, Delivery::ReaderThread] {
        let object = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
        let mapping = match object.map(.., mapped(delivery)) {
            Err(memobj::MapError::NoUserfaultfd { source }) => {
                return println!("skipped: no userfaultfd: {source}");
            }
            mapping => mapping.unwrap(),
        };
        mapping.touch_at(5 * PAGE, &mut [0; 8]).unwrap();
        assert!(object.metrics().faults >= 1, "{delivery:?}");
    }
}

#[test]
fn metrics_can_be_serialized() {
    let cache = cache(MIB);
    let object = cache.object("zeros", Zero::new(PAGE), ObjectOptions::default()).unwrap();
    let whole = serde_json::to_value(cache.metrics()).unwrap();
    assert_eq!(whole["budget_bytes"], MIB);
    let own = serde_json::to_value(object.metrics()).unwrap();
    assert_eq!((&own["faults"], &own["wait_time"]["secs"]), (&0.into(), &0.into()));
}
