//! What safe code must not be able to do: change bytes under a reference, race with one, or die of a length that changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memobj::{AccessError, Cache, Delivery, ErrorKind, ObjectOptions, PinHolder, Writing};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, Sample, StopAtEnd, cache, wait_until, within};
use memobj_sim::writable_fixture::{DELIVERIES, WritableFixture, mapped, writable};

const PAGE: u64 = 4096;
const TOUCHED: [Delivery; 2] = [Delivery::InThread, Delivery::ReaderThread];

fn patient_for(pins: Duration) -> ObjectOptions {
    writable().pin_timeout(pins)
}

#[test]
fn a_touch_waits_for_pins_for_writing_and_names_them() {
    for delivery in TOUCHED {
        within(60, "touches beside a pin", move || {
            let fixture = WritableFixture::new(delivery, MIB, MIB, patient_for(Duration::from_millis(50)));
            let pinned = fixture.mapping.pin_mut(PAGE..PAGE + 8).unwrap();
            let mut buffer = [0; 8192];
            let error = fixture.mapping.touch_at(0, &mut buffer).unwrap_err();
            let mine = AccessError::Pinned { range: PAGE..2 * PAGE, by: PinHolder::ThisThread };
            assert_eq!(error.to_string(), mine.to_string());
            let theirs = std::thread::scope(|scope| {
                scope.spawn(|| fixture.mapping.touch_at(PAGE, &mut [0; 1]).unwrap_err()).join().unwrap()
            });
            assert!(matches!(theirs, AccessError::Pinned { by: PinHolder::Others, .. }), "{theirs}");
            // Neighbours are not concerned.
            fixture.mapping.touch_at(2 * PAGE, &mut buffer).unwrap();
            drop(pinned);
            fixture.mapping.touch_at(0, &mut buffer).unwrap();
        });
    }
}

#[test]
fn touches_never_see_half_of_what_a_pin_writes() {
    for delivery in TOUCHED {
        within(120, "touches beside stores through pins", move || {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            fixture.mapping.write_at(0, &[0; PAGE as usize]).unwrap();
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for round in 0..2000_u32 {
                        let mut pinned = fixture.mapping.pin_mut(0..PAGE).unwrap();
                        for byte in pinned.iter_mut() {
                            // Byte by byte, so that half of it is there for long.
                            *std::hint::black_box(byte) = round as u8;
                        }
                    }
                    stop.store(true, Ordering::Relaxed);
                });
                while !stop.load(Ordering::Relaxed) {
                    let mut buffer = [0; PAGE as usize];
                    fixture.mapping.touch_at(0, &mut buffer).unwrap();
                    assert!(buffer.iter().all(|byte| *byte == buffer[0]), "{delivery:?}: half of a store");
                }
            });
        });
    }
}

