//! Reads without a pin: what is answered was all there at one moment.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memobj::pagers::{Faulty, Inject, Injection, Operation, Zero};
use memobj::{AccessError, Advice, ErrorKind, GlanceWords};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, all_ways_and_pins, check_sample, sample_bytes, sample_pager, within};
use memobj_sim::writable_fixture::{DELIVERIES, WritableFixture, writable};

const PAGE: u64 = 4096;

fn all(words: &GlanceWords<'_>) -> Vec<u8> {
    let mut bytes = vec![0xee; words.len() as usize * 8];
    words.copy_to(0, &mut bytes);
    bytes
}

#[test]
fn words_are_the_objects_wherever_they_begin() {
    for way in all_ways_and_pins() {
        let length = 3 * way.page - 5;
        let (_cache, mapping) = way.map(sample_pager(length));
        for at in [0, 8, 3, way.page - 8, way.page - 3, 2 * way.page, length - 16, length - 7, length] {
            for size in [0, 7, 8, 16, 100, way.page, 2 * way.page] {
                let range = at..at + size;
                if range.end > length {
                    let error = mapping.try_words(range.clone(), |_| panic!("called")).unwrap_err();
                    let told = AccessError::OutOfRange { range, length };
                    assert_eq!(error.to_string(), told.to_string());
                    continue;
                }
                let whole = at..at + size / 8 * 8;
                let bytes = mapping.try_words(range.clone(), all).unwrap();
                check_sample(whole.clone(), &bytes, &way.label);
                let known = &sample_bytes(length)[whole.start as usize..whole.end as usize];
                mapping.try_words(range, |words| check_words(words, known)).unwrap();
            }
        }
    }
}

/// Words one by one, and a part of the last.
fn check_words(words: &GlanceWords<'_>, known: &[u8]) {
    assert_eq!((words.len() as usize, words.is_empty()), (known.len() / 8, known.is_empty()));
    for (index, known) in (0..).zip(known.chunks(8)).take(20) {
        assert_eq!(words.load(index).to_le_bytes(), known);
    }
    if words.len() > 2 {
        let mut odd = [0; 13];
        words.copy_to(1, &mut odd);
        assert_eq!(odd, known[8..21]);
    }
    assert!(words.is_still());
}

#[test]
fn what_changes_meanwhile_is_not_answered() {
    for delivery in DELIVERIES {
        within(60, "changes under a look", move || {
            let options = writable().pin_timeout(Duration::from_millis(20));
            let fixture = WritableFixture::new(delivery, MIB, 8 * PAGE, options);
            let mapping = &fixture.mapping;
            let set = |value: u8| mapping.write_at(0, &[value; 2 * PAGE as usize]);
            set(1).unwrap();
            let calls = Cell::new(0);
            let changed = |change: &dyn Fn()| {
                calls.set(0);
                let answer = mapping.try_words(0..2 * PAGE, |words| {
                    let first = words.load(0);
                    if calls.replace(calls.get() + 1) == 0 {
                        change();
                        assert!(!words.is_still());
                    }
                    [first, words.load(1), words.load(words.len() - 1)]
                });
                assert!(calls.get() > 1, "an answer of before counts");
                let answer = answer.unwrap();
                assert_eq!(answer, [answer[0]; 3]);
                answer[0].to_le_bytes()[3]
            };
            assert_eq!(changed(&|| set(2).unwrap()), 2);
            assert_eq!(changed(&|| mapping.pin_mut(0..2 * PAGE).unwrap().fill(3)), 3);
            assert_eq!(changed(&|| mapping.pin_new(PAGE..2 * PAGE).unwrap().fill(3)), 3);
            fixture.object.sync().unwrap();
            // Pages that go and come back are other pages.
            assert_eq!(changed(&|| mapping.advise(0..2 * PAGE, Advice::DontNeed).unwrap()), 3);
            // It is pinned in the end: then stores wait.
            let pinned = Cell::new(false);
            let answer = mapping.try_words(0..8, |words| {
                pinned.set(matches!(set(words.load(0) as u8 + 1), Err(AccessError::Pinned { .. })));
                words.load(0)
            });
            assert!(pinned.get() && answer.unwrap().to_le_bytes()[0] > 3);
            // A pin for writing lasts: the look waits for it.
            let held = mapping.pin_mut(0..8).unwrap();
            let error = mapping.try_words(0..8, |words| words.load(0)).unwrap_err();
            assert!(matches!(error, AccessError::Pinned { .. }), "{error}");
            drop(held);
            assert_eq!(fixture.cache.metrics().pinned_bytes, 0);
        });
    }
}

