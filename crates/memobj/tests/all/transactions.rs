//! Changes that nobody sees before their commit, and that are there altogether or not at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memobj::{
    AccessError, Cache, Delivery, ErrorKind, FrameSize, MapOptions, Mapping, MemoryObject, ObjectOptions,
    PinHolder, Transaction, Writing,
};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, Sample, StopAtEnd, cache, sample_bytes, wait_until, within};
use memobj_sim::process::rerun_shared;
use memobj_sim::time::{passing, timeless};
use memobj_sim::writable_fixture::DELIVERIES;

const PAGE: u64 = 4096;

fn atomic() -> ObjectOptions {
    ObjectOptions::new()
        .writing(Writing::Atomic)
        .frames(FrameSize::Small)
        .visibility(memobj_sim::writable_fixture::visibility())
}

fn open_in(cache: &Cache, sample: &Sample) -> (MemoryObject, Mapping) {
    let object = cache.open_file(sample.path(), atomic()).unwrap();
    let mapping = object.map(0..object.len(), MapOptions::default()).unwrap();
    (object, mapping)
}

fn open(sample: &Sample, budget: u64) -> (Cache, MemoryObject, Mapping) {
    let cache = cache(budget);
    let (object, mapping) = open_in(&cache, sample);
    (cache, object, mapping)
}

fn read(mapping: &Mapping, at: u64) -> u8 {
    let mut byte = [0];
    mapping.read_at(at, &mut byte).unwrap();
    byte[0]
}

#[test]
fn changes_are_the_transactions_own_until_it_commits() {
    for delivery in DELIVERIES {
        let length = MIB + 777;
        let sample = Sample::new(length);
        let mut expected = sample_bytes(length).to_vec();
        let cache = cache(4 * MIB);
        let object = cache.open_file(sample.path(), atomic()).unwrap();
        let mapping = object.map(0..length, MapOptions::new().delivery(delivery)).unwrap();
        mapping.write_at(0, &[1; 10]).unwrap();
        expected[..10].fill(1);
        let mut transaction = object.begin().unwrap();
        assert!(transaction.is_unchanged());
        transaction.write_at(5, &[2; 3 * PAGE as usize]).unwrap();
        transaction.write_at(length - 3, &[3; 3]).unwrap();
        transaction.pin_mut(2 * PAGE..4 * PAGE).unwrap()[PAGE as usize..].fill(4);
        let mut seen = vec![0; length as usize];
        mapping.read_at(0, &mut seen).unwrap();
        assert!(seen == expected, "{delivery:?}: somebody sees what was not committed");
        object.commit().unwrap();
        mapping.read_at(0, &mut seen).unwrap();
        assert!(seen == expected, "{delivery:?}: a commit of others has it");
        expected[5..5 + 3 * PAGE as usize].fill(2);
        expected[length as usize - 3..].fill(3);
        expected[3 * PAGE as usize..4 * PAGE as usize].fill(4);
        transaction.read_at(0, &mut seen).unwrap();
        assert!(seen == expected, "{delivery:?}: the transaction does not see what it wrote");
        transaction.commit().unwrap();
        mapping.read_at(0, &mut seen).unwrap();
        assert!(seen == expected, "{delivery:?}: after the commit");
        // Not by a commit of the object: what was discarded is what came after.
        mapping.write_at(PAGE, &[9; 9]).unwrap();
        mapping.discard(0..length).unwrap();
        mapping.read_at(0, &mut seen).unwrap();
        assert!(seen == expected, "{delivery:?}: it was committed");
        object.close().unwrap();
        assert!(std::fs::read(sample.path()).unwrap() == expected, "{delivery:?}: the file");
        assert_eq!(cache.metrics().pinned_bytes, 0, "{delivery:?}");
    }
}

#[test]
fn what_is_rolled_back_or_dropped_has_not_been() {
    let sample = Sample::new(MIB);
    let (cache, object, mapping) = open(&sample, MIB);
    mapping.write_at(PAGE, &[1; 10]).unwrap();
    for round in 0..20 {
        let mut transaction = object.begin().unwrap();
        transaction.write_at(PAGE - 5, &[7; 20]).unwrap();
        transaction.pin_mut(10 * PAGE..12 * PAGE).unwrap().fill(7);
        match round % 2 {
            0 => transaction.rollback(),
            _ => drop(transaction),
        }
    }
    assert_eq!(cache.metrics().pinned_bytes, 0);
    object.close().unwrap();
    let mut expected = sample_bytes(MIB).to_vec();
    expected[PAGE as usize..][..10].fill(1);
    assert!(std::fs::read(sample.path()).unwrap() == expected);
}

