//! All changes since the last commit, or none.

use memobj::{Cache, Delivery, ErrorKind, FrameSize, MapOptions, MemoryObject, ObjectOptions, Writing};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes};

fn atomic() -> ObjectOptions {
    ObjectOptions::new()
        .writing(Writing::Atomic)
        .frames(FrameSize::Small)
        .visibility(memobj_sim::writable_fixture::visibility())
}

fn log_of(sample: &Sample) -> std::path::PathBuf {
    let mut name = sample.path().as_os_str().to_owned();
    name.push(".memobj-log");
    name.into()
}

fn open(sample: &Sample, budget: u64) -> (Cache, MemoryObject) {
    let cache = cache(budget);
    let object = cache.open_file(sample.path(), atomic()).unwrap();
    (cache, object)
}

#[test]
fn a_commit_is_seen_after_it_and_nothing_before() {
    for delivery in [Delivery::InThread, Delivery::ReaderThread, Delivery::PinOnly] {
        let length = 4 * MIB + 777;
        let sample = Sample::new(length);
        let mut committed = sample_bytes(length).to_vec();
        let (_cache, object) = open(&sample, MIB);
        let mapping = object.map(0..length, MapOptions::new().delivery(delivery)).unwrap();
        for round in 1..20u64 {
            let mut next = committed.clone();
            // More than memory holds in some rounds, so that pages are put away uncommitted.
            for step in 0..(round % 4) * 200 + 5 {
                let at = (step * 7919 + round * 104_729) % (length - 100);
                mapping.write_at(at, &[round as u8; 100]).unwrap();
                next[at as usize..][..100].fill(round as u8);
            }
            let mut read = vec![0; length as usize];
            mapping.read_at(0, &mut read).unwrap();
            assert!(read == next, "{delivery:?} round {round}: what was stored is not what is read");
            if round % 3 == 0 {
                mapping.discard(0..length).unwrap();
                mapping.read_at(0, &mut read).unwrap();
                assert!(read == committed, "{delivery:?} round {round}: discarded changes are still there");
                continue;
            }
            object.commit().unwrap();
            committed = next;
        }
        object.close().unwrap();
        drop((mapping, object));
        assert!(std::fs::read(sample.path()).unwrap() == committed, "{delivery:?}: the file at the end");
        assert!(!log_of(&sample).exists(), "nothing is left beside a file that is whole");
    }
}

#[test]
fn what_was_not_committed_is_gone_after_a_drop() {
    let sample = Sample::new(MIB);
    let (_cache, object) = open(&sample, MIB / 4);
    let mapping = object.map(0..MIB, MapOptions::default()).unwrap();
    mapping.write_at(0, &vec![7; MIB as usize]).unwrap();
    drop((mapping, object));
    assert!(std::fs::read(sample.path()).unwrap() == sample_bytes(MIB));
}

#[test]
fn lengths_are_committed_with_the_bytes() {
    let sample = Sample::new(MIB);
    let (_cache, object) = open(&sample, MIB);
    let mapping = object.map(0..MIB, MapOptions::default()).unwrap();
    mapping.write_at(5000, b"hello").unwrap();
    object.set_len(5005).unwrap();
    assert_eq!(std::fs::metadata(sample.path()).unwrap().len(), MIB, "not before the commit");
    assert!(mapping.read_at(5005, &mut [0]).is_err());
    object.commit().unwrap();
    object.set_len(3 * MIB).unwrap();
    let longer = object.map(0..3 * MIB, MapOptions::default()).unwrap();
    longer.write_at(3 * MIB - 2, b"xy").unwrap();
    object.commit().unwrap();
    object.close().unwrap();
    let mut expected = sample_bytes(5000).to_vec();
    expected.extend(b"hello");
    expected.resize(3 * MIB as usize - 2, 0);
    expected.extend(b"xy");
    assert!(std::fs::read(sample.path()).unwrap() == expected);
}

#[test]
fn committers_at_once_share_commits_and_lose_nothing() {
    let sample = Sample::new(4 * MIB);
    let (cache, object) = open(&sample, 8 * MIB);
    let mapping = object.map(0..4 * MIB, MapOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (mapping, object) = (&mapping, &object);
            scope.spawn(move || {
                for round in 0..50u64 {
                    for part in 0..4 {
                        let at = (part * 4 + thread) * 65536;
                        mapping.write_at(at, &round.to_le_bytes()).unwrap();
                    }
                    object.commit().unwrap();
                }
            });
        }
    });
    assert!(cache.metrics().written_pages >= 50 * 4);
    object.close().unwrap();
    let file = std::fs::read(sample.path()).unwrap();
    for slot in 0..16usize {
        assert_eq!(file[slot * 65536..][..8], 49u64.to_le_bytes());
    }
}

