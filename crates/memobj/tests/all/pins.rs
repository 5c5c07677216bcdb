//! Pins of single pages, pins that borrow, and cursors: the same bytes, bounds and names as pins of any range.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memobj::pagers::Zero;
use memobj::{AccessError, Mapping, PinHolder, Pinned};
use memobj_sim::fixture::{MIB, all_ways_and_pins, check_sample, sample_pager, wait_until, within};
use memobj_sim::writable_fixture::{DELIVERIES, WritableFixture, mapped, writable};
use memobj_sim::{Calls, Counted, Random};

const PAGE: u64 = 4096;

/// Reads `range`, which lies in one page, by the way number `way`, and checks it.
fn check(mapping: &Mapping, way: u64, at: u64, length: u64) {
    let range = at..at + length;
    let what = format!("way {way} of reading {range:?}");
    match way % 6 {
        0 => check_sample(range.clone(), &mapping.pin(range).unwrap(), &what),
        1 => check_sample(range.clone(), &mapping.pin_ref(range).unwrap(), &what),
        2 => mapping.with_pin(range.clone(), |bytes| check_sample(range, bytes, &what)).unwrap(),
        3 => {
            let mut buffer = vec![0xee; length as usize];
            mapping.read_at(at, &mut buffer).unwrap();
            check_sample(range, &buffer, &what);
        }
        4 => check_sample(range.clone(), mapping.cursor().read(range).unwrap(), &what),
        _ => {
            let mut buffer = vec![0xee; length as usize / 8 * 8];
            mapping.try_words(range, |words| words.copy_to(0, &mut buffer)).unwrap();
            check_sample(at..at + length / 8 * 8, &buffer, &what);
        }
    }
}

#[test]
fn bytes_are_right_while_pages_come_and_go() {
    let seed = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(5);
    println!("seed {seed}");
    for way in all_ways_and_pins() {
        let length = (4 * way.budget).min(24 * MIB);
        let (cache, mapping) = way.map(sample_pager(length));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (mapping, way) = (&mapping, &way);
                scope.spawn(move || {
                    let mut random = Random::new(seed + thread);
                    let mut held: Vec<(u64, Pinned)> = Vec::new();
                    for round in 0..3000 {
                        // Some pages are hot: threads meet in their words.
                        let page = match random.below(4) {
                            0 => random.below(length / way.page),
                            _ => random.below(4),
                        };
                        let from = random.below(way.page);
                        let many = 1 + random.below((way.page - from).min(200));
                        check(mapping, round, page * way.page + from, many);
                        if round % 50 == 0 {
                            let at = page * way.page;
                            held.push((at, mapping.pin(at..at + 100).unwrap()));
                        }
                        if held.len() > 1 {
                            let (at, pinned) = held.swap_remove(random.below(2) as usize);
                            check_sample(at..at + 100, &pinned, "held");
                        }
                    }
                });
            }
        });
        let metrics = cache.metrics();
        assert_eq!(metrics.pinned_bytes, 0, "{}", way.label);
        assert!(metrics.peak_frame_bytes <= way.budget, "{}: {metrics:?}", way.label);
    }
}

/// Each page, and then each byte of a page, is read by the way that a page that is absent takes, and a page that is there.
#[test]
fn ranges_of_all_kinds_are_the_same_bytes_as_ever() {
    for way in all_ways_and_pins() {
        let length = 3 * way.page - 5;
        let (_cache, mapping) = way.map(sample_pager(length));
        let mapping = &mapping;
        let mut cursor = mapping.cursor();
        for at in [0, 1, way.page - 1, way.page, 2 * way.page - 7, length - 1] {
            for size in [0, 1, 8, way.page - 1, way.page, way.page + 1, 2 * way.page] {
                let range = at..at + size;
                if range.end > length {
                    for error in [
                        mapping.pin_ref(range.clone()).map(drop),
                        mapping.with_pin(range.clone(), |_| panic!("called")),
                        cursor.read(range.clone()).map(drop),
                    ] {
                        let told = AccessError::OutOfRange { range: range.clone(), length };
                        assert_eq!(error.unwrap_err().to_string(), told.to_string(), "{}", way.label);
                    }
                    continue;
                }
                check_sample(range.clone(), &mapping.pin_ref(range.clone()).unwrap(), &way.label);
                mapping.with_pin(range.clone(), |got| check_sample(range.clone(), got, &way.label)).unwrap();
                check_sample(range.clone(), cursor.read(range.clone()).unwrap(), &way.label);
            }
        }
        #[expect(clippy::reversed_empty_ranges, reason = "an error of the caller")]
        let reversed = 5..2;
        assert!(cursor.read(reversed.clone()).is_err() && mapping.pin_ref(reversed).is_err());
    }
}

