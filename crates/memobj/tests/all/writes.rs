//! What is stored is what is read, here and in the file, whatever the budget and the way of storing.

use std::sync::atomic::{AtomicU64, Ordering};

use memobj::{AccessError, Delivery, ErrorKind, FrameSize, MapOptions, ObjectOptions, Sharing, Writing};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes, wait_until_clean};

const DELIVERIES: [Delivery; 3] = [Delivery::InThread, Delivery::ReaderThread, Delivery::PinOnly];

fn writable() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::InPlace).frames(FrameSize::Small)
}

fn mapped(delivery: Delivery) -> MapOptions {
    MapOptions::new().delivery(delivery)
}

/// A generator whose seed is printed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn random_stores_of_all_kinds_are_read_back_and_reach_the_file() {
    let seed = 0x5eed_0001;
    println!("seed {seed}");
    for delivery in DELIVERIES {
        let length = 4 * MIB + 1234;
        let sample = Sample::new(length);
        let mut model = sample_bytes(length).to_vec();
        let cache = cache(MIB / 2);
        let object = cache.open_file(sample.path(), writable()).unwrap();
        let mapping = object.map(0..length, mapped(delivery)).unwrap();
        let mut random = Random(seed);
        for step in 0..2000u64 {
            let at = random.below(length);
            let len = (1 + random.below(20_000)).min(length - at);
            let value = (step % 251) as u8;
            let (from, to) = (at as usize, (at + len) as usize);
            match random.below(5) {
                0 => {
                    mapping.write_at(at, &vec![value; len as usize]).unwrap();
                    model[from..to].fill(value);
                }
                1 => {
                    mapping.pin_mut(at..at + len).unwrap().fill(value);
                    model[from..to].fill(value);
                }
                2 if delivery != Delivery::PinOnly => {
                    let words = mapping.shared_words().unwrap();
                    let word = at / 8 % words.len();
                    words.store(word, step);
                    model[word as usize * 8..][..8].copy_from_slice(&step.to_le_bytes());
                }
                3 => {
                    let mut buffer = vec![0; len as usize];
                    mapping.read_at(at, &mut buffer).unwrap();
                    assert!(buffer == model[from..to], "{delivery:?} step {step}: read [{from}, {to})");
                }
                _ => {
                    let pinned = mapping.pin(at..at + len).unwrap();
                    assert!(*pinned == model[from..to], "{delivery:?} step {step}: pin [{from}, {to})");
                }
            }
            if step % 500 == 499 {
                mapping.sync(0..length).unwrap();
                let file = std::fs::read(sample.path()).unwrap();
                let wrong = file.iter().zip(&model).position(|(file, model)| file != model);
                let count = file.iter().zip(&model).filter(|(file, model)| file != model).count();
                let what = format!("{delivery:?} step {step}, {count} bytes wrong, {:?}", cache.metrics());
                assert_eq!((wrong, file.len()), (None, model.len()), "{what}");
                wait_until_clean(&cache);
            }
        }
        object.close().unwrap();
        let metrics = cache.metrics();
        assert!(metrics.peak_frame_bytes <= MIB / 2 && metrics.written_pages > 0, "{metrics:?}");
        drop((mapping, object));
        assert!(std::fs::read(sample.path()).unwrap() == model);
        assert_eq!((cache.metrics().frame_bytes, cache.metrics().pinned_bytes), (0, 0));
    }
}

/// Four threads count in words of their own, all over a file eight times the budget.
fn no_store_is_lost(delivery: Delivery, stores: u64) {
    let length = 8 * MIB;
    let sample = Sample::new(length);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), writable()).unwrap();
    let mapping = object.map(0..length, mapped(delivery)).unwrap();
    let before = sample_bytes(length);
    let words = length / 8;
    let counts: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let mapping = &mapping;
                scope.spawn(move || {
                    let words_of_all = mapping.shared_words().unwrap();
                    let mut random = Random(0x9e37_79b9 + thread);
                    let mut counts = vec![0u64; (words / 4) as usize];
                    for _ in 0..stores / 4 {
                        let own = random.below(words / 4);
                        let word = own * 4 + thread;
                        words_of_all.store(word, words_of_all.load(word).wrapping_add(1));
                        counts[own as usize] += 1;
                    }
                    counts
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    object.close().unwrap();
    let file = std::fs::read(sample.path()).unwrap();
    let word =
        |bytes: &[u8], index: u64| u64::from_le_bytes(bytes[index as usize * 8..][..8].try_into().unwrap());
    let wrong = (0..words)
        .filter(|index| {
            let count = counts[(index % 4) as usize][(index / 4) as usize];
            word(&file, *index) != word(before, *index).wrapping_add(count)
        })
        .count();
    let metrics = cache.metrics();
    assert_eq!(wrong, 0, "{delivery:?}: of {words} words; {metrics:?}");
    assert!(metrics.evicted_pages > 1000, "{metrics:?}");
    assert!(metrics.peak_frame_bytes <= MIB, "{metrics:?}");
}

/// With `MEMOBJ_STORES=10000000` as many stores, which takes minutes.
#[test]
fn eviction_loses_no_store_in_thread() {
    let stores = std::env::var("MEMOBJ_STORES").map_or(100_000, |count| count.parse().unwrap());
    no_store_is_lost(Delivery::InThread, stores);
}

#[test]
fn eviction_loses_no_store_reader_thread() {
    no_store_is_lost(Delivery::ReaderThread, 40_000);
}

#[test]
fn a_pin_does_not_change_while_others_store() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), writable()).unwrap();
    let mapping = object.map(0..MIB, mapped(Delivery::InThread)).unwrap();
    mapping.write_at(8192, &[1; 4096]).unwrap();
    let stored = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let pinned = mapping.pin(8192..12288).unwrap();
        scope.spawn(|| {
            mapping.shared_words().unwrap().store(1024, u64::MAX);
            stored.store(1, Ordering::SeqCst);
        });
        while cache.metrics().faults == 0 {
            std::thread::yield_now();
        }
        for _ in 0..1000 {
            assert!(pinned.iter().all(|byte| *byte == 1));
            assert_eq!(stored.load(Ordering::SeqCst), 0);
            std::thread::yield_now();
        }
        drop(pinned);
    });
    assert_eq!(mapping.shared_words().unwrap().load(1024), u64::MAX);
}

