//! Objects that are written through several views of one memory file, in one process.

use std::time::Duration;

use memobj::{AccessError, Delivery, FrameVisibility, MapOptions, ObjectOptions, Sharing, Writing};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes, within};
use memobj_sim::random::Random;
use memobj_sim::writable_fixture::{is_all, mapped};

const BOTH: [Delivery; 2] = [Delivery::ReaderThread, Delivery::InThread];

fn shared() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::InPlace).visibility(FrameVisibility::Shared)
}

#[test]
fn each_view_sees_the_stores_of_the_other_at_once() {
    within(120, "a count by turns", || {
        const ROUNDS: u64 = 20_000;
        let sample = Sample::new(MIB);
        let cache = cache(MIB / 8);
        let object = cache.open_file(sample.path(), shared()).unwrap();
        let mappings = BOTH.map(|delivery| object.map(0..MIB, mapped(delivery)).unwrap());
        mappings[0].write_at(0, &[0; 8]).unwrap();
        std::thread::scope(|scope| {
            for (turn, mapping) in mappings.iter().enumerate() {
                scope.spawn(move || {
                    let words = mapping.shared_words().unwrap();
                    for round in 0..ROUNDS {
                        let mine = round * 2 + turn as u64;
                        while words.load(0) != mine {
                            std::thread::yield_now();
                        }
                        words.store(0, mine + 1);
                    }
                });
            }
            // Between turns the page is protected and written, and neighbours go and come.
            scope.spawn(|| {
                for _ in 0..200 {
                    object.sync().unwrap();
                    mappings[0].advise(0..MIB, memobj::Advice::DontNeed).unwrap();
                    // waits: spreads the syncs over the count.
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        });
        object.close().unwrap();
        let bytes = std::fs::read(sample.path()).unwrap();
        assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()), 2 * ROUNDS);
    });
}

/// Each thread owns the words of its own residue, in pages that all share, and checks and counts them up.
#[test]
fn no_store_is_lost_under_eviction_and_write_back() {
    within(120, "random stores", || {
        const LENGTH: u64 = 8 * MIB;
        const STORES: u64 = 40_000;
        let seed = u64::from(std::process::id()) ^ 0x5eed;
        println!("seed {seed}");
        let sample = Sample::new(LENGTH);
        let cache = cache(LENGTH / 8);
        let object = cache.open_file(sample.path(), shared()).unwrap();
        let counts: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let writers = [0, 1, 2, 3].map(|writer: u64| {
                let mapping = object.map(0..LENGTH, mapped(BOTH[writer as usize % 2])).unwrap();
                scope.spawn(move || {
                    let words = mapping.shared_words().unwrap();
                    let mut counts = vec![0u64; (LENGTH / 32) as usize];
                    let mut random = Random::new(seed + writer);
                    for _ in 0..STORES {
                        let index = random.below(LENGTH / 32);
                        let at = index * 4 + writer;
                        let before = sample_word(at).wrapping_add(counts[index as usize]);
                        assert_eq!(words.load(at), before, "word {at}");
                        words.store(at, before.wrapping_add(1));
                        counts[index as usize] += 1;
                    }
                    counts
                })
            });
            writers.map(|writer| writer.join().unwrap()).into()
        });
        let metrics = cache.metrics();
        assert!(metrics.evicted_pages > 1000 && metrics.written_pages > 1000, "{metrics:?}");
        object.close().unwrap();
        let bytes = std::fs::read(sample.path()).unwrap();
        for (at, word) in bytes.chunks_exact(8).enumerate() {
            let expected = sample_word(at as u64).wrapping_add(counts[at % 4][at / 4]);
            assert_eq!(u64::from_le_bytes(word.try_into().unwrap()), expected, "word {at}");
        }
    });
}

fn sample_word(at: u64) -> u64 {
    u64::from_le_bytes(sample_bytes((at + 1) * 8)[at as usize * 8..].try_into().unwrap())
}

