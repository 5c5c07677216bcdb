//! What an earlier user-space pager (UMap) was seen to do wrong when reading, each as a test that must pass here.

use std::time::Duration;

use memobj::pagers::{Blocking, BlockingPager, Faulty};
use memobj::{
    AccessError, Cache, CacheError, CacheOptions, ErrorKind, MapError, Mapping, ObjectOptions, SupplyError,
};
use memobj_linux::testing::{Ended, fork};
use memobj_sim::Random;
use memobj_sim::fixture::{
    MIB, Reading, Sample, Way, check_sample, sample_bytes, sample_pager, wait_until, ways, within,
};
use memobj_sim::process::{Usage, alone};

const SIGSEGV: i32 = 11;

#[test]
fn an_input_output_error_aborts() {
    for way in ways() {
        let (_cache, mapping) = way.map(Faulty::failing(sample_pager(4 * way.page), way.page(1)));
        for reading in Reading::ALL {
            let error = reading.read(&mapping, 0..4 * way.page).unwrap_err();
            // A large page names the part of it that the pager refused.
            let text = format!("supply [{}, {}) of sample: input/output error", way.page, way.page + 4096);
            assert_eq!((error.to_string(), error.range()), (text, way.page(1)), "{}", way.label);
            check_sample(way.page(2), &reading.read(&mapping, way.page(2)).unwrap(), &way.label);
        }
    }
}

/// Fills the first half of each odd page, says so, and leaves what the buffer held in the rest.
struct Halves {
    inner: memobj::pagers::Bytes,
    page: u64,
}

impl BlockingPager for Halves {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn supply(&self, range: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        let first = range.start / self.page;
        let odd = (first + 1 - first % 2) * self.page;
        let end = range.end.min(odd + self.page / 2);
        self.inner.supply(range.start..end, &mut buffer[..(end - range.start) as usize])
    }
}

#[test]
fn a_short_read_leaks_the_bytes_of_another_page() {
    for way in ways() {
        for reading in Reading::ALL {
            let halves = Halves { inner: sample_pager(6 * way.page), page: way.page };
            let (_cache, mapping) = way.map(Blocking(halves));
            for page in 0..6 {
                let mut buffer = vec![0xee; way.page as usize];
                let answer = reading.read_into(&mapping, way.page(page).start, &mut buffer);
                if page % 2 == 0 {
                    answer.unwrap();
                    check_sample(way.page(page), &buffer, &way.label);
                } else {
                    let error = answer.unwrap_err();
                    assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Truncated, "{}", way.label);
                    assert!(buffer.iter().all(|byte| *byte == 0xee), "{}: bytes leaked", way.label);
                }
            }
        }
    }
}

#[test]
fn the_offset_of_a_mapping_is_ignored() {
    let sample = Sample::new(16 * MIB);
    for way in ways() {
        let cache = memobj_sim::fixture::cache(way.budget);
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        for start in [1, 4096, 2 * MIB - 1, 5 * MIB + 77] {
            let mapping = object.map(start..start + 100_000, way.map).unwrap();
            assert_eq!(mapping.object_range(), start..start + 100_000);
            for reading in Reading::ALL {
                let bytes = reading.read(&mapping, 0..100_000).unwrap();
                check_sample(start..start + 100_000, &bytes, &way.label);
            }
        }
    }
}

#[test]
fn two_regions_over_one_file_are_incoherent() {
    let sample = Sample::new(8 * MIB);
    for way in ways() {
        let cache = memobj_sim::fixture::cache(way.budget);
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        let (one, two) =
            (object.map(0..6 * MIB, way.map).unwrap(), object.map(2 * MIB..8 * MIB, way.map).unwrap());
        let mut random = Random::new(5);
        for round in 0..300 {
            let at = random.below(4 * MIB - 5000);
            let here = Reading::ALL[round % 3].read(&one, 2 * MIB + at..2 * MIB + at + 5000).unwrap();
            let there = Reading::ALL[round / 3 % 3].read(&two, at..at + 5000).unwrap();
            assert!(here == there, "{}: the regions differ at {at}", way.label);
            check_sample(2 * MIB + at..2 * MIB + at + 5000, &here, &way.label);
        }
        // Resident in one is resident in the other.
        one.populate(3 * MIB..3 * MIB + 4096).unwrap();
        let pinned = one.pin(3 * MIB..3 * MIB + 4096).unwrap();
        let supplied = cache.metrics().supplied_pages;
        Reading::Touch.read(&two, MIB..MIB + 4096).unwrap();
        assert_eq!(cache.metrics().supplied_pages, supplied, "{}", way.label);
        drop(pinned);
    }
}

