//! The invariants of stores, by their numbers in ARCHITECTURE.md.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use memobj::pagers::{Inject, Operation};
use memobj::{Advice, Delivery, ErrorKind, Mapping};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, wait_until, wait_until_clean, within};
use memobj_sim::writable_fixture::{DELIVERIES, WritableFixture, is_all, mapped, writable};

const PAGE: u64 = 4096;

fn in_each_delivery(body: impl Fn(Delivery) + Send + Copy + 'static) {
    for delivery in DELIVERIES {
        within(60, &format!("{delivery:?}"), move || body(delivery));
    }
}

/// Stores `value` to the eight bytes at `at` by the way number `way`.
fn store(mapping: &Mapping, way: u64, at: u64, value: u64) {
    match way % 3 {
        0 if mapping.can_be_touched() => match mapping.shared_words() {
            Ok(words) => words.store(at / 8, value),
            // Somebody pins for writing.
            Err(_) => mapping.write_at(at, &value.to_le_bytes()).unwrap(),
        },
        1 => match mapping.pin_mut(at..at + 8) {
            Ok(mut pinned) => pinned.copy_from_slice(&value.to_le_bytes()),
            Err(_) => mapping.write_at(at, &value.to_le_bytes()).unwrap(),
        },
        _ => mapping.write_at(at, &value.to_le_bytes()).unwrap(),
    }
}

/// Loads the eight bytes at `at` by the way number `way`.
fn load(mapping: &Mapping, way: u64, at: u64) -> u64 {
    let mut bytes = [0; 8];
    match way % 4 {
        0 if mapping.can_be_touched() => match mapping.shared_words() {
            Ok(words) => return words.load(at / 8),
            Err(_) => mapping.read_at(at, &mut bytes).unwrap(),
        },
        1 => bytes.copy_from_slice(&mapping.pin(at..at + 8).unwrap()),
        2 if mapping.can_be_touched() => mapping.touch_at(at, &mut bytes).unwrap(),
        _ => mapping.read_at(at, &mut bytes).unwrap(),
    }
    u64::from_le_bytes(bytes)
}

#[test]
fn invariant_3_dirty_bytes_survive_every_pressure_while_nothing_can_be_written() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, 8 * MIB, writable());
        fixture.inject(Operation::WriteBack, 0..8 * MIB, Inject::Fail(ErrorKind::NoSpace), None);
        for page in 0..64 {
            store(&fixture.mapping, page, page * 3 * PAGE, page | 1 << 40);
        }
        for round in 0..4 {
            fixture.mapping.advise(0..8 * MIB, Advice::DontNeed).unwrap();
            for at in (MIB..8 * MIB).step_by(65_536) {
                fixture.mapping.prefetch(std::slice::from_ref(&(at..at + 65_536))).unwrap();
                fixture.mapping.populate(at..at + 65_536).unwrap();
            }
            assert!(fixture.object.sync().is_err());
            for page in 0..64 {
                assert_eq!(
                    load(&fixture.mapping, page + round, page * 3 * PAGE),
                    page | 1 << 40,
                    "{delivery:?}"
                );
            }
        }
        fixture.pager.heal(Operation::WriteBack);
        fixture.object.close().unwrap();
        let durable = fixture.disk.durable();
        for page in 0..64u64 {
            let at = (page * 3 * PAGE) as usize;
            assert_eq!(durable[at..at + 8], (page | 1 << 40).to_le_bytes(), "{delivery:?} page {page}");
        }
    });
}