#[test]
fn pins_hold_exactly_what_they_may_whoever_has_credits() {
    for way in all_ways_and_pins() {
        let limit = way.budget - way.budget / 8;
        let (cache, mapping) = way.map(Zero::new(2 * way.budget));
        let pages = limit / way.page;
        // Threads that have pinned keep credits: those that go on, and those that have ended.
        let leave_credits = || {
            std::thread::scope(|scope| {
                for thread in 0..20 {
                    let (mapping, page) = (&mapping, way.page(thread % pages).start);
                    scope.spawn(move || {
                        for _ in 0..3 {
                            drop((mapping.pin(page..page + 1).unwrap(), mapping.pin_ref(0..1).unwrap()));
                        }
                    });
                }
            });
        };
        leave_credits();
        assert_eq!(cache.metrics().pinned_bytes, 0, "{}", way.label);
        let most = mapping.pin(0..limit).unwrap();
        assert_eq!(cache.metrics().pinned_bytes, limit, "{}", way.label);
        for error in [
            mapping.pin(limit..limit + 1).map(drop),
            mapping.pin_ref(limit..limit + 1).map(drop),
            mapping.cursor().read(limit..limit + 1).map(drop),
        ] {
            assert!(matches!(error, Err(AccessError::PinsExceedBudget { .. })), "{}: {error:?}", way.label);
        }
        // What is pinned already costs nothing.
        drop(mapping.pin_ref(limit - 1..limit).unwrap());
        drop(most);
        leave_credits();
        let mut ones: Vec<Pinned> =
            (0..pages).map(|page| mapping.pin(way.page(page).start..way.page(page).end).unwrap()).collect();
        assert_eq!(cache.metrics().pinned_bytes, limit, "{}", way.label);
        assert!(mapping.pin(limit..limit + 1).is_err(), "{}", way.label);
        ones.pop();
        drop(mapping.pin(limit..limit + 1).unwrap());
        // Dropped by another thread, the bytes are there for all.
        std::thread::scope(|scope| drop(scope.spawn(move || drop(ones)).join()));
        assert_eq!(cache.metrics().pinned_bytes, 0, "{}", way.label);
        drop(mapping.pin(limit..2 * limit).unwrap());
    }
}

/// Threads pin until they are refused: together they have all that there is, and never more.
#[test]
fn threads_that_pin_at_once_fill_the_bound_and_never_pass_it() {
    let way = all_ways_and_pins().next().unwrap();
    let limit = way.budget - way.budget / 8;
    let (cache, mapping) = way.map(Zero::new(8 * way.budget));
    let pages = limit / PAGE;
    for round in 0..30 {
        let barrier = Barrier::new(4);
        let stop = AtomicBool::new(false);
        let held: Vec<Vec<Pinned>> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert!(cache.metrics().pinned_bytes <= limit);
                }
            });
            let pin = |thread: u64| {
                let at = |step: u64| (thread * 2 * pages + step) * PAGE;
                // Some go through credits first, which others have to find then.
                for step in 0..thread * 5 {
                    drop(mapping.pin(at(step)..at(step) + 1));
                }
                barrier.wait();
                let pin = |step| mapping.pin(at(step)..at(step) + 1);
                (0..2 * pages).map_while(|step| pin(step).ok()).collect()
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || pin(thread))).collect();
            let held = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            stop.store(true, Ordering::Relaxed);
            held
        });
        // Whoever was refused can have met bytes on their way: but one thread alone gets all that is left.
        let count = held.iter().map(|pins| pins.len() as u64).sum::<u64>();
        let rest = 6 * way.budget..6 * way.budget + (pages - count) * PAGE;
        let rest = mapping.pin(rest).unwrap();
        assert_eq!(cache.metrics().pinned_bytes, limit, "round {round}");
        drop((held, rest));
    }
    assert_eq!(cache.metrics().pinned_bytes, 0);
}

