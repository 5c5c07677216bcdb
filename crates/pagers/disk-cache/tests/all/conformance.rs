//! The suite that every pager runs.

use memobj::pagers::Bytes;
use memobj_sim::conformance;
use memobj_sim::fixture::sample_bytes;

use crate::helpers::{BLOCK, MIB, Versioned, count, directory, open, read, settle};

#[test]
fn a_cold_and_a_warm_cache_conform() {
    for (length, block) in [(0, BLOCK), (1, BLOCK), (5 * MIB + 4711, BLOCK), (3 * MIB, MIB), (100_000, 4096)]
    {
        let directory = directory();
        let cache = open(directory.path(), 64 * MIB);
        let expected = sample_bytes(length);
        let make = || cache.pager(Versioned(Bytes::new(expected), "v", block), "sample");
        for _ in ["cold", "warm"] {
            conformance::run_answering(make, expected);
            settle(&cache);
        }
        let pager = make();
        if length > 0 {
            assert_eq!(read(&pager, 0..length), expected);
            assert_eq!((count(&pager, "misses"), count(&pager, "failures")), (0, 0));
            assert!(count(&pager, "hits") > 0);
        }
    }
}

/// Every request looks at the disk, and finds nothing, or what it wants.
#[test]
fn an_engine_reads_an_object_through_it() {
    let directory = directory();
    let length = 8 * MIB + 5000;
    for disk in ["cold", "warm"] {
        let cache = open(directory.path(), 64 * MIB);
        let engine = memobj_sim::fixture::cache(4 * MIB);
        let pager = cache.pager(Versioned(Bytes::new(sample_bytes(length)), "v", MIB), "sample");
        let object = engine.object("sample", pager, memobj::ObjectOptions::new()).unwrap();
        let mapping = object.map(.., memobj::MapOptions::new()).unwrap();
        for way in memobj_sim::fixture::Reading::ALL {
            let bytes = way.read(&mapping, 0..MIB).unwrap();
            memobj_sim::fixture::check_sample(0..MIB, &bytes, disk);
            for at in (0..length).step_by(100_000) {
                let range = at..(at + 10).min(length);
                memobj_sim::fixture::check_sample(range.clone(), &way.read(&mapping, range).unwrap(), disk);
            }
        }
        assert_eq!(object.version(), Some("v"));
        let counters: std::collections::BTreeMap<_, _> = object.pager_counters().into_iter().collect();
        assert_eq!(counters["inner_counter"], 7);
        match disk {
            "cold" => assert!(counters["disk_cache_misses"] >= 8),
            _ => assert_eq!(counters["disk_cache_misses"], 0),
        }
        settle(&cache);
    }
}