/// A store that comes while the page is on its way to the pager is newer than what arrives there.
#[test]
fn invariant_3_a_store_during_a_write_is_written_too() {
    in_each_delivery(|delivery| {
        for way in 0..3 {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            fixture.mapping.write_at(0, &[1; 4096]).unwrap();
            let gate = fixture.disk.hold_write();
            std::thread::scope(|scope| {
                let sync = scope.spawn(|| fixture.mapping.sync(0..PAGE));
                wait_until("the write is under way", || fixture.disk.arrived() == 1);
                store(&fixture.mapping, way, 64, 0x0202_0202_0202_0202);
                assert_eq!(load(&fixture.mapping, way, 64), 0x0202_0202_0202_0202);
                gate.open();
                sync.join().unwrap().unwrap();
            });
            fixture.mapping.advise(0..MIB, Advice::DontNeed).unwrap();
            assert_eq!(load(&fixture.mapping, 3, 64), 0x0202_0202_0202_0202, "{delivery:?} way {way}");
            fixture.mapping.sync(0..MIB).unwrap();
            assert!(is_all(&fixture.disk.durable(), 64..72, 2), "{delivery:?} way {way}");
            assert!(is_all(&fixture.disk.durable(), 72..4096, 1) && !fixture.disk.overlapped());
        }
    });
}

/// What the cleaner has under way is part of what a sync makes durable.
#[test]
fn invariant_4_a_sync_waits_for_writes_of_others() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        let gate = fixture.disk.hold_write();
        // Above the soft target: the cleaner writes.
        fixture.mapping.write_at(0, &[7; 300_000]).unwrap();
        wait_until("the cleaner's write is under way", || fixture.disk.arrived() == 1);
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| fixture.mapping.sync(0..MIB));
            // waits: a sync that does not wait for the write is to have the time to say so.
            std::thread::sleep(Duration::from_millis(50));
            gate.open();
            sync.join().unwrap().unwrap();
        });
        assert!(is_all(&fixture.disk.durable(), 0..300_000, 7), "{delivery:?}");
    });
}

/// A store to an absent page is woken as soon as the page is in place; a sync right behind it finds the page Dirty.
#[test]
fn invariant_4_a_store_that_has_returned_is_part_of_the_next_sync() {
    for delivery in [Delivery::InThread, Delivery::ReaderThread] {
        let fixture = WritableFixture::new(delivery, MIB, 2 * MIB, writable());
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            // Others that run make it likelier that the store's thread is first.
            for _ in 0..3 {
                scope.spawn(|| {
                    while busy.load(Ordering::Relaxed) {
                        std::hint::spin_loop()
                    }
                });
            }
            let words = fixture.mapping.shared_words().unwrap();
            for page in (0..512).rev() {
                words.store(page * 512, 0x0303_0303_0303_0303);
                fixture.mapping.sync(page * PAGE..(page + 1) * PAGE).unwrap();
                let durable = fixture.disk.durable();
                let is_there = is_all(&durable, page * PAGE..page * PAGE + 8, 3);
                if !is_there {
                    busy.store(false, Ordering::Relaxed);
                }
                assert!(is_there, "{delivery:?}: page {page} was synced without its store");
            }
            busy.store(false, Ordering::Relaxed);
        });
    }
}

#[test]
fn invariant_5_a_store_is_never_lost_by_eviction() {
    let seed = 0x5eed_0005;
    println!("seed {seed}");
    for delivery in DELIVERIES {
        let fixture = WritableFixture::new(delivery, MIB / 2, 2 * MIB, writable());
        let stop = AtomicBool::new(false);
        let counts: Vec<Vec<u64>> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fixture.mapping.advise(0..2 * MIB, Advice::DontNeed).unwrap();
                    std::thread::yield_now();
                }
            });
            let fixture = &fixture;
            let count = move |thread: u64| {
                let (mut random, mut counts) = (Random::new(seed + thread), vec![0; 256]);
                for step in 0..4000 {
                    let slot = random.below(256);
                    // Neighbours in one page belong to different threads.
                    let at = slot * 8192 + thread * 8;
                    let before = load(&fixture.mapping, step, at);
                    assert!(counts[slot as usize] == 0 || before == counts[slot as usize], "{delivery:?}");
                    counts[slot as usize] = thread << 32 | step | 1 << 60;
                    store(&fixture.mapping, step / 2, at, counts[slot as usize]);
                }
                counts
            };
            let threads: Vec<_> = (0..3).map(|thread| scope.spawn(move || count(thread))).collect();
            let counts = threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>();
            stop.store(true, Ordering::Relaxed);
            counts.into_iter().map(|counts| counts.unwrap()).collect()
        });
        fixture.object.close().unwrap();
        let durable = fixture.disk.durable();
        for (thread, counts) in counts.iter().enumerate() {
            for (slot, count) in counts.iter().enumerate().filter(|(_, count)| **count != 0) {
                let at = slot * 8192 + thread * 8;
                assert_eq!(durable[at..at + 8], count.to_le_bytes(), "{delivery:?} {thread} {slot}");
            }
        }
        assert!(!fixture.disk.overlapped(), "two writes of one page at once");
        assert!(fixture.cache.metrics().evicted_pages > 0);
    }
}

