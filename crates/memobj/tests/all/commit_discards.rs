//! Back to the last commit: all of it, or nothing.

use memobj::{
    AccessError, Cache, ErrorKind, FrameSize, MapOptions, Mapping, MemoryObject, ObjectOptions, Writing,
};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes};

fn open(sample: &Sample, budget: u64) -> (Cache, MemoryObject, Mapping) {
    open_in(cache(budget), sample)
}

fn open_in(cache: Cache, sample: &Sample) -> (Cache, MemoryObject, Mapping) {
    let options = ObjectOptions::new().writing(Writing::Atomic).frames(FrameSize::Small);
    let object = cache.open_file(sample.path(), options).unwrap();
    let mapping = object.map(0..object.len(), MapOptions::default()).unwrap();
    (cache, object, mapping)
}

fn all(mapping: &Mapping) -> Vec<u8> {
    let mut bytes = vec![0; mapping.len() as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    bytes
}

fn times_out(discarded: Result<u64, AccessError>) {
    let error = discarded.unwrap_err();
    assert!(matches!(&error, AccessError::Write(error) if error.kind() == ErrorKind::Timeout), "{error}");
}

#[test]
fn what_was_cut_off_is_back() {
    for cut in [5005, 8192, 0] {
        let sample = Sample::new(MIB);
        let (_cache, object, mapping) = open(&sample, 4 * MIB);
        object.set_len(cut).unwrap();
        // Read as it is now: with zeros behind the cut.
        object.set_len(MIB).unwrap();
        assert!(all(&mapping)[cut as usize..].iter().all(|byte| *byte == 0));
        mapping.discard(0..object.len()).unwrap();
        assert!(all(&mapping) == sample_bytes(MIB), "cut at {cut}, extended, discarded");
        object.set_len(cut).unwrap();
        if cut > 0 {
            assert!(mapping.pin(0..cut).is_ok());
        }
        assert!(mapping.read_at(cut, &mut [0]).is_err());
        mapping.discard(0..object.len()).unwrap();
        assert_eq!(object.len(), MIB);
        assert!(all(&mapping) == sample_bytes(MIB), "cut at {cut}, discarded");
        object.commit().unwrap();
        drop((mapping, object));
        assert!(std::fs::read(sample.path()).unwrap() == sample_bytes(MIB));
    }
}

#[test]
fn touched_addresses_behind_a_cut_do_not_trap_after_it() {
    let sample = Sample::new(MIB);
    let (_cache, object, mapping) = open(&sample, 4 * MIB);
    if !mapping.can_be_touched() {
        return println!("skipped: no userfaultfd");
    }
    object.set_len(4096).unwrap();
    assert!(mapping.touch_at(8192, &mut [0]).is_err());
    mapping.discard(0..object.len()).unwrap();
    let mut bytes = vec![0; 4096];
    mapping.touch_at(8192, &mut bytes).unwrap();
    assert!(bytes == sample_bytes(MIB)[8192..12288]);
}

#[test]
fn what_was_added_is_gone() {
    let sample = Sample::new(MIB);
    let (cache, object, mapping) = open(&sample, 4 * MIB);
    object.set_len(2 * MIB).unwrap();
    let longer = object.map(0..2 * MIB, MapOptions::default()).unwrap();
    longer.write_at(MIB + 5, b"hello").unwrap();
    let _ = all(&longer);
    longer.discard(0..2 * MIB).unwrap();
    assert_eq!(object.len(), MIB);
    assert!(longer.read_at(MIB, &mut [0]).is_err());
    assert!(all(&mapping) == sample_bytes(MIB));
    assert!(cache.metrics().frame_bytes <= MIB, "frames behind the end are given back");
    object.set_len(2 * MIB).unwrap();
    assert!(all(&longer)[MIB as usize..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_pin_keeps_everything_as_it_is() {
    let sample = Sample::new(MIB);
    // So little memory that most is put away in the log.
    let (cache, clock) = memobj_sim::time::timeless(MIB / 4);
    let (_cache, object, mapping) = open_in(cache, &sample);
    mapping.write_at(0, &vec![7; MIB as usize]).unwrap();
    for page in [0, 100, 255] {
        let pinned = mapping.pin(page * 4096..(page + 1) * 4096).unwrap();
        times_out(memobj_sim::time::passing(&clock, || mapping.discard(0..MIB)));
        assert!(all(&mapping).iter().all(|byte| *byte == 7), "page {page} is pinned: nothing is dropped");
        assert!(pinned.iter().all(|byte| *byte == 7));
    }
    assert!(mapping.discard(0..MIB).unwrap() > 0);
    assert!(all(&mapping) == sample_bytes(MIB));
    object.commit().unwrap();
    drop((mapping, object));
    assert!(std::fs::read(sample.path()).unwrap() == sample_bytes(MIB));
}

#[test]
fn readers_beside_it_leave_nothing_old_behind() {
    let sample = Sample::new(MIB);
    let (_cache, object, mapping) = open(&sample, MIB / 4);
    let committed = sample_bytes(MIB);
    for round in 0..10u8 {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut bytes = vec![0; 65536];
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        for at in (0..MIB).step_by(65536) {
                            mapping.read_at(at, &mut bytes).unwrap();
                        }
                    }
                });
            }
            mapping.write_at(0, &vec![round; MIB as usize]).unwrap();
            let discarded = mapping.discard(0..object.len());
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            discarded.unwrap();
        });
        assert!(all(&mapping) == committed, "round {round}");
    }
    object.commit().unwrap();
}