#[test]
fn lengths_that_change_are_errors_of_whoever_pins_and_copies() {
    let seed = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    println!("seed {seed}");
    within(120, "pins beside new lengths", move || {
        let sample = Sample::new(64 * PAGE);
        let cache = cache(MIB);
        // Pins of several pages can wait for one another.
        let shortly = Duration::from_millis(5);
        let options = patient_for(shortly).max_len(64 * PAGE);
        let object = cache.open_file(sample.path(), options).unwrap();
        let mapping = object.map(0..64 * PAGE, mapped(Delivery::InThread)).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (mapping, stop) = (&mapping, &stop);
                scope.spawn(move || {
                    let mut random = Random::new(seed + thread);
                    let mut buffer = vec![0; 3 * PAGE as usize];
                    while !stop.load(Ordering::Relaxed) {
                        let range = random.below(61) * PAGE..64 * PAGE;
                        let part = range.start..range.start + 3 * PAGE;
                        let done = match random.below(5) {
                            0 => mapping.pin(range).map(drop),
                            1 => mapping.pin_mut(part).map(drop),
                            2 => mapping.read_at(part.start, &mut buffer),
                            3 => mapping.touch_at(part.start, &mut buffer),
                            _ => mapping.write_at(part.start, &buffer),
                        };
                        match done {
                            Ok(()) | Err(AccessError::OutOfRange { .. } | AccessError::Pinned { .. }) => {}
                            // A touch finds that the end has come while it was under way.
                            Err(AccessError::Page(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            let _stopped = StopAtEnd(&stop);
            let mut random = Random::new(seed + 100);
            for _ in 0..3000 {
                match object.set_len(random.below(64 * PAGE + 1)) {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error}"),
                }
            }
        });
        // What is being written is waited for only shortly, too.
        wait_until("the object has its length again", || object.set_len(64 * PAGE).is_ok());
        mapping.retry(0..64 * PAGE).unwrap();
        mapping.read_at(0, &mut vec![0; 64 * PAGE as usize]).unwrap();
    });
}

#[test]
fn a_store_through_a_pin_goes_on_while_the_end_is_cut_off() {
    for delivery in TOUCHED {
        within(60, "a store behind the end to be", move || {
            let fixture = WritableFixture::new(delivery, MIB, 4 * PAGE, patient_for(Duration::from_secs(1)));
            fixture.mapping.write_at(0, &[1; PAGE as usize]).unwrap();
            let mut pinned = fixture.mapping.pin_mut(PAGE..2 * PAGE).unwrap();
            fixture.mapping.write_at(2 * PAGE, &[1; PAGE as usize]).unwrap();
            // Pages 0 and 2 are protected together, with page 1 between them.
            let error = fixture.mapping.sync(0..4 * PAGE).unwrap_err();
            assert_eq!(error.pinned_by(), Some(PinHolder::ThisThread), "{error}");
            std::thread::scope(|scope| {
                let cutting = scope.spawn(|| fixture.object.set_len(10));
                let is_cut =
                    || matches!(fixture.mapping.read_at(100, &mut [0]), Err(AccessError::OutOfRange { .. }));
                wait_until("the end is cut off, or could not be", || is_cut() || cutting.is_finished());
                pinned.fill(7);
                let start = Instant::now();
                drop(pinned);
                println!("{delivery:?}: {:?} after {:?}", cutting.join().unwrap(), start.elapsed());
            });
        });
    }
}

#[test]
fn errors_of_waiting_name_whose_pins_are_in_the_way() {
    for delivery in DELIVERIES {
        within(60, "waits for pins", move || {
            let options = patient_for(Duration::from_millis(50)).supply_timeout(None);
            let fixture = WritableFixture::new(delivery, MIB, MIB, options);
            let pinned = fixture.mapping.pin_mut(0..10).unwrap();
            let mine = fixture.mapping.sync(0..MIB).unwrap_err();
            assert_eq!(
                mine.to_string(),
                "write [0, 4096) of sample: timed out, a page is pinned for writing by this thread"
            );
            assert_eq!((mine.kind(), mine.pinned_by()), (ErrorKind::Timeout, Some(PinHolder::ThisThread)));
            let theirs = std::thread::scope(|scope| {
                scope.spawn(|| fixture.mapping.sync(0..MIB).unwrap_err()).join().unwrap()
            });
            assert!(
                theirs.to_string().ends_with("timed out, a page is pinned for writing by others"),
                "{theirs}"
            );
            let error = fixture.mapping.write_at(0, &[1]).unwrap_err();
            assert_eq!(error.to_string(), "[0, 4096) is pinned by this thread itself");
            let error = fixture.object.set_len(5).unwrap_err();
            assert_eq!(error.pinned_by(), Some(PinHolder::ThisThread), "{error}");
            // A pin is the thread's that made it, whoever drops it.
            std::thread::scope(|scope| drop(scope.spawn(move || drop(pinned)).join()));
            let read = fixture.mapping.pin(0..10).unwrap();
            let error = fixture.mapping.pin_mut(0..10).unwrap_err();
            assert!(matches!(error, AccessError::Pinned { by: PinHolder::ThisThread, .. }), "{error}");
            drop(read);
            fixture.object.close().unwrap();
        });
    }
}

#[test]
fn refusals_say_what_was_refused() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
    let texts = [object.commit().unwrap_err(), object.set_len(1).unwrap_err()].map(|error| error.to_string());
    assert!(texts[0].ends_with(": the object is not open for commits (Writing::Atomic)"), "{}", texts[0]);
    assert!(texts[1].ends_with(": the object is read only"), "{}", texts[1]);
    drop(object);
    let atomic = ObjectOptions::new().writing(Writing::Atomic);
    let object = cache.open_file(sample.path(), atomic).unwrap();
    let mapping = object.map(0..MIB, Default::default()).unwrap();
    mapping.write_at(0, &[1]).unwrap();
    let error = mapping.discard(0..PAGE).unwrap_err().to_string();
    assert!(error.ends_with("discard the whole object"), "{error}");
}

#[test]
fn an_event_is_not_waited_for_beside_somebody_who_waits() {
    within(60, "receivers", || {
        let cache: Cache = cache(MIB);
        let events = cache.events();
        let waits = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                waits.store(true, Ordering::Release);
                events.next_within(Duration::from_secs(30))
            });
            wait_until("the other is about to wait", || waits.load(Ordering::Acquire));
            // waits: lets it fall asleep.
            std::thread::sleep(Duration::from_millis(50));
            let start = Instant::now();
            assert!(cache.events().try_next().is_none());
            assert!(start.elapsed() < Duration::from_secs(15), "waited beside the other");
            // Ends the other's wait.
            let failing = memobj::pagers::Faulty::failing(memobj::pagers::Zero::new(PAGE), 0..PAGE);
            let object = cache.object("failing", failing, ObjectOptions::default()).unwrap();
            assert!(object.map(0..PAGE, Default::default()).unwrap().pin(0..PAGE).is_err());
        });
    });
}