/// A page that is Dirty and open to stores is pinned: from then on no way of storing changes it.
#[test]
fn invariant_5_a_pinned_page_never_changes_under_any_store() {
    in_each_delivery(|delivery| {
        for way in 0..3 {
            for written in [false, true] {
                let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
                store(&fixture.mapping, way, 4096, 1);
                if written {
                    fixture.mapping.sync(0..MIB).unwrap();
                    store(&fixture.mapping, way, 4096, 1);
                }
                let stored = AtomicU64::new(0);
                std::thread::scope(|scope| {
                    let pinned = fixture.mapping.pin(4096..8192).unwrap();
                    scope.spawn(|| {
                        store(&fixture.mapping, way, 4096, 2);
                        stored.store(1, Ordering::SeqCst);
                    });
                    // A sync beside the pin changes nothing about it.
                    fixture.mapping.sync(0..MIB).unwrap();
                    fixture.mapping.advise(0..MIB, Advice::DontNeed).unwrap();
                    // waits: the store is not to come, however long.
                    std::thread::sleep(Duration::from_millis(60));
                    assert_eq!((pinned[0], stored.load(Ordering::SeqCst)), (1, 0), "{delivery:?} way {way}");
                    drop(pinned);
                });
                assert_eq!(load(&fixture.mapping, 3, 4096), 2, "{delivery:?} way {way}");
            }
        }
    });
}

/// A page pinned for writing is neither evicted nor written half-way; a sync waits for the pin.
#[test]
fn invariant_5_a_page_pinned_for_writing_is_not_written_before_the_pin_ends() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.write_at(0, &[1; 8192]).unwrap();
        let mut pinned = fixture.mapping.pin_mut(0..PAGE).unwrap();
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| fixture.mapping.sync(0..MIB));
            wait_until("the other page is written", || !fixture.disk.writes().is_empty());
            for byte in 0..PAGE as usize {
                pinned[byte] = 2;
            }
            assert!(is_all(&fixture.disk.live(), PAGE..2 * PAGE, 1), "{delivery:?}");
            assert!(fixture.disk.writes().iter().all(|range| range.start >= PAGE), "{delivery:?}");
            drop(pinned);
            sync.join().unwrap().unwrap();
        });
        assert!(is_all(&fixture.disk.durable(), 0..PAGE, 2), "{delivery:?}");
    });
}

#[test]
fn invariant_6_another_mapping_sees_stores_at_once_by_every_way() {
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, 4 * MIB, writable());
        let other = fixture.object.map(8 * PAGE..MIB + PAGE, mapped(delivery)).unwrap();
        let mut value = 1;
        for at in (0..MIB / 2).step_by(20_000).map(|at| at / 8 * 8) {
            for way in 0..12 {
                value += 1;
                store(&fixture.mapping, way / 4, 8 * PAGE + at, value);
                assert_eq!(load(&other, way, at), value, "{delivery:?} way {way}");
                value += 1;
                store(&other, way / 4, at, value);
                assert_eq!(load(&fixture.mapping, way, 8 * PAGE + at), value, "{delivery:?} way {way}, back");
            }
        }
        // What one has stored the other syncs and discards.
        other.sync(0..other.len()).unwrap();
        wait_until_clean(&fixture.cache);
        fixture.mapping.write_at(8 * PAGE, &[9; 4096]).unwrap();
        assert_eq!(other.discard(0..PAGE).unwrap(), 1);
        assert_ne!(fixture.mapping.pin(8 * PAGE..8 * PAGE + 8).unwrap()[..], [9; 8]);
    });
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}

#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}