#[test]
fn exclusive_pins_and_shared_words_exclude_each_other() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), writable()).unwrap();
    let mapping = object.map(0..MIB, mapped(Delivery::InThread)).unwrap();
    let pinned = mapping.pin_mut(0..10).unwrap();
    assert!(matches!(mapping.shared_words(), Err(AccessError::InUse)));
    drop(pinned);
    let words = mapping.shared_words().unwrap();
    assert!(matches!(mapping.pin_mut(0..10), Err(AccessError::InUse)));
    drop(words);
    assert!(mapping.pin_mut(0..10).is_ok());
}

#[test]
fn a_read_only_object_refuses_every_store() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
    let mapping = object.map(0..MIB, MapOptions::default()).unwrap();
    assert!(matches!(mapping.write_at(0, b"x"), Err(AccessError::ReadOnly)));
    assert!(matches!(mapping.pin_mut(0..1), Err(AccessError::ReadOnly)));
    assert!(mapping.shared_words().is_err() && mapping.as_mut_ptr().is_null());
    assert!(object.set_len(1).is_err());
    assert!(mapping.sync(0..MIB).is_ok());
}

#[test]
fn a_sequential_writer_passes_over_a_file_of_eight_budgets() {
    for delivery in [Delivery::InThread, Delivery::ReaderThread] {
        let length = 16 * MIB + 100;
        let sample = Sample::new(length);
        let cache = cache(2 * MIB);
        let object = cache.open_file(sample.path(), writable()).unwrap();
        let mapping = object.map(0..length, mapped(delivery)).unwrap();
        let words = mapping.shared_words().unwrap();
        for word in 0..words.len() {
            words.store(word, word ^ 0x5555);
        }
        drop(words);
        object.close().unwrap();
        let file = std::fs::read(sample.path()).unwrap();
        let wrong =
            file.chunks_exact(8).zip(0u64..).find(|(bytes, word)| **bytes != (word ^ 0x5555).to_le_bytes());
        assert_eq!(wrong, None, "{delivery:?}");
        assert!(file[file.len() / 8 * 8..] == sample_bytes(length)[file.len() / 8 * 8..]);
        assert!(cache.metrics().faults < 4096, "pages are opened in batches: {:?}", cache.metrics());
    }
}

#[test]
fn private_stores_stay_private_and_survive_eviction() {
    for delivery in DELIVERIES {
        for writing in [Writing::ReadOnly, Writing::InPlace] {
            let length = 4 * MIB + 10;
            let sample = Sample::new(length);
            let cache = cache(MIB);
            let object = cache.open_file(sample.path(), writable().writing(writing)).unwrap();
            let private = mapped(delivery).sharing(Sharing::Private);
            let shared = object.map(0..length, mapped(delivery)).unwrap();
            let (own, other) =
                (object.map(0..length, private).unwrap(), object.map(0..length, private).unwrap());
            let mut model = sample_bytes(length).to_vec();
            for page in (0..1024u64).step_by(3) {
                own.write_at(page * 4096 + 5, &[page as u8; 100]).unwrap();
                model[page as usize * 4096 + 5..][..100].fill(page as u8);
            }
            let mut read = vec![0; length as usize];
            own.read_at(0, &mut read).unwrap();
            assert!(read == model, "{delivery:?} {writing:?}: own");
            for mapping in [&shared, &other] {
                mapping.read_at(0, &mut read).unwrap();
                assert!(read == sample_bytes(length), "{delivery:?} {writing:?}: others");
            }
            if writing == Writing::InPlace {
                // A page that was not stored to is the object's, as it is when it is first looked at.
                shared.write_at(4096, b"changed").unwrap();
                let late = object.map(0..length, private).unwrap();
                assert_eq!(&late.pin(4096..4103).unwrap()[..], b"changed");
                shared.write_at(4096, &sample_bytes(length)[4096..4103]).unwrap();
            }
            own.sync(0..length).unwrap();
            drop((own, other, shared));
            object.close().unwrap();
            assert!(std::fs::read(sample.path()).unwrap() == sample_bytes(length), "the file");
            assert!(cache.events().try_next().is_none(), "nothing worth telling");
        }
    }
}

#[test]
fn a_private_mapping_of_what_was_cut_off_meanwhile_is_truncated() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), writable()).unwrap();
    let _shared = object.map(0..MIB, MapOptions::default()).unwrap();
    let private = MapOptions::new().sharing(Sharing::Private);
    let own = object.map(0..MIB, private).unwrap();
    object.set_len(8192).unwrap();
    assert_eq!(&own.pin(0..8192).unwrap()[..], sample_bytes(8192));
    let error = own.pin(8192..8200).unwrap_err();
    assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Truncated, "{error}");
}

#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}