/// Sample bytes that are nobody's copy. (The allocator keeps a buffer of 6 MiB now and then, which looks like a leak.)
struct Sampled;

impl BlockingPager for Sampled {
    fn length(&self) -> u64 {
        6 * MIB
    }

    fn supply(&self, range: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        buffer.copy_from_slice(&sample_bytes(range.end)[range.start as usize..]);
        Ok(buffer.len())
    }
}

fn one_life(way: &Way, sample: &Sample) {
    let cache = memobj_sim::fixture::cache(way.budget);
    for custom in [false, true] {
        let object = match custom {
            false => cache.open_file(sample.path(), way.object.clone()).unwrap(),
            true => {
                let pager = Faulty::failing(Sampled, 5 * MIB..6 * MIB);
                cache.object("custom", Blocking(pager), way.object.clone()).unwrap()
            }
        };
        let mapping = object.map(0..object.len(), way.map).unwrap();
        let mut buffer = vec![0; 300_000];
        mapping.touch_at(MIB, &mut buffer).unwrap();
        mapping.prefetch(&[4 * MIB..4 * MIB + 9, 5 * MIB - 9..5 * MIB]).unwrap();
        let pinned = mapping.pin(2 * MIB..2 * MIB + 50_000).unwrap();
        assert_eq!(mapping.read_at(5 * MIB, &mut buffer).is_err(), custom);
        drop((object, mapping));
        check_sample(2 * MIB..2 * MIB + 50_000, &pinned, "pinned after its mapping was dropped");
    }
}

#[test]
fn unmapping_leaks_memory_descriptors_and_threads() {
    alone("unmapping_leaks_memory_descriptors_and_threads", || {
        let sample = Sample::new(6 * MIB);
        // What is made once and stays: tables, arenas of the allocator, the test's own.
        for _ in 0..3 {
            ways().for_each(|way| one_life(&way, &sample));
        }
        fill_the_cache_of_stacks();
        let before = settled();
        for _ in 0..50 {
            ways().for_each(|way| one_life(&way, &sample));
        }
        let after = settled();
        assert_eq!((after.descriptors, after.threads), (before.descriptors, before.threads));
        let grown = |now: u64, then: u64| now.saturating_sub(then);
        assert!(grown(after.resident_bytes, before.resident_bytes) < MIB, "{before:?} {after:?}");
        assert!(grown(after.virtual_bytes, before.virtual_bytes) < 8 * MIB, "{before:?} {after:?}");
        assert!(after.mappings <= before.mappings + 8, "{before:?} {after:?}");
    });
}

/// The C library keeps up to 40 MiB of stacks for threads to come, of 2 MiB each. How many threads run at once in a life is a
/// matter of chance.
fn fill_the_cache_of_stacks() {
    let together = std::sync::Barrier::new(24);
    std::thread::scope(|scope| {
        (0..24).for_each(|_| drop(scope.spawn(|| together.wait())));
    });
}

/// Threads that were joined can be seen in /proc for a moment longer.
fn settled() -> Usage {
    wait_until("only the test's threads are left", || Usage::now().threads <= 2);
    Usage::now()
}

