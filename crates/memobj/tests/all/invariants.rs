//! The invariants of the architecture that concern reading, by their numbers there.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use memobj::pagers::{Faulty, Inject, Injection};
use memobj::{AccessError, Advice, Cache, FrameVisibility, Mapping};
use memobj_sim::fixture::{
    MIB, Reading, Sample, StopAtEnd, Way, cache, check_sample, sample_bytes, sample_pager, wait_until, ways,
    within,
};
use memobj_sim::process::{Usage, alone};
use memobj_sim::time::{only_hangs, passing_while};
use memobj_sim::{Calls, Counted, Random};

/// Reads small pieces at random and checks them; what `may_fail` is reported, never wrong.
fn read_at_random(mapping: &Mapping, seed: u64, rounds: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut failures = 0;
    for _ in 0..rounds {
        let length = 1 + random.below(9000);
        let at = random.below(mapping.len() - length);
        let reading = Reading::ALL[random.below(3) as usize];
        match reading.read(mapping, at..at + length) {
            Ok(bytes) => check_sample(at..at + length, &bytes, "read at random"),
            Err(AccessError::Page(error)) => {
                failures += 1;
                mapping.retry(0..mapping.len()).unwrap();
                assert!(error.range().start < at + length && at < error.range().end);
            }
            Err(error) => panic!("{error}"),
        }
    }
    failures
}

/// Zeros and other pages' bytes are both wrong bytes here: no two pages of the sample are alike.
#[test]
fn invariant_1_a_page_that_was_not_supplied_never_reads_as_anything() {
    for way in ways() {
        let pages = 2 * way.budget / way.page;
        let length = (pages * way.page).min(24 * MIB);
        let actions = [Inject::Error, Inject::Short, Inject::Long, Inject::Panic];
        let plan = (0..length / way.page)
            .filter(|page| page % 3 == 1)
            .map(|page| {
                Injection::new(way.page(page), actions[(page / 3 % 4) as usize])
                    .times((page % 2 == 0).then_some(2))
            })
            .collect();
        let (cache, mapping) = way.map(Faulty::new(sample_pager(length), plan, 11));
        let failures = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (mapping, failures) = (&mapping, &failures);
                scope.spawn(move || {
                    failures.fetch_add(read_at_random(mapping, seed, 150), Ordering::Relaxed);
                });
            }
        });
        assert!(failures.into_inner() > 50, "{}: {:?}", way.label, cache.metrics());
    }
}

/// Readers wait for a page while everything else of the cache goes away.
#[test]
fn invariant_1_holds_on_shutdown() {
    for way in ways() {
        let calls = Calls::default();
        let plan = vec![Injection::new(way.page(1), Inject::Delay(Duration::from_millis(40)))];
        let pager = Counted::new(Faulty::new(sample_pager(3 * way.page), plan, 0), calls.clone());
        let (cache, mapping) = way.map(pager);
        let readers: Vec<_> = (0..4)
            .map(|index| {
                let (mapping, range) = (mapping.clone(), way.page(1));
                std::thread::spawn(move || Reading::ALL[index % 3].read(&mapping, range).unwrap())
            })
            .collect();
        wait_until("the pager is asked", || calls.running() > 0);
        drop((mapping, cache));
        for reader in readers {
            check_sample(way.page(1), &reader.join().unwrap(), &way.label);
        }
        wait_until("the object is detached", || calls.detached() == 1);
    }
}

#[test]
fn invariant_2_frames_never_exceed_the_budget() {
    alone("invariant_2_frames_never_exceed_the_budget", || {
        let sample = Sample::new(24 * MIB);
        // The sample's bytes for comparison are the test's own.
        assert_eq!(sample_bytes(24 * MIB).len() as u64, 24 * MIB);
        let own = Usage::now().resident_bytes;
        for mut way in ways() {
            way.budget = if way.page == 4096 { 4 * MIB } else { 32 * MIB };
            let cache = cache(way.budget);
            let mappings: Vec<Mapping> = (0..2)
                .map(|_| cache.open_file(sample.path(), way.object.clone()).unwrap())
                .map(|object| object.map(0..object.len(), way.map).unwrap())
                .collect();
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let watcher = scope.spawn(|| watch_memory(&cache, own, &done));
                let readers: Vec<_> = (0..8)
                    .map(|seed| {
                        let mapping = &mappings[seed as usize % 2];
                        scope.spawn(move || touch_at_random(mapping, seed))
                    })
                    .collect();
                readers.into_iter().for_each(|reader| reader.join().unwrap());
                done.store(true, Ordering::Relaxed);
                watcher.join().unwrap();
            });
            let metrics = cache.metrics();
            assert!(metrics.peak_frame_bytes <= way.budget, "{}: {metrics:?}", way.label);
            assert!(metrics.evicted_pages > 0, "{}: nothing had to go: {metrics:?}", way.label);
        }
    });
}