#[test]
fn a_second_opener_is_refused_and_a_reader_too() {
    let sample = Sample::new(MIB);
    let (cache, object) = open(&sample, MIB);
    let refused = cache.open_file(sample.path(), atomic()).unwrap_err();
    assert!(refused.to_string().contains("open for writing elsewhere"), "{refused}");
    let refused = cache.open_file(sample.path(), ObjectOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("open for writing elsewhere"), "{refused}");
    drop(object);
    assert!(cache.open_file(sample.path(), ObjectOptions::default()).is_ok());
}

#[test]
fn objects_without_a_log_and_pinned_pages_refuse_commits() {
    let sample = Sample::new(MIB);
    let (cache, clock) = memobj_sim::time::timeless(MIB);
    let plain = ObjectOptions::new().writing(Writing::InPlace);
    let object = cache.open_file(sample.path(), plain).unwrap();
    let error = object.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().ends_with(": the object is not open for commits (Writing::Atomic)"), "{error}");
    drop(object);
    let short = std::time::Duration::from_millis(100);
    let object = cache.open_file(sample.path(), atomic().pin_timeout(short)).unwrap();
    let mapping = object.map(0..MIB, MapOptions::default()).unwrap();
    let pinned = mapping.pin_mut(0..10).unwrap();
    let error = memobj_sim::time::passing(&clock, || object.commit()).unwrap_err();
    assert_eq!((error.kind(), error.range()), (ErrorKind::Timeout, 0..4096), "{error}");
    drop(pinned);
    object.commit().unwrap();
}

#[test]
fn a_file_that_was_removed_cannot_be_committed_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("object");
    std::fs::write(&path, sample_bytes(MIB)).unwrap();
    let cache = cache(MIB);
    let object = cache.open_file(&path, atomic()).unwrap();
    let mapping = object.map(0..MIB, MapOptions::default()).unwrap();
    mapping.write_at(0, b"x").unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(object.commit().unwrap_err().kind(), ErrorKind::Stale);
    assert_eq!(&mapping.pin(0..1).unwrap()[..], b"x", "the change is still there");
}

#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}

/// Commits `rounds` times sixteen pages at random places.
fn commit_at_random(object: &MemoryObject, mapping: &memobj::Mapping, rounds: u64, seed: &mut u64) {
    let pages = mapping.len() / 4096;
    for round in 1..=rounds {
        for _ in 0..16 {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            mapping.write_at((*seed % pages) * 4096, &[round as u8; 4096]).unwrap();
        }
        object.commit().unwrap();
    }
}

/// How many pages of the file, as anybody reads it, are not those of the object.
fn pages_that_differ(sample: &Sample, mapping: &memobj::Mapping) -> usize {
    let file = std::fs::read(sample.path()).unwrap();
    let mut wanted = vec![0; mapping.len() as usize];
    mapping.read_at(0, &mut wanted).unwrap();
    wanted.chunks(4096).zip(file.chunks(4096)).filter(|(a, b)| a != b).count()
}

#[test]
fn a_file_that_was_closed_has_every_commit_also_beside_a_checkpoint() {
    let mut seed = 99;
    println!("seed {seed}");
    // From 16 MiB of records on a thread copies in place: the close meets it at different moments.
    for extra in 0..3 {
        let sample = Sample::new(24 * MIB);
        let (_cache, object) = open(&sample, 64 * MIB);
        let mapping = object.map(0..24 * MIB, MapOptions::default()).unwrap();
        commit_at_random(&object, &mapping, 256 + 24 * extra, &mut seed);
        object.close().unwrap();
        assert_eq!(pages_that_differ(&sample, &mapping), 0, "pages that the file lacks, round {extra}");
        object.close().unwrap();
    }
}

#[test]
fn a_close_has_what_was_committed_before_it_while_others_commit() {
    let sample = Sample::new(8 * MIB);
    let (_cache, object) = open(&sample, 64 * MIB);
    let mapping = object.map(0..8 * MIB, MapOptions::default()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The second half of the file, all the time.
            let mut round = 0u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let at = 4 * MIB + round * 7919 % 1000 * 4096;
                mapping.write_at(at, &[round as u8; 4096]).unwrap();
                object.commit().unwrap();
            }
        });
        for round in 1..=20u8 {
            mapping.write_at(u64::from(round) * 40_960, &[round; 4096]).unwrap();
            object.close().unwrap();
            let file = std::fs::read(sample.path()).unwrap();
            for earlier in 1..=round {
                let at = usize::from(earlier) * 40_960;
                assert!(file[at..][..4096] == [earlier; 4096], "closed {round} times, {earlier} is missing");
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
