//! Input that is wrong, changes, or is larger than anything: a clear error or the right bytes.

use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use memobj::pagers::{Bytes, Zero};
use memobj::{
    AccessError, Advice, Cache, CacheError, CacheOptions, ErrorKind, MapError, Mapping, ObjectOptions,
    OpenError,
};
use memobj_sim::fixture::{
    MIB, Reading, Sample, Way, cache, check_sample, folder, sample_bytes, sample_pager, ways, within,
};

fn open_error(path: impl AsRef<std::path::Path>) -> OpenError {
    cache(MIB).open_file(path, ObjectOptions::default()).unwrap_err()
}

#[test]
fn a_missing_file_is_named() {
    let error = open_error("/nonexistent/data.bin");
    assert!(
        matches!(&error, OpenError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    assert_eq!(error.to_string(), "open /nonexistent/data.bin: no such file or directory");
}

#[test]
fn a_directory_is_refused() {
    let error = open_error("/");
    assert!(matches!(error, OpenError::NotAFile { what: "a directory", .. }), "{error}");
}

#[test]
fn a_fifo_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from(0o600)).unwrap();
    let error = within(10, "opening a FIFO", move || open_error(path));
    assert!(matches!(error, OpenError::NotAFile { what: "a FIFO", .. }), "{error}");
}

#[test]
fn files_that_do_not_tell_their_length_are_no_empty_objects() {
    let cache = Cache::new(CacheOptions::default()).unwrap();
    for path in ["/proc/version", "/proc/self/maps", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        if std::fs::read(path).is_err() {
            println!("skipped: no {path}");
            continue;
        }
        assert!(matches!(open_error(path), OpenError::LengthUntold { .. }), "{path}");
        let refused = cache.open_file(path, ObjectOptions::default()).unwrap_err();
        let message = format!("open {path}: the file does not report its length, so it cannot be mapped");
        assert_eq!(refused.to_string(), message);
    }
}

#[test]
fn devices_and_sockets_are_refused() {
    let error = open_error("/dev/zero");
    assert!(matches!(error, OpenError::NotAFile { what: "a character device", .. }), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(open_error(path), OpenError::File { .. }));
}

#[test]
fn an_unreadable_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open_error(folder.path().join("a\0b")), OpenError::File { .. }));
    assert!(matches!(open_error(""), OpenError::File { .. }));
}

#[test]
fn an_empty_file_maps_and_reads_as_nothing() {
    let empty = tempfile::NamedTempFile::new_in(folder()).unwrap();
    for way in ways() {
        let cache = cache(way.budget);
        for object in [
            cache.open_file(empty.path(), way.object.clone()).unwrap(),
            cache.object("none", Bytes::new(Vec::new()), way.object.clone()).unwrap(),
            cache.object("none", Zero::new(0), way.object.clone()).unwrap(),
        ] {
            let mapping = object.map(0..0, way.map).unwrap();
            assert!(mapping.is_empty() && object.is_empty());
            assert!(mapping.pin(0..0).unwrap().is_empty(), "{}", way.label);
            for reading in Reading::ALL {
                assert!(reading.read(&mapping, 0..0).unwrap().is_empty(), "{}", way.label);
                assert!(matches!(reading.read(&mapping, 0..1), Err(AccessError::OutOfRange { .. })));
            }
            mapping.populate(0..0).unwrap();
            mapping.prefetch(&[0..0, 0..0]).unwrap();
            mapping.advise(0..0, Advice::DontNeed).unwrap();
            mapping.advise(0..0, Advice::Random).unwrap();
            assert_eq!((mapping.retry(0..0).unwrap(), mapping.errors().len()), (0, 0));
            assert!(object.map(0..1, way.map).is_err());
        }
    }
}

/// A file of two large pages and a tail, of which the first page is resident.
fn half_read(way: &Way) -> (Sample, Cache, Mapping) {
    let sample = Sample::new(4 * MIB + 100);
    let cache = cache(way.budget);
    let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
    let mapping = object.map(0..object.len(), way.map).unwrap();
    mapping.populate(way.page(0)).unwrap();
    (sample, cache, mapping)
}

/// Resident pages read as before; every other is Stale, in every way, for ever.
fn check_stale(way: &Way, mapping: &Mapping, what: &str) {
    let far = 2 * MIB / way.page;
    for reading in Reading::ALL {
        let what = format!("{what} {reading:?} {}", way.label);
        check_sample(way.page(0), &reading.read(mapping, way.page(0)).unwrap(), &what);
        for range in [way.page(far), mapping.len() - 1..mapping.len()] {
            let error = reading.read(mapping, range.clone()).expect_err(&what);
            let page_error = error.page_error().expect(&what);
            assert_eq!(page_error.kind(), ErrorKind::Stale, "{what}");
            let page = range.start / way.page * way.page;
            assert_eq!(page_error.range(), page..(page + way.page).min(mapping.len()), "{what}");
        }
    }
    assert!(mapping.retry(0..mapping.len()).unwrap() >= 2, "{what} {}", way.label);
    let error = mapping.pin(way.page(far)).expect_err(what);
    assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Stale);
}

