//! Without io_uring, reads go through threads: the same bytes and errors.

use memobj::{Advice, Cache, CacheOptions, ErrorKind, Reads};
use memobj_sim::fixture::{MIB, Reading, Sample, check_sample, ways};

fn through_threads(budget_bytes: u64) -> Cache {
    Cache::new(CacheOptions::new().budget_bytes(budget_bytes).reads(Reads::Threads)).unwrap()
}

#[test]
fn every_way_of_access_reads_right_through_threads() {
    let sample = Sample::new(10 * MIB + 1234);
    for way in ways() {
        let cache = through_threads(way.budget);
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        let mapping = object.map(0..object.len(), way.map).unwrap();
        for reading in Reading::ALL {
            let mut at = 0;
            while at < object.len() {
                let part = at..(at + 300_001).min(object.len());
                let bytes = reading.read(&mapping, part.clone()).unwrap();
                check_sample(part.clone(), &bytes, &format!("{reading:?} {}", way.label));
                at = part.end;
            }
        }
        assert!(cache.metrics().peak_frame_bytes <= way.budget, "{}", way.label);
    }
}

#[test]
fn batches_and_read_ahead_work_through_threads() {
    let sample = Sample::new(8 * MIB);
    for way in ways() {
        let cache = through_threads(way.budget.max(16 * MIB));
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        let mapping = object.map(0..object.len(), way.map).unwrap();
        let ranges: Vec<_> = (0..64).map(|index| index * 131_072..index * 131_072 + 4096).collect();
        mapping.prefetch(&ranges).unwrap();
        for (range, pinned) in ranges.iter().zip(mapping.pin_ranges(&ranges).unwrap()) {
            check_sample(range.clone(), &pinned, &way.label);
        }
        // A prefetch that comes late would fill a mapping again; another cache is surely empty.
        let cache = through_threads(way.budget.max(16 * MIB));
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        let mapping = object.map(0..object.len(), way.map).unwrap();
        mapping.advise(0..8 * MIB, Advice::Sequential).unwrap();
        let bytes = Reading::Touch.read(&mapping, 0..8 * MIB).unwrap();
        check_sample(0..8 * MIB, &bytes, &way.label);
        assert!(cache.metrics().read_ahead_pages > 0, "{}: {:?}", way.label, cache.metrics());
    }
}

#[test]
fn a_changed_file_is_stale_through_threads() {
    for way in ways() {
        let sample = Sample::new(4 * MIB);
        let cache = through_threads(way.budget);
        let object = cache.open_file(sample.path(), way.object.clone()).unwrap();
        let mapping = object.map(0..object.len(), way.map).unwrap();
        sample.file().set_len(3 * MIB).unwrap();
        for reading in Reading::ALL {
            let error = reading.read(&mapping, 2 * MIB..2 * MIB + 1).unwrap_err();
            assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Stale, "{}", way.label);
        }
    }
}