#[test]
fn pins_of_all_kinds_are_their_makers() {
    for delivery in DELIVERIES {
        within(60, "waits for pins", move || {
            let options = writable().pin_timeout(Duration::from_millis(20));
            let fixture = WritableFixture::new(delivery, MIB, MIB, options);
            let mapping = &fixture.mapping;
            mapping.populate(0..MIB / 2).unwrap();
            let by = |page: u64| match mapping.write_at(page * PAGE, &[1]) {
                Err(AccessError::Pinned { by, .. }) => Some(by),
                Ok(()) => None,
                Err(error) => panic!("{error}"),
            };
            let by_others = |page| std::thread::scope(|scope| scope.spawn(move || by(page)).join().unwrap());
            let borrowed = mapping.pin_ref(0..10).unwrap();
            assert_eq!((by(0), by_others(0)), (Some(PinHolder::ThisThread), Some(PinHolder::Others)));
            drop(borrowed);
            mapping.with_pin(0..10, |_| assert_eq!(by(0), Some(PinHolder::ThisThread))).unwrap();
            let mut cursor = mapping.cursor();
            assert_eq!(cursor.read(PAGE + 5..PAGE + 6).unwrap().len(), 1);
            assert_eq!((by(0), by(1)), (None, Some(PinHolder::ThisThread)));
            cursor.read(2 * PAGE..2 * PAGE + 1).unwrap();
            assert_eq!((by(1), by(2)), (None, Some(PinHolder::ThisThread)));
            cursor.release();
            assert_eq!(by(2), None);
            // More than a thread keeps without a lock.
            let many: Vec<Pinned> =
                (0..100).map(|page| mapping.pin(page * PAGE..page * PAGE + 1).unwrap()).collect();
            assert_eq!((by(0), by(99)), (Some(PinHolder::ThisThread), Some(PinHolder::ThisThread)));
            assert_eq!(by_others(99), Some(PinHolder::Others));
            // Dropped by another thread, they are nobody's.
            std::thread::scope(|scope| drop(scope.spawn(move || drop(many)).join()));
            assert_eq!((by(0), by(99), by_others(50)), (None, None, None));
        });
    }
}

#[test]
fn pins_outlive_the_thread_that_made_them_and_are_not_the_next_ones() {
    for way in all_ways_and_pins() {
        let calls = Calls::default();
        let (cache, mapping) = way.map(Counted::new(sample_pager(4 * way.page), calls.clone()));
        // Each thread uses what the one before has left behind.
        let mut held = Vec::new();
        for _ in 0..3 {
            let mapping = mapping.clone();
            let pin = move || (0..70).map(|at| mapping.pin(at..at + 1).unwrap()).collect::<Vec<_>>();
            held.push(std::thread::spawn(pin).join().unwrap());
        }
        let one = mapping.pin(way.page(1)).unwrap();
        drop(mapping);
        for (at, pinned) in (0..).zip(&held[1]) {
            check_sample(at..at + 1, pinned, &way.label);
        }
        drop(held);
        check_sample(way.page(1), &one, &way.label);
        assert_eq!(cache.metrics().pinned_bytes, way.page, "{}", way.label);
        drop(one);
        // Free frames of 2 MiB stay in their pool.
        wait_until("frames are given back", || way.page > PAGE || cache.metrics().frame_bytes == 0);
        wait_until("the object is detached", || calls.detached() == 1);
    }
}

/// `mem::forget` is safe: the bytes stay counted, and all else goes.
#[test]
fn a_pin_that_is_forgotten_does_not_keep_its_object() {
    for way in all_ways_and_pins() {
        let calls = Calls::default();
        let (cache, mapping) = way.map(Counted::new(sample_pager(4 * way.page), calls.clone()));
        std::mem::forget(mapping.pin_ref(0..10).unwrap());
        std::mem::forget(mapping.cursor().read(way.page(1)).map(|_| ()));
        let clone = mapping.clone();
        drop(mapping);
        check_sample(0..100, &clone.pin_ref(0..100).unwrap(), &way.label);
        drop(clone);
        wait_until("the object is detached", || calls.detached() == 1);
        assert_eq!(cache.metrics().pinned_bytes, way.page, "{}", way.label);
    }
    for delivery in DELIVERIES {
        within(60, "a forgotten pin of an object that is written", move || {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            fixture.mapping.write_at(0, &[7; 100]).unwrap();
            std::mem::forget(fixture.mapping.pin_ref(0..10).unwrap());
            fixture.object.close().unwrap();
            let WritableFixture { mapping, object, disk, .. } = fixture;
            drop((mapping, object));
            assert_eq!(disk.durable()[..100], [7; 100]);
        });
    }
}

#[test]
fn a_cursor_holds_one_page_and_nothing_after_an_error() {
    for way in all_ways_and_pins() {
        let (cache, mapping) = way.map(sample_pager(3 * way.page));
        let mut cursor = mapping.cursor();
        for at in (0..3 * way.page - 8).step_by(way.page as usize / 64 + 3) {
            // Of a range across a border both pages are held until the next read.
            check_sample(at..at + 8, cursor.read(at..at + 8).unwrap(), &way.label);
            assert!(cache.metrics().pinned_bytes <= 2 * way.page, "{}", way.label);
        }
        check_sample(0..8, cursor.read(0..8).unwrap(), &way.label);
        assert_eq!(cache.metrics().pinned_bytes, way.page, "{}", way.label);
        assert!(cursor.read(0..3 * way.page + 1).is_err());
        assert_eq!(cache.metrics().pinned_bytes, 0, "{}", way.label);
        // A mapping of a part begins and ends inside a page.
        drop(cursor);
    }
}