#[test]
fn a_forked_child_reads_zeros() {
    alone("a_forked_child_reads_zeros", || {
        for way in ways() {
            let (cache, mapping) = way.map(sample_pager(3 * way.page));
            let pinned = mapping.pin(way.page(0)).unwrap();
            let words = mapping.words().unwrap();
            for (what, page) in [("resident", 0), ("absent", 1)] {
                let read = || i32::from(words.load(page * way.page / 8) == 0);
                let ended = fork(20, read).unwrap();
                assert_eq!(ended, Ended::Killed(SIGSEGV), "{what} page, {}", way.label);
            }
            let through_pin = fork(20, || i32::from(pinned[0])).unwrap();
            assert_eq!(through_pin, Ended::Killed(SIGSEGV), "{}", way.label);
            let asked = fork(20, || child_is_refused(&cache, &mapping)).unwrap();
            assert_eq!(asked, Ended::Exited(0), "{}", way.label);
            let handles = (cache.clone(), mapping.clone(), mapping.pin(way.page(0)).unwrap());
            let mut handles = Some((handles, cache, mapping, pinned));
            let dropped = fork(20, || {
                drop(handles.take());
                0
            });
            assert_eq!(dropped.unwrap(), Ended::Exited(0), "dropping in the child, {}", way.label);
            // The parent never noticed.
            let (_, _, mapping, pinned) = handles.as_ref().unwrap();
            check_sample(way.page(0), pinned, &way.label);
            check_sample(way.page(1), &Reading::Touch.read(mapping, way.page(1)).unwrap(), &way.label);
        }
    });
}

fn child_is_refused(cache: &Cache, mapping: &Mapping) -> i32 {
    let object = cache.object("new", memobj::pagers::Zero::new(4096), ObjectOptions::default()).unwrap();
    let refused = |answer: Result<(), AccessError>| matches!(answer, Err(AccessError::Detached));
    let all = refused(mapping.pin(0..1).map(drop))
        && refused(mapping.read_at(0, &mut [0]))
        && refused(mapping.touch_at(0, &mut [0]))
        && refused(mapping.populate(0..1))
        && refused(mapping.prefetch(&[0..1, 1..2]))
        && matches!(object.map(0..1, Default::default()), Err(MapError::Detached));
    i32::from(!all)
}

#[test]
fn a_child_can_map_for_itself() {
    alone("a_child_can_map_for_itself", || {
        for way in ways() {
            let (_cache, _mapping) = way.map(sample_pager(3 * way.page));
            let ended = fork(20, || {
                let (_cache, mapping) = way.map(sample_pager(3 * way.page));
                for reading in Reading::ALL {
                    check_sample(way.page(1), &reading.read(&mapping, way.page(1)).unwrap(), "child");
                }
                0
            });
            assert_eq!(ended.unwrap(), Ended::Exited(0), "{}", way.label);
        }
    });
}

#[test]
fn a_tiny_buffer_crashes_or_hangs() {
    let Err(CacheError::BudgetTooSmall { minimum_bytes, .. }) =
        Cache::new(CacheOptions::new().budget_bytes(1))
    else {
        panic!("a budget of one byte was taken")
    };
    let sample = Sample::new(2 * MIB);
    for mut way in ways().filter(|way| way.page == 4096) {
        way.budget = minimum_bytes;
        let cache = memobj_sim::fixture::cache(minimum_bytes);
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        let mapping = object.map(0..object.len(), way.map).unwrap();
        within(60, &format!("eight threads, {}", way.label), move || {
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let mapping = &mapping;
                    scope.spawn(move || tiny_reads(mapping, thread));
                }
            });
            assert!(cache.metrics().peak_frame_bytes <= minimum_bytes);
        });
    }
}