#[test]
fn a_failed_page_traps_in_both_views_until_it_is_retried() {
    use memobj::pagers::{Inject, Operation};
    within(20, "a trap", || {
        let fixture =
            memobj_sim::writable_fixture::WritableFixture::new(Delivery::ReaderThread, MIB, MIB, shared());
        let other = fixture.object.map(0..MIB, mapped(Delivery::InThread)).unwrap();
        // It has been here, protected, and has left its protection behind.
        let mut byte = [0];
        fixture.mapping.touch_at(4096, &mut byte).unwrap();
        other.touch_at(4096, &mut byte).unwrap();
        other.advise(0..MIB, memobj::Advice::DontNeed).unwrap();
        fixture.inject(Operation::Supply, 4096..8192, Inject::Fail(memobj::ErrorKind::Io), Some(1));
        for mapping in [&fixture.mapping, &other] {
            let error = mapping.touch_at(4096, &mut byte).unwrap_err();
            assert!(matches!(error, AccessError::Page(_)), "{error:?}");
        }
        assert_eq!(other.retry(0..MIB).unwrap(), 1);
        for mapping in [&fixture.mapping, &other] {
            mapping.touch_at(4096, &mut byte).unwrap();
            assert_eq!(byte[0], sample_bytes(MIB)[4096]);
        }
    });
}

#[test]
fn a_new_length_is_that_of_both_views() {
    let sample = Sample::new(MIB);
    let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
    let mappings = BOTH.map(|delivery| object.map(0..MIB, mapped(delivery)).unwrap());
    for mapping in &mappings {
        mapping.write_at(MIB / 2, &[7; 8192]).unwrap();
    }
    object.set_len(MIB / 2).unwrap();
    let mut byte = [1];
    for mapping in &mappings {
        assert!(matches!(mapping.touch_at(MIB / 2, &mut byte), Err(AccessError::OutOfRange { .. })));
    }
    object.set_len(MIB).unwrap();
    for mapping in &mappings {
        mapping.touch_at(MIB / 2, &mut byte).unwrap();
        assert_eq!(byte[0], 0);
    }
}

#[test]
fn private_stores_stay_private() {
    let sample = Sample::new(MIB);
    let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
    let mappings = BOTH.map(|delivery| object.map(0..MIB, mapped(delivery)).unwrap());
    for delivery in BOTH {
        let private = MapOptions::new().sharing(Sharing::Private).delivery(delivery);
        let private = object.map(0..MIB, private).unwrap();
        private.shared_words().unwrap().store(3, 0xdead);
        for mapping in &mappings {
            let mut bytes = [0; 8];
            mapping.touch_at(24, &mut bytes).unwrap();
            assert_eq!(bytes, sample_bytes(MIB)[24..32]);
        }
    }
    mappings[1].write_at(0, &[9; 4096]).unwrap();
    object.close().unwrap();
    let bytes = std::fs::read(sample.path()).unwrap();
    assert!(is_all(&bytes, 0..4096, 9) && bytes[4096..] == sample_bytes(MIB)[4096..]);
}

#[test]
fn pins_for_writing_and_reading_hold_off_both_views() {
    within(60, "pins", || {
        let sample = Sample::new(MIB);
        let object = cache(MIB).open_file(sample.path(), shared()).unwrap();
        let mappings = BOTH.map(|delivery| object.map(0..MIB, mapped(delivery)).unwrap());
        for (mapping, other) in [(&mappings[0], &mappings[1]), (&mappings[1], &mappings[0])] {
            // Open in both views, then pinned: neither may change it.
            mapping.shared_words().unwrap().store(0, 1);
            other.shared_words().unwrap().store(0, 2);
            let pinned = mapping.pin(0..8).unwrap();
            std::thread::scope(|scope| {
                let storing = scope.spawn(|| other.shared_words().unwrap().store(0, 3));
                // waits: gives a store that is not held off the time to be seen.
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(pinned[0], 2);
                assert!(!storing.is_finished());
                drop(pinned);
                storing.join().unwrap();
            });
            let mut alone = mapping.pin_mut(0..8).unwrap();
            alone[0] = 4;
            drop(alone);
            let mut byte = [0];
            other.touch_at(0, &mut byte).unwrap();
            assert_eq!(byte[0], 4);
        }
    });
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