#[test]
fn an_object_that_was_never_mapped_has_transactions_and_others_have_none() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), atomic()).unwrap();
    let mut transaction = object.begin().unwrap();
    transaction.write_at(100, b"hello").unwrap();
    drop(object);
    transaction.commit().unwrap();
    assert_eq!(
        std::fs::read(sample.path()).unwrap()[100..105],
        *b"hello",
        "the last handle puts it in place"
    );
    let in_place = atomic().writing(Writing::InPlace);
    let error = cache.open_file(sample.path(), in_place).unwrap().begin().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let told = error.to_string();
    assert!(told.ends_with("the object is not open for transactions (Writing::Atomic)"), "{told}");
}

#[test]
fn ranges_outside_are_refused_and_change_nothing() {
    let sample = Sample::new(5000);
    let (_cache, object, mapping) = open(&sample, MIB);
    let mut transaction = object.begin().unwrap();
    assert!(matches!(transaction.write_at(4999, &[1; 2]), Err(AccessError::OutOfRange { length: 5000, .. })));
    assert!(transaction.write_at(u64::MAX, &[1; 2]).is_err());
    assert!(transaction.read_at(4999, &mut [1; 2]).is_err());
    assert!(transaction.pin_mut(4999..5001).is_err());
    let reversed = std::ops::Range { start: 7, end: 3 };
    assert!(transaction.pin_mut(reversed).is_err());
    assert!(transaction.pin_mut(5000..5000).unwrap().is_empty());
    assert!(transaction.is_unchanged());
    transaction.write_at(4999, &[1]).unwrap();
    transaction.commit().unwrap();
    assert_eq!(read(&mapping, 4999), 1);
}

#[test]
fn copies_stay_within_a_quarter_of_the_budget() {
    let sample = Sample::new(4 * MIB);
    let (cache, object, _mapping) = open(&sample, MIB);
    let mut transaction = object.begin().unwrap();
    transaction.write_at(0, &vec![7; MIB as usize / 4]).unwrap();
    let mut other = object.begin().unwrap();
    for who in [&mut transaction, &mut other] {
        let error = who.write_at(2 * MIB, &[7]).unwrap_err();
        let told = "transaction: 4096 bytes more are too much, open transactions and pins for writing may hold 262144 \
                    bytes of the budget at once";
        assert_eq!(error.to_string(), told);
    }
    transaction.write_at(100, &[8; 100]).unwrap();
    assert!(cache.metrics().peak_frame_bytes <= MIB);
    transaction.commit().unwrap();
    other.write_at(2 * MIB, &[7]).unwrap();
    drop(other);
    assert!(cache.metrics().peak_frame_bytes <= MIB);
    object.close().unwrap();
    let file = std::fs::read(sample.path()).unwrap();
    assert!(file[200..MIB as usize / 4].iter().all(|byte| *byte == 7) && file[150] == 8);
    assert!(file[2 * MIB as usize..] == sample_bytes(4 * MIB)[2 * MIB as usize..]);
}

#[test]
fn a_page_is_one_transactions_and_the_others_wait_or_are_told() {
    let sample = Sample::new(MIB);
    let (cache, clock) = timeless(4 * MIB);
    let (object, mapping) = open_in(&cache, &sample);
    let mut first = object.begin().unwrap();
    first.write_at(100, &[1; 10]).unwrap();
    let mut second = object.begin().unwrap();
    second.write_at(5 * PAGE, &[2; 10]).unwrap();
    let refused = passing(&clock, || second.write_at(4000, &[2; 200]).unwrap_err());
    assert!(
        matches!(&refused, AccessError::Conflict { range, by: PinHolder::ThisThread } if *range == (0..PAGE))
    );
    assert_eq!(refused.to_string(), "[0, 4096) belongs to another open transaction of this thread");
    // Nothing of the refused write is there, also not in the page that could be had.
    assert_eq!(second.pin_mut(PAGE..PAGE + 200).unwrap()[..], sample_bytes(MIB)[4096..4296]);
    // Stores without a transaction wait as well; loads do not.
    let refused = passing(&clock, || mapping.write_at(0, &[9]).unwrap_err());
    assert!(matches!(refused, AccessError::Pinned { by: PinHolder::ThisThread, .. }), "{refused}");
    assert_eq!(read(&mapping, 100), sample_bytes(101)[100]);
    within(6, "the second writes when the first has ended", move || {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                // What the first has committed is what it starts from.
                assert_eq!(second.pin_mut(0..PAGE).unwrap()[100..110], [1; 10]);
                second.pin_mut(105..110).unwrap().fill(3);
                second.commit().unwrap();
            });
            std::thread::yield_now();
            first.commit().unwrap();
            waiting.join().unwrap();
        });
    });
    let mut bytes = [0; 10];
    mapping.read_at(100, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 1, 1, 1, 3, 3, 3, 3, 3]);
    assert_eq!(read(&mapping, 5 * PAGE), 2);
}