#[test]
fn a_page_that_fails_is_an_error_and_no_trap() {
    for way in all_ways_and_pins() {
        within(60, &way.label.clone(), move || {
            let pager = std::sync::Arc::new(Faulty::new(sample_pager(4 * way.page), Vec::new(), 1));
            let (_cache, mapping) = way.map(std::sync::Arc::clone(&pager));
            let fail = || {
                mapping.advise(0..4 * way.page, Advice::DontNeed).unwrap();
                let injection = Injection::new(way.page(1), Inject::Error);
                pager.inject(Operation::Supply, injection);
            };
            // Before, and between two loads of a page that was there.
            fail();
            let wanted = 0..2 * way.page;
            let error = mapping.try_words(wanted.clone(), |words| words.load(0)).unwrap_err();
            assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Io);
            pager.heal(Operation::Supply);
            mapping.retry(0..4 * way.page).unwrap();
            mapping.populate(0..4 * way.page).unwrap();
            let calls = Cell::new(0);
            let error = mapping.try_words(wanted.clone(), |words| {
                words.load(way.page / 8);
                if calls.replace(calls.get() + 1) == 0 {
                    fail();
                }
                words.load(way.page / 8 + 1)
            });
            assert_eq!(error.unwrap_err().page_error().unwrap().kind(), ErrorKind::Io, "{}", way.label);
            assert_eq!(calls.get(), 1);
            pager.heal(Operation::Supply);
            mapping.retry(0..4 * way.page).unwrap();
            check_sample(wanted.clone(), &mapping.try_words(wanted, all).unwrap(), &way.label);
        });
    }
}

#[test]
fn looks_need_no_pins() {
    for way in all_ways_and_pins() {
        let limit = way.budget - way.budget / 8;
        let cache = way.cache();
        let map = |name, length| {
            let object = cache.object(name, Zero::new(length), way.object.clone()).unwrap();
            object.map(0..length, way.map).unwrap()
        };
        let (held, other) = (map("held", limit), map("other", 4 * way.page));
        let most = held.pin(0..limit).unwrap();
        let label = way.label.clone();
        within(60, &way.label, move || {
            for at in (0..4 * way.page - 8).step_by(1000) {
                assert_eq!(other.try_words(at..at + 8, |words| words.load(0)).unwrap(), 0, "{label}");
            }
        });
        drop(most);
    }
}

/// Words that others store by plain stores, whole each.
#[test]
fn words_are_never_torn_by_plain_stores() {
    for delivery in DELIVERIES {
        within(120, "words beside stores", move || {
            let fixture = WritableFixture::new(delivery, MIB, 4 * PAGE, writable());
            if !fixture.mapping.can_be_touched() {
                return;
            }
            fixture.mapping.write_at(0, &[0; 4 * PAGE as usize]).unwrap();
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let words = fixture.mapping.shared_words().unwrap();
                    let mut random = Random::new(1);
                    for round in 0..300_000_u64 {
                        words.store(random.below(words.len()), round % 256 * 0x0101_0101_0101_0101);
                    }
                    stop.store(true, Ordering::Relaxed);
                });
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        fixture.object.sync().unwrap();
                    }
                });
                let same = |bytes: &[u8]| {
                    assert!(bytes.chunks(8).all(|word| word.iter().all(|byte| *byte == word[0])), "torn");
                };
                let mut random = Random::new(2);
                while !stop.load(Ordering::Relaxed) {
                    let at = random.below(4 * PAGE / 8 - 16) * 8;
                    same(&fixture.mapping.try_words(at..at + 128, all).unwrap());
                    let mut buffer = [0; 64];
                    let at = at / PAGE * PAGE + (at % PAGE).min(PAGE - 64);
                    fixture.mapping.read_at(at, &mut buffer).unwrap();
                    same(&buffer);
                }
            });
        });
    }
}

/// Looks at several pages until told to stop; they are pinned for writing together, and filled with one byte.
fn look_at_several(fixture: &WritableFixture, seed: u64, length: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let at = random.below(3) * length;
        let ends = |words: &GlanceWords<'_>| {
            let (page, last) = (PAGE / 8, words.len() - 1);
            [0, page - 1, page, 3 * page + 7, last].map(|index| words.load(index))
        };
        match fixture.mapping.try_words(at..at + length, ends) {
            Ok(seen) => assert_eq!(seen, [seen[0]; 5], "of two moments"),
            Err(AccessError::PinsExceedBudget { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn several_pages_are_of_one_moment() {
    for delivery in DELIVERIES {
        within(120, "looks at several pages", move || {
            const LENGTH: u64 = 6 * PAGE;
            let fixture = WritableFixture::new(delivery, 32 * PAGE, 3 * LENGTH, writable());
            fixture.mapping.write_at(0, &[0; 3 * LENGTH as usize]).unwrap();
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut random = Random::new(1);
                    for round in 0..2000_u64 {
                        let at = random.below(3) * LENGTH;
                        fixture.mapping.pin_mut(at..at + LENGTH).unwrap().fill(round as u8);
                    }
                    stop.store(true, Ordering::Relaxed);
                });
                for seed in [2, 3] {
                    let (fixture, stop) = (&fixture, &stop);
                    scope.spawn(move || look_at_several(fixture, seed, LENGTH, stop));
                }
            });
        });
    }
}

/// Everything again with shared frames.
#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}
