//! Figures, when MEMOBJ_MEASURE is set: `MEMOBJ_MEASURE=1 cargo test --release ... measure -- --nocapture`.

use std::io::Write;
use std::time::Instant;

use memobj::pagers::{File, Pager};
use memobj::{Advice, CacheOptions, MapOptions, ObjectOptions};

use crate::helpers::{MIB, Versioned, count, directory, open, settle};

const LENGTH: u64 = 512 * MIB;

/// Seconds that it takes to read all of an object in order.
fn sequential(pager: impl Pager + 'static) -> f64 {
    let engine = memobj::Cache::new(CacheOptions::new().budget_bytes(256 * MIB)).unwrap();
    let object = engine.object("measured", pager, ObjectOptions::new().advice(Advice::Sequential)).unwrap();
    let mapping = object.map_all(MapOptions::new()).unwrap();
    let mut buffer = vec![0; MIB as usize];
    let start = Instant::now();
    for at in (0..LENGTH).step_by(buffer.len()) {
        mapping.read_at(at, &mut buffer).unwrap();
    }
    start.elapsed().as_secs_f64()
}

#[test]
fn measure_a_sequential_read() {
    if std::env::var_os("MEMOBJ_MEASURE").is_none() {
        return println!("skipped: MEMOBJ_MEASURE is not set");
    }
    let directory = directory();
    let path = directory.path().join("local");
    let mut file = std::fs::File::create(&path).unwrap();
    for number in 0..LENGTH / MIB {
        file.write_all(&vec![number as u8; MIB as usize]).unwrap();
    }
    file.sync_all().unwrap();
    let cache = open(directory.path(), 4 << 30);
    let local = || File::open(&path).unwrap();
    let cached = || cache.pager(Versioned(local(), "v", MIB), "measured");
    let cold = sequential(cached());
    settle(&cache);
    println!("cold {:.0} MiB/s", 512.0 / cold);
    let warm = cached();
    let mut best = [f64::MAX; 2];
    for _ in 0..7 {
        best[0] = best[0].min(sequential(local()));
        best[1] = best[1].min(sequential(cached()));
    }
    let [local, cached] = best.map(|seconds| 512.0 / seconds);
    println!("local file {local:.0} MiB/s, disk cache {cached:.0} MiB/s, ratio {:.2}", cached / local);
    assert_eq!(count(&warm, "misses"), 0);
}