#[test]
fn who_closes_a_circle_of_waits_is_told_and_the_other_goes_on() {
    let sample = Sample::new(MIB);
    // Time stands still: nothing is refused for having waited.
    let (cache, _clock) = timeless(4 * MIB);
    let (object, mapping) = open_in(&cache, &sample);
    within(6, "a deadlock is seen", move || {
        let (mut first, mut second) = (object.begin().unwrap(), object.begin().unwrap());
        first.write_at(0, &[1]).unwrap();
        second.write_at(PAGE, &[2]).unwrap();
        // Whoever comes second closes the circle.
        let go_on = |mut transaction: Transaction, at, byte| match transaction.write_at(at, &[byte]) {
            Ok(()) => {
                transaction.commit().unwrap();
                Some(byte)
            }
            Err(AccessError::Deadlock { range }) => {
                assert_eq!(range, at..at + PAGE);
                transaction.rollback();
                None
            }
            Err(error) => panic!("{error}"),
        };
        let winners = std::thread::scope(|scope| {
            let one = scope.spawn(|| go_on(first, PAGE, 1));
            let two = go_on(second, 0, 2);
            [one.join().unwrap(), two]
        });
        let winner = match winners {
            [Some(byte), None] | [None, Some(byte)] => byte,
            winners => panic!("{winners:?}"),
        };
        assert_eq!((read(&mapping, 0), read(&mapping, PAGE)), (winner, winner));
    });
}

#[test]
fn plain_stores_to_a_page_of_a_transaction_come_after_it() {
    let sample = Sample::new(MIB);
    for delivery in [Delivery::InThread, Delivery::ReaderThread] {
        let cache = cache(4 * MIB);
        let object = cache.open_file(sample.path(), atomic()).unwrap();
        let Ok(mapping) = object.map(0..MIB, MapOptions::new().delivery(delivery)) else {
            println!("skipped: no userfaultfd");
            continue;
        };
        // Open to stores when the transaction takes it.
        let words = mapping.shared_words().unwrap();
        words.store(0, 5);
        let mut transaction = object.begin().unwrap();
        let mut own = transaction.pin_mut(0..PAGE).unwrap();
        assert_eq!(own[..8], 5u64.to_le_bytes());
        own[8..16].copy_from_slice(&7u64.to_le_bytes());
        let (is_stored, before) = (AtomicBool::new(false), cache.metrics().faults);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                words.store(0, 6);
                is_stored.store(true, Ordering::Release);
            });
            wait_until("the store has reached the engine", || cache.metrics().faults > before);
            assert_eq!(words.load(0), 5);
            assert!(!is_stored.load(Ordering::Acquire));
            transaction.commit().unwrap();
        });
        assert_eq!((words.load(0), words.load(1)), (6, 7));
    }
}