fn tiny_reads(mapping: &Mapping, thread: u64) {
    let mut random = Random::new(thread);
    for _ in 0..400 {
        let length = 1 + random.below(20_000);
        let at = random.below(mapping.len() - length);
        // Copies and touches never fail for want of room; pins may, when those of all threads are too many.
        let reading = [Reading::Copy, Reading::Touch][(at % 2) as usize];
        check_sample(at..at + length, &reading.read(mapping, at..at + length).unwrap(), "tiny");
        let at = at / 4096 * 4096;
        match mapping.pin(at..at + 1) {
            Ok(pinned) => check_sample(at..at + 1, &pinned, "tiny pin"),
            Err(AccessError::PinsExceedBudget { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn thousands_of_regions_abort() {
    alone("thousands_of_regions_abort", || {
        for way in ways() {
            let (cache, mapping) = way.map(sample_pager(3 * way.page));
            drop(mapping);
            let object = cache.object("many", sample_pager(3 * way.page), way.object.clone()).unwrap();
            let mappings: Vec<Mapping> =
                (0..100_000u64).map(|index| object.map(index % 4096..way.page, way.map).unwrap()).collect();
            for (index, mapping) in mappings.iter().enumerate().step_by(9973) {
                let start = index as u64 % 4096;
                let bytes = Reading::ALL[index % 3].read(mapping, 0..4).unwrap();
                check_sample(start..start + 4, &bytes, &way.label);
            }
        }
    });
}

#[test]
fn thousands_of_objects_abort() {
    alone("thousands_of_objects_abort", || {
        // So that objects with a file of frames come to the limit.
        let few = rustix::process::Rlimit { current: Some(2000), maximum: Some(2000) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
        for way in ways() {
            let cache = memobj_sim::fixture::cache(way.budget);
            let (mut mappings, mut refused) = (Vec::new(), None);
            for index in 0..5000u64 {
                let object = cache.object("one of many", sample_pager(5000), way.object.clone()).unwrap();
                match object.map(0..5000, way.map) {
                    Ok(mapping) => mappings.push(mapping),
                    Err(error @ (MapError::System { .. } | MapError::TooManyObjects { .. })) => {
                        println!("{}: object {index}: {error}", way.label);
                        refused = Some(error);
                        break;
                    }
                    Err(error) => panic!("object {index}: {error}"),
                }
            }
            assert!(mappings.len() >= 1900, "{}: only {} objects", way.label, mappings.len());
            for (index, mapping) in mappings.iter().enumerate().step_by(257) {
                let bytes = Reading::ALL[index % 3].read(mapping, 4000..5000).unwrap();
                check_sample(4000..5000, &bytes, &way.label);
            }
            drop(mappings);
            let object = cache.object("after", sample_pager(5000), way.object.clone()).unwrap();
            let mapping = object.map(0..5000, way.map);
            assert!(mapping.is_ok(), "{}: after {refused:?} was cleared away: {mapping:?}", way.label);
        }
    });
}

#[test]
fn bad_arguments_abort() {
    for way in ways() {
        let (cache, mapping) = way.map(sample_pager(3 * way.page));
        let object = cache.object("sample", sample_pager(100), way.object.clone()).unwrap();
        #[allow(clippy::reversed_empty_ranges, reason = "what is tested")]
        for range in [5..4, 0..101, 101..101, u64::MAX..u64::MAX, 50..u64::MAX, u64::MAX..0] {
            let error = object.map(range.clone(), way.map).unwrap_err();
            assert!(matches!(error, MapError::OutOfRange { .. }), "{range:?}: {error}");
        }
        assert!(mapping.retry(0..u64::MAX).is_err());
        assert!(mapping.read_at(u64::MAX, &mut [0; 2]).is_err());
        assert_eq!(Reading::ALL.map(|way| way.read(&mapping, 7..7).unwrap().len()), [0; 3]);
    }
    let none = Cache::new(CacheOptions::new().workers(0).event_capacity(0)).unwrap();
    let object = none.object("sample", Faulty::failing(sample_pager(8192), 4096..8192), Default::default());
    let mapping = object.unwrap().map(0..8192, Default::default()).unwrap();
    check_sample(0..4096, &mapping.pin(0..4096).unwrap(), "no workers asked for");
    assert!(mapping.pin(0..8192).is_err());
    assert!(none.events().next_within(Duration::ZERO).is_none());
}

#[test]
fn an_ordinary_user_aborts() {
    memobj_sim::process::rerun_as_ordinary_user("an_ordinary_user_aborts");
}