fn touch_at_random(mapping: &Mapping, seed: u64) {
    let mut random = Random::new(seed);
    for _ in 0..1500 {
        let at = random.below(mapping.len() - 64);
        let bytes = Reading::Touch.read(mapping, at..at + 64).unwrap();
        check_sample(at..at + 64, &bytes, "touched");
    }
}

/// Whatever the process holds beyond what it had is frames within the budget, and a bounded rest.
fn watch_memory(cache: &Cache, own: u64, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let (metrics, usage) = (cache.metrics(), Usage::now());
        assert!(metrics.frame_bytes <= metrics.budget_bytes, "{metrics:?}");
        let resident = usage.resident_bytes.saturating_sub(own);
        assert!(resident <= metrics.budget_bytes + 48 * MIB, "{resident} bytes resident: {metrics:?}");
        // waits: samples a few hundred times a second.
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// What a mapping costs beside its frames: at most 8 bytes for a mapped page and 32 for a resident one.
#[test]
fn invariant_2_metadata_is_bounded() {
    alone("invariant_2_metadata_is_bounded", || {
        const LENGTH: u64 = 4 << 30;
        for way in ways().filter(|way| way.page == 4096) {
            let cache = cache(64 * MIB);
            let zeros = memobj::pagers::Zero::new(LENGTH);
            let object = cache.object("zeros", zeros, way.object.clone()).unwrap();
            let mapping = object.map(0..LENGTH, way.map).unwrap();
            Reading::Touch.read(&mapping, 0..1).unwrap();
            let before = Usage::now().anonymous_bytes;
            // One page of every mapped 2 MiB, so that every page of every table is touched.
            for at in (0..LENGTH).step_by(2 << 20) {
                Reading::Touch.read(&mapping, at..at + 1).unwrap();
            }
            let frames = cache.metrics().frame_bytes;
            let pages = LENGTH / 4096;
            let private_frames = if way.object.visibility == FrameVisibility::Local { frames } else { 0 };
            let grown = Usage::now().anonymous_bytes.saturating_sub(before).saturating_sub(private_frames);
            let bound = 8 * pages + 32 * frames / 4096 + MIB;
            assert!(grown <= bound, "{}: {grown} bytes beside the frames, bound {bound}", way.label);
        }
    });
}

#[test]
fn invariant_5_a_pin_is_never_evicted_and_never_changes() {
    let sample = Sample::new(24 * MIB);
    for way in ways() {
        let cache = cache(way.budget);
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        let mapping = object.map(0..object.len(), way.map).unwrap();
        let mut random = Random::new(3);
        // Half of what pins may hold, at random places.
        let share = way.budget * 7 / 16 / way.page;
        let mut pins = Vec::new();
        for _ in 0..share {
            let at = random.below(object.len() / way.page) * way.page + random.below(way.page - 8);
            pins.push((at, mapping.pin(at..at + 8).unwrap()));
        }
        let addresses: Vec<*const u8> = pins.iter().map(|(_, pin)| pin.as_ptr()).collect();
        let rounds = if way.page == 4096 { 3000 } else { 60 };
        std::thread::scope(|scope| {
            let stop = Arc::new(AtomicBool::new(false));
            let _stopped = StopAtEnd(&stop);
            for seed in 0..3 {
                let (mapping, stop) = (&mapping, Arc::clone(&stop));
                scope.spawn(move || {
                    for round in seed.. {
                        touch_pages(mapping, round, way.page);
                        mapping.advise(0..mapping.len(), Advice::DontNeed).unwrap();
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            wait_until("thousands of pages were evicted", || {
                pins.iter().for_each(|(at, pin)| check_sample(*at..at + 8, pin, "pinned"));
                cache.metrics().evicted_pages > rounds
            });
        });
        let now: Vec<*const u8> = pins.iter().map(|(_, pin)| pin.as_ptr()).collect();
        assert_eq!(addresses, now, "{}", way.label);
    }
}

fn touch_pages(mapping: &Mapping, seed: u64, page: u64) {
    let mut random = Random::new(seed);
    for _ in 0..200 {
        let at = random.below(mapping.len() / page) * page;
        check_sample(at..at + 1, &Reading::Touch.read(mapping, at..at + 1).unwrap(), "beside pins");
    }
}

/// The pin itself must hold when the file changes, too.
#[test]
fn invariant_5_holds_while_the_file_changes() {
    let way_count = ways().count();
    for way in ways().take(way_count) {
        let sample = Sample::new(6 * MIB);
        let cache = cache(way.budget);
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        let mapping = object.map(0..object.len(), way.map).unwrap();
        let pinned = mapping.pin(MIB..MIB + 500_000).unwrap();
        sample.file().try_clone().unwrap().write_all(&vec![0x44; 6 << 20]).unwrap();
        sample.file().sync_all().unwrap();
        mapping.advise(0..object.len(), Advice::DontNeed).unwrap();
        check_sample(MIB..MIB + 500_000, &pinned, &way.label);
    }
}

/// A pager that answers anything at all, at random, and may panic; everything ends and nothing is wrong.
#[test]
fn invariant_7_no_answer_of_a_pager_aborts_or_hangs() {
    for way in ways() {
        let length = 9 * way.page - 1;
        let kinds = [
            Inject::Error,
            Inject::Short,
            Inject::Long,
            Inject::Panic,
            Inject::Delay(Duration::from_millis(1)),
            Inject::Hang,
        ];
        let plan = kinds
            .iter()
            .cycle()
            .take(24)
            .enumerate()
            .map(|(index, action)| Injection::new(way.page(index as u64 * 5 % 9), *action).times(1))
            .collect();
        let mut way = way.timeless();
        way.object.supply_timeout = Some(Duration::from_millis(30));
        let pager = Arc::new(Faulty::new(sample_pager(length), plan, 1));
        let (cache, mapping) = way.map(Arc::clone(&pager));
        within(60, &way.label.clone(), move || {
            passing_while(
                &way.clock,
                || only_hangs(&cache, &pager),
                || {
                    let failures = read_at_random(&mapping, 2, 300);
                    assert!(failures > 0, "{}", way.label);
                    read_all(&way, &mapping);
                },
            );
            drop(pager);
            drop((mapping, cache));
        });
    }
}

/// Once the plan is used up, everything is right.
fn read_all(way: &Way, mapping: &Mapping) {
    for _ in 0..100 {
        mapping.retry(0..mapping.len()).unwrap();
        if let Ok(bytes) = Reading::Copy.read(mapping, 0..mapping.len()) {
            return check_sample(0..mapping.len(), &bytes, &way.label);
        }
    }
    panic!("{}: {:?}", way.label, mapping.last_error());
}

#[test]
fn invariant_8_the_last_handle_returns_everything() {
    alone("invariant_8_the_last_handle_returns_everything", || {
        let sample = Sample::new(6 * MIB);
        check_sample(0..1, &sample_bytes(6 * MIB)[..1], "made before counting");
        // The C library keeps a few stacks and arenas.
        (0..3).for_each(|_| use_everything(&sample));
        wait_until("only the test's threads are left", || Usage::now().threads <= 2);
        let before = Usage::now();
        (0..4).for_each(|_| use_everything(&sample));
        wait_until("only the test's threads are left", || Usage::now().threads <= 2);
        let after = Usage::now();
        assert_eq!(after.descriptors, before.descriptors);
        assert!(after.mappings <= before.mappings + 16, "{before:?} {after:?}");
        assert!(after.resident_bytes < before.resident_bytes + 2 * MIB, "{before:?} {after:?}");
    });
}

/// Each order of dropping the handles is one that users write.
fn use_everything(sample: &Sample) {
    for way in ways() {
        for order in 0..4 {
            let cache = cache(way.budget);
            let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
            let mapping = object.map(0..object.len(), way.map).unwrap();
            let pinned = mapping.pin(0..100_000).unwrap();
            Reading::Touch.read(&mapping, MIB..2 * MIB).unwrap();
            mapping.advise(3 * MIB..5 * MIB, Advice::WillNeed).unwrap();
            match order {
                0 => drop((cache, object, mapping, pinned)),
                1 => drop((pinned, mapping, object, cache)),
                2 => drop((mapping, cache, pinned, object)),
                _ => drop(std::thread::spawn(move || drop((object, pinned, cache, mapping))).join()),
            }
        }
    }
}

#[test]
fn invariant_9_works_for_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("invariant_9_works_for_an_ordinary_user");
}

#[test]
fn invariant_9_the_doctor_tells_what_is_missing() {
    for facility in memobj::doctor::report() {
        let whole = facility.status == memobj::doctor::Status::Available;
        assert!(whole || facility.fix.is_some(), "{facility:?} has no fix");
        assert!(!facility.detail.is_empty(), "{facility:?}");
    }
}