#[test]
fn a_commit_waits_for_pins_of_others_and_changes_nothing_if_they_stay() {
    let sample = Sample::new(MIB);
    let (cache, clock) = timeless(4 * MIB);
    let (object, mapping) = open_in(&cache, &sample);
    let mut transaction = object.begin().unwrap();
    transaction.write_at(0, &[1; 3 * PAGE as usize]).unwrap();
    let pinned = mapping.pin(PAGE..PAGE + 5).unwrap();
    // What is pinned can be committed by others, and is in no transaction's way but this one's.
    object.commit().unwrap();
    let error = passing(&clock, || transaction.commit().unwrap_err());
    assert_eq!((error.kind(), error.pinned_by()), (ErrorKind::Timeout, Some(PinHolder::ThisThread)));
    assert_eq!(error.range(), PAGE..2 * PAGE);
    assert_eq!(pinned[..], sample_bytes(MIB)[4096..4101]);
    drop(pinned);
    let mut bytes = vec![0; 3 * PAGE as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    assert!(bytes == sample_bytes(3 * PAGE), "a part of it is there");
    // Its pages are free again.
    let mut next = object.begin().unwrap();
    next.write_at(0, &[2; 3 * PAGE as usize]).unwrap();
    let pinned = mapping.pin(0..5).unwrap();
    within(6, "the commit comes when the pin has ended", move || {
        std::thread::scope(|scope| {
            let committing = scope.spawn(move || next.commit());
            std::thread::yield_now();
            assert!(pinned[..] == sample_bytes(5)[..], "a pinned page has changed");
            drop(pinned);
            committing.join().unwrap().unwrap();
        });
    });
    assert_eq!(read(&mapping, 3 * PAGE - 1), 2);
}

#[test]
fn lengths_and_discards_wait_for_the_pages_that_they_would_change() {
    let sample = Sample::new(MIB);
    let (cache, clock) = timeless(4 * MIB);
    let (object, mapping) = open_in(&cache, &sample);
    mapping.write_at(0, &[1; 10]).unwrap();
    let mut transaction = object.begin().unwrap();
    transaction.write_at(5, &[2; 1]).unwrap();
    transaction.write_at(MIB - 1, &[2; 1]).unwrap();
    let error = passing(&clock, || object.set_len(MIB / 2).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let error = passing(&clock, || mapping.discard(0..MIB).unwrap_err());
    assert!(matches!(&error, AccessError::Write(error) if error.kind() == ErrorKind::Timeout), "{error}");
    transaction.commit().unwrap();
    mapping.write_at(0, &[3; 10]).unwrap();
    mapping.discard(0..MIB).unwrap();
    assert_eq!((read(&mapping, 4), read(&mapping, 5), read(&mapping, MIB - 1)), (1, 2, 2));
    // One that has none of these pages is not asked.
    let mut transaction = object.begin().unwrap();
    transaction.write_at(8 * PAGE, &[4]).unwrap();
    object.set_len(MIB / 2).unwrap();
    mapping.write_at(0, &[5; 10]).unwrap();
    assert!(transaction.write_at(MIB - 1, &[2]).is_err(), "cut off");
    transaction.commit().unwrap();
    object.close().unwrap();
    let file = std::fs::read(sample.path()).unwrap();
    assert_eq!((file.len() as u64, file[8 * PAGE as usize], file[0]), (MIB / 2, 4, 5));
}

/// Each account has a page of its own. Transfers keep the sum.
struct Bank {
    object: MemoryObject,
    mapping: Mapping,
    accounts: u64,
}

impl Bank {
    fn transfer(&self, random: &mut Random, retried: &AtomicU64) {
        let (from, to) = (random.below(self.accounts), random.below(self.accounts));
        let amount = random.below(100);
        loop {
            let mut transaction = self.object.begin().unwrap();
            let moved = (|| {
                for (account, change) in [(from, amount.wrapping_neg()), (to, amount)] {
                    let at = account * PAGE + 8 * (account % 500);
                    let mut bytes = transaction.pin_mut(at..at + 8)?;
                    let value = u64::from_le_bytes(bytes[..].try_into().unwrap()).wrapping_add(change);
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
                Ok(())
            })();
            match moved {
                Ok(()) if random.below(5) == 0 => return transaction.rollback(),
                Ok(()) => return transaction.commit().unwrap(),
                Err(AccessError::Deadlock { .. }) => {
                    retried.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn sum(&self, bytes: &[u8]) -> u64 {
        let of = |account: u64| {
            let at = (account * PAGE + 8 * (account % 500)) as usize;
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        (0..self.accounts).map(of).fold(0, u64::wrapping_add)
    }
}

#[test]
fn transfers_between_accounts_keep_the_sum_whoever_commits_beside_them() {
    let seed = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(81_527);
    println!("seed {seed}");
    let accounts = 64;
    let sample = Sample::new(2 * accounts * PAGE);
    let (_cache, object, mapping) = open(&sample, MIB / 2);
    let bank = Bank { object: object.clone(), mapping, accounts };
    let before = bank.sum(sample_bytes(accounts * PAGE));
    let (retried, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (bank, retried) = (&bank, &retried);
                scope.spawn(move || {
                    let mut random = Random::new(seed + thread);
                    (0..300).for_each(|_| bank.transfer(&mut random, retried));
                })
            })
            .collect();
        let _end = StopAtEnd(&ended);
        // Plain stores elsewhere, spilled for want of memory, and plain commits.
        scope.spawn(|| {
            let mut random = Random::new(seed + 100);
            while !ended.load(Ordering::Relaxed) {
                let page = accounts + random.below(accounts);
                bank.mapping.write_at(page * PAGE, &random.draw().to_le_bytes()).unwrap();
                if random.below(20) == 0 {
                    bank.object.commit().unwrap();
                }
            }
        });
        // A set of pins is of one moment: no pin is given while a transaction is put in place.
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let pinned = bank.mapping.pin(0..accounts * PAGE).unwrap();
                assert_eq!(bank.sum(&pinned), before, "a pin shows a part of a transaction");
                drop(pinned);
                std::thread::yield_now();
            }
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    println!("{} transactions were begun anew", retried.load(Ordering::Relaxed));
    let mut last = vec![0; (accounts * PAGE) as usize];
    bank.mapping.read_at(0, &mut last).unwrap();
    assert_eq!(bank.sum(&last), before);
    object.close().unwrap();
    assert_eq!(bank.sum(&std::fs::read(sample.path()).unwrap()), before, "the file");
}

#[test]
fn a_plain_store_that_waited_for_a_transaction_is_not_undone_by_it() {
    let sample = Sample::new(MIB);
    let (_cache, object, mapping) = open(&sample, 4 * MIB);
    if !mapping.can_be_touched() {
        return println!("skipped: no userfaultfd");
    }
    let words = mapping.shared_words().unwrap();
    let rounds = 300u64;
    words.store(0, 0);
    let ended = AtomicBool::new(false);
    // Both store to the same page, one with transactions and one without.
    let last = std::thread::scope(|scope| {
        let storing = scope.spawn(|| {
            let numbers = (1..).take_while(|_| !ended.load(Ordering::Relaxed));
            let store = |number: &u64| {
                assert_eq!(words.load(0), number - 1, "a store was undone");
                words.store(0, *number);
            };
            numbers.inspect(store).last()
        });
        let end = StopAtEnd(&ended);
        for round in 1..=rounds {
            let mut transaction = object.begin().unwrap();
            // So many others that the store can come while they are put in place; this page is the last of them.
            transaction.pin_mut(PAGE..128 * PAGE).unwrap().fill(round as u8);
            transaction.pin_mut(8..16).unwrap().copy_from_slice(&round.to_le_bytes());
            let before = words.load(0);
            if round % 3 == 0 {
                transaction.commit().unwrap();
            }
            assert!(words.load(0) >= before, "round {round}: a store was undone");
        }
        drop(end);
        storing.join().unwrap()
    });
    assert_eq!((Some(words.load(0)), words.load(1)), (last.or(Some(0)), rounds), "a store was undone");
}

/// Pages that belong together, with so many changed ones between them that a commit comes to the second one late.
#[test]
fn a_commit_by_others_has_all_of_a_transaction_or_nothing() {
    let (pages, writers) = (1024, 6);
    let sample = Sample::new(pages * PAGE);
    let (_cache, object, mapping) = open(&sample, 32 * MIB);
    let both = |writer: u64, number: u64| {
        let mut transaction = object.begin().unwrap();
        for page in [writer, pages - 1 - writer] {
            transaction.write_at(page * PAGE, &number.to_le_bytes()).unwrap();
        }
        // It can have been discarded since: that is no error.
        transaction.commit().unwrap();
    };
    (0..writers).for_each(|writer| both(writer, 0));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (both, ended) = (&both, &ended);
            let goes_on = move |_: &u64| !ended.load(Ordering::Relaxed);
            scope.spawn(move || (1..).take_while(goes_on).for_each(|number| both(writer, number)));
        }
        let _end = StopAtEnd(&ended);
        for round in 0..300u64 {
            for page in (writers..pages - writers).step_by(3) {
                mapping.write_at(page * PAGE, &round.to_le_bytes()).unwrap();
            }
            mapping.discard(0..pages * PAGE).unwrap();
            for writer in 0..writers {
                let places = [writer, pages - 1 - writer].map(|page| page * PAGE..page * PAGE + 8);
                let pinned = mapping.pin_ranges(&places).unwrap();
                assert_eq!(
                    pinned[0][..],
                    pinned[1][..],
                    "round {round}: half of a transaction was committed"
                );
            }
        }
    });
}

#[test]
fn all_of_this_with_shared_frames() {
    rerun_shared("all_of_this_with_shared_frames");
}