#[test]
fn a_file_that_is_truncated_while_mapped_is_stale() {
    for way in ways() {
        for length in [0, 100, 4096, 3 * MIB, 4 * MIB] {
            let (sample, _cache, mapping) = half_read(&way);
            sample.file().set_len(length).unwrap();
            check_stale(&way, &mapping, &format!("truncated to {length}"));
        }
    }
}

#[test]
fn a_file_that_grows_while_mapped_is_stale() {
    for way in ways() {
        let (sample, _cache, mapping) = half_read(&way);
        let mut file = sample.file().try_clone().unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"more").unwrap();
        check_stale(&way, &mapping, "grown");
        assert_eq!(mapping.len(), 4 * MIB + 100);
    }
}

#[test]
fn a_file_that_is_rewritten_while_mapped_is_stale() {
    for way in ways() {
        let (sample, _cache, mapping) = half_read(&way);
        let mut file = sample.file().try_clone().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&vec![0x11; 4 << 20]).unwrap();
        check_stale(&way, &mapping, "rewritten");
    }
}

#[test]
fn a_file_that_is_replaced_or_deleted_stays_the_one_that_was_opened() {
    for way in ways() {
        let (sample, _cache, mapping) = half_read(&way);
        let other = tempfile::NamedTempFile::new_in(folder()).unwrap();
        std::fs::write(other.path(), vec![0x22; 4 << 20]).unwrap();
        std::fs::rename(other.path(), sample.path()).unwrap();
        for reading in [Reading::Copy, Reading::Touch] {
            let bytes = reading.read(&mapping, 0..4 * MIB + 100).unwrap();
            check_sample(0..4 * MIB + 100, &bytes, &way.label);
        }
        // The temporary file's guard removes what has its name now.
        let _ = other.keep();
    }
}

#[test]
fn a_file_changed_under_many_readers_is_never_a_mix() {
    for way in ways() {
        let (sample, _cache, mapping) = half_read(&way);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (mapping, way) = (&mapping, &way);
                scope.spawn(move || read_until_stale(mapping, way, thread));
            }
            let file = sample.file();
            let other = vec![0x33; 4096];
            for page in 0..1024u64 {
                std::os::unix::fs::FileExt::write_all_at(file, &other, page * 4096).unwrap();
            }
        });
    }
}

/// Every byte is the old version's, until pages are refused.
fn read_until_stale(mapping: &Mapping, way: &Way, thread: u64) {
    let mut random = memobj_sim::Random::new(thread);
    for round in 0..2000 {
        let at = random.below(4 * MIB - 10_000);
        match Reading::ALL[round % 3].read(mapping, at..at + 10_000) {
            Ok(bytes) => check_sample(at..at + 10_000, &bytes, &way.label),
            Err(AccessError::Page(error)) => {
                assert_eq!(error.kind(), ErrorKind::Stale, "{}", way.label);
                return;
            }
            Err(error) => panic!("{error}"),
        }
        mapping.advise(0..4 * MIB, Advice::DontNeed).unwrap();
    }
    panic!("{}: the change was never noticed", way.label);
}

#[test]
fn a_change_with_the_old_time_and_another_size_is_noticed() {
    for way in ways() {
        let (sample, _cache, mapping) = half_read(&way);
        let time = sample.file().metadata().unwrap().modified().unwrap();
        sample.file().set_len(4 * MIB + 99).unwrap();
        sample.file().set_modified(time).unwrap();
        check_stale(&way, &mapping, "old time");
        sample.file().set_modified(SystemTime::now() + Duration::from_secs(10)).unwrap();
    }
}

#[test]
fn budgets_of_nothing_of_a_page_and_of_more_than_memory_are_errors() {
    let make = |budget_bytes| Cache::new(CacheOptions::new().budget_bytes(budget_bytes));
    for small in [0, 1, 4096, 65_534] {
        let error = make(small).unwrap_err();
        let told = matches!(error, CacheError::BudgetTooSmall { budget_bytes, minimum_bytes: 65_536 }
            if budget_bytes == small);
        assert!(told, "{error}");
    }
    for large in [u64::MAX, u64::MAX - 4095, 1 << 60, 1 << 50] {
        let error = make(large).unwrap_err();
        assert!(matches!(error, CacheError::BudgetExceedsMemory { .. }), "{error}");
        assert!(error.to_string().contains(&large.to_string()), "{error}");
    }
    assert!(make(65_536).is_ok());
    assert!(make(65_537).is_ok());
}

