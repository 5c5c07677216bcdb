//! Figures, when MEMOBJ_MEASURE is set: `MEMOBJ_MEASURE=1 cargo test --release ... measure -- --nocapture`.

use std::io::Write;
use std::time::Instant;

use memobj::pagers::{File, Pager};
use memobj::{Advice, CacheOptions, FrameSize, MapOptions, ObjectOptions};

use memobj_disk_cache::{DiskCache, DiskCacheOptions};

use crate::helpers::{MIB, Versioned, directory, settle};

const LENGTH: u64 = 512 * MIB;

/// Seconds that it takes to read all of an object in order.
fn sequential(pager: impl Pager + 'static, frames: FrameSize) -> f64 {
    let engine = memobj::Cache::new(CacheOptions::new().budget_bytes(256 * MIB)).unwrap();
    let options = ObjectOptions::new().advice(Advice::Sequential).frames(frames);
    let object = engine.object("measured", pager, options).unwrap();
    let mapping = object.map_all(MapOptions::new()).unwrap();
    let mut buffer = vec![0; MIB as usize];
    let start = Instant::now();
    for at in (0..LENGTH).step_by(buffer.len()) {
        mapping.read_at(at, &mut buffer).unwrap();
    }
    start.elapsed().as_secs_f64()
}

/// A local file, which the engine reads by itself; the same file behind requests; and blocks in a disk cache.
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
    let threads = std::env::var("MEMOBJ_THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(2);
    let options = DiskCacheOptions::new().threads(threads);
    let cache = DiskCache::open(directory.path().join("blocks"), options).unwrap();
    let local = || File::open(&path).unwrap();
    let requests = || Versioned(local(), "v", MIB);
    let cached = || cache.pager(requests(), "measured");
    let cold = sequential(cached(), FrameSize::Auto);
    settle(&cache);
    println!("cold {:.0} MiB/s", 512.0 / cold);
    for frames in [FrameSize::Auto, FrameSize::Small, FrameSize::Large] {
        let mut best = [f64::MAX; 3];
        for _ in 0..5 {
            best[0] = best[0].min(sequential(local(), frames));
            best[1] = best[1].min(sequential(requests(), frames));
            best[2] = best[2].min(sequential(cached(), frames));
        }
        let [local, requests, cached] = best.map(|seconds| 512.0 / seconds);
        println!(
            "{frames:?} frames, MiB/s: local file {local:.0}, by requests {requests:.0}, disk cache {cached:.0}: \
             {:.2} of the file, {:.2} of requests",
            cached / local,
            cached / requests
        );
    }
}