#[test]
fn a_cursor_sees_an_object_grow_and_shrink() {
    for delivery in DELIVERIES {
        within(60, "lengths", move || {
            let options = writable().pin_timeout(Duration::from_millis(20));
            let fixture = WritableFixture::new(delivery, MIB, PAGE + 100, options);
            fixture.object.set_len(2 * PAGE).unwrap();
            let mapping = fixture.object.map(0..2 * PAGE, mapped(delivery)).unwrap();
            fixture.object.set_len(PAGE + 100).unwrap();
            let mut cursor = mapping.cursor();
            check_sample(PAGE..PAGE + 100, cursor.read(PAGE..PAGE + 100).unwrap(), "before");
            assert!(cursor.read(PAGE..PAGE + 101).is_err());
            check_sample(PAGE..PAGE + 100, cursor.read(PAGE..PAGE + 100).unwrap(), "before");
            cursor.release();
            fixture.object.set_len(PAGE + 200).unwrap();
            check_sample(PAGE..PAGE + 100, cursor.read(PAGE..PAGE + 100).unwrap(), "grown");
            assert_eq!(cursor.read(PAGE + 100..PAGE + 200).unwrap(), [0; 100]);
            cursor.release();
            fixture.object.set_len(PAGE).unwrap();
            assert!(matches!(cursor.read(PAGE..PAGE + 1), Err(AccessError::OutOfRange { .. })));
            check_sample(PAGE - 8..PAGE, cursor.read(PAGE - 8..PAGE).unwrap(), "before the end");
        });
    }
}

/// Writers fill pages with one byte at a time; whoever reads sees one byte all over, in whatever way.
#[test]
fn readers_never_see_half_of_a_write() {
    const PAGES: u64 = 24;
    for delivery in DELIVERIES {
        within(120, "readers beside writers", move || {
            // Fewer frames than pages: they come and go, too.
            let fixture = WritableFixture::new(delivery, 16 * PAGE, PAGES * PAGE, writable());
            fixture.mapping.write_at(0, &[0; (PAGES * PAGE) as usize]).unwrap();
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for thread in 0..2 {
                    let (mapping, stop) = (&fixture.mapping, &stop);
                    scope.spawn(move || {
                        let mut random = Random::new(thread);
                        for round in 0..1500 {
                            let at = random.below(PAGES) * PAGE;
                            let byte = round as u8;
                            match random.below(3) {
                                0 => match mapping.pin_new(at..at + PAGE) {
                                    Ok(mut pinned) => pinned.fill(byte),
                                    Err(AccessError::PinsExceedBudget { .. }) => {}
                                    Err(error) => panic!("{error}"),
                                },
                                _ => mapping.write_at(at, &[byte; PAGE as usize]).unwrap(),
                            }
                        }
                        stop.store(true, Ordering::Relaxed);
                    });
                }
                for thread in 0..2 {
                    let (mapping, stop) = (&fixture.mapping, &stop);
                    scope.spawn(move || read_whole_pages(mapping, thread, stop));
                }
            });
            assert_eq!(fixture.cache.metrics().pinned_bytes, 0);
        });
    }
}

fn read_whole_pages(mapping: &Mapping, seed: u64, stop: &AtomicBool) {
    let same = |bytes: &[u8]| assert!(bytes.iter().all(|byte| *byte == bytes[0]), "half of a write");
    let mut random = Random::new(100 + seed);
    let mut cursor = mapping.cursor();
    while !stop.load(Ordering::Relaxed) {
        let at = random.below(mapping.len() / PAGE) * PAGE;
        let range = at..at + PAGE;
        let seen = match random.below(6) {
            0 => mapping.pin(range).map(|pinned| same(&pinned)),
            1 => mapping.pin_ref(range).map(|pinned| same(&pinned)),
            2 => mapping.with_pin(range, same),
            3 => {
                let read = cursor.read(range).map(same);
                // Writers wait for it.
                cursor.release();
                read
            }
            4 => {
                let mut buffer = [0; PAGE as usize];
                let seen = mapping.try_words(range, |words| words.copy_to(0, &mut buffer));
                seen.map(|()| same(&buffer))
            }
            _ => {
                let mut buffer = [0; PAGE as usize];
                mapping.read_at(at, &mut buffer).map(|()| same(&buffer))
            }
        };
        match seen {
            Ok(()) | Err(AccessError::PinsExceedBudget { .. } | AccessError::TooManyPins) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Everything again with shared frames.
#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}