#[test]
fn ranges_past_the_end_reversed_and_overflowing_are_errors() {
    for way in ways() {
        let length = 3 * way.page - 5;
        let (_cache, mapping) = way.map(sample_pager(length));
        let ends = [0, 1, length - 1, length, length + 1, way.page * 3, u64::MAX - 1, u64::MAX];
        for start in ends {
            for end in ends {
                let (range, good) = (start..end, start <= end && end <= length);
                let mut answers = vec![
                    mapping.pin(range.clone()).map(drop),
                    mapping.populate(range.clone()),
                    mapping.prefetch(std::slice::from_ref(&range)),
                    mapping.advise(range.clone(), Advice::DontNeed),
                    mapping.advise(range.clone(), Advice::Normal),
                    mapping.advise(range.clone(), Advice::WillNeed),
                    mapping.retry(range.clone()).map(drop),
                ];
                if end >= start && end - start < 8 {
                    answers.push(mapping.read_at(start, &mut vec![0; (end - start) as usize]));
                    answers.push(mapping.touch_at(start, &mut vec![0; (end - start) as usize]));
                }
                for answer in answers {
                    assert_eq!(answer.is_ok(), good, "{range:?}: {answer:?} {}", way.label);
                    assert!(good || matches!(answer, Err(AccessError::OutOfRange { .. })), "{range:?}");
                }
            }
        }
    }
}

#[test]
fn pins_larger_than_their_share_are_errors_and_leave_nothing_behind() {
    for way in ways() {
        let (cache, mapping) = way.map(Zero::new(2 * way.budget));
        let limit = way.budget - way.budget / 8;
        let error = mapping.pin(0..2 * way.budget).unwrap_err();
        let told = matches!(error, AccessError::PinsExceedBudget { wanted_bytes, limit_bytes }
            if wanted_bytes == 2 * way.budget && limit_bytes == limit);
        assert!(told, "{error}");
        let most = mapping.pin(0..limit).unwrap();
        assert!(most.iter().all(|byte| *byte == 0));
        assert!(matches!(mapping.pin(limit..limit + 1), Err(AccessError::PinsExceedBudget { .. })));
        let many: Vec<_> = (0..40).map(|page| page * way.page..page * way.page + 1).collect();
        let again = mapping.pin_ranges(&many[..8]).unwrap();
        assert_eq!(cache.metrics().pinned_bytes, limit, "{}: pinned twice, counted once", way.label);
        drop((most, again));
        assert_eq!(cache.metrics().pinned_bytes, 0, "{}", way.label);
        mapping.pin(limit..2 * limit).unwrap();
    }
}

/// Pins hold all that they may: copies and touches still get through.
#[test]
fn copies_work_while_pins_hold_all_they_may() {
    for way in ways() {
        let length = (2 * way.budget).min(24 * MIB);
        let limit = way.budget - way.budget / 8;
        let cache = cache(way.budget);
        let pinned = cache.object("pinned", Zero::new(limit), way.object.clone()).unwrap();
        let pinned = pinned.map(0..limit, way.map).unwrap();
        let most = pinned.pin(0..limit).unwrap();
        let object = cache.object("sample", sample_pager(length), way.object.clone()).unwrap();
        let mapping = object.map(0..length, way.map).unwrap();
        let label = way.label.clone();
        within(30, &way.label, move || {
            for reading in [Reading::Copy, Reading::Touch] {
                check_sample(0..length, &reading.read(&mapping, 0..length).unwrap(), &label);
            }
        });
        assert!(most.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn more_pins_of_one_page_than_fit_its_count_are_an_error() {
    let way = ways().next().unwrap();
    let (cache, mapping) = way.map(sample_pager(4096));
    let pins: Vec<_> = (0..65_534).map(|_| mapping.pin(0..1).unwrap()).collect();
    assert!(matches!(mapping.pin(0..1), Err(AccessError::TooManyPins)));
    let mut byte = [0];
    mapping.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, sample_bytes(1));
    drop(pins);
    assert_eq!(cache.metrics().pinned_bytes, 0);
    mapping.pin(0..1).unwrap();
}

#[test]
fn objects_of_absurd_length_are_errors_or_work() {
    for way in ways() {
        for length in [u64::MAX, u64::MAX - 4096, 1 << 63, 1 << 56, 1 << 47, 1 << 44] {
            let cache = cache(way.budget);
            let object = cache.object("giant", Zero::new(length), way.object.clone()).unwrap();
            match object.map(0..length, way.map) {
                Ok(mapping) => {
                    assert_eq!(Reading::Touch.read(&mapping, length - 7..length).unwrap(), [0; 7]);
                    assert_eq!(mapping.pin(length / 2..length / 2 + 9).unwrap()[..], [0; 9]);
                }
                Err(MapError::System { .. }) => assert!(length > 1 << 44, "{} {length}", way.label),
                Err(error) => panic!("{} {length}: {error}", way.label),
            }
        }
    }
}
