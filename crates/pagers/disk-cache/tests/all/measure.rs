//! Figures, when MEMOBJ_MEASURE is set: `MEMOBJ_MEASURE=1 cargo test --release ... measure -- --nocapture`.

use std::io::Write;
use std::time::Instant;

use memobj::pagers::{File, Pager};
use memobj::{Advice, CacheOptions, FrameSize, MapOptions, ObjectOptions};

use memobj_disk_cache::{DiskCache, DiskCacheOptions};

use crate::helpers::{MIB, Versioned, directory, settle};

const LENGTH: u64 = 512 * MIB;

/// Seconds of processors that this process has used.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time in ticks, of which a second has 100.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Seconds that it takes to read all of an object in order, by the clock and of processors.
fn sequential(pager: impl Pager + 'static, frames: FrameSize) -> [f64; 2] {
    let engine = memobj::Cache::new(CacheOptions::new().budget_bytes(256 * MIB)).unwrap();
    let options = ObjectOptions::new().advice(Advice::Sequential).frames(frames);
    let object = engine.object("measured", pager, options).unwrap();
    let mapping = object.map_all(MapOptions::new()).unwrap();
    let mut buffer = vec![0; MIB as usize];
    let (start, used) = (Instant::now(), processor_seconds());
    for at in (0..LENGTH).step_by(buffer.len()) {
        mapping.read_at(at, &mut buffer).unwrap();
    }
    [start.elapsed().as_secs_f64(), processor_seconds() - used]
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
    let [cold, _] = sequential(cached(), FrameSize::Auto);
    settle(&cache);
    println!("cold {:.0} MiB/s", 512.0 / cold);
    for frames in [FrameSize::Auto, FrameSize::Small, FrameSize::Large] {
        let mut best = [[f64::MAX; 2]; 3];
        for _ in 0..7 {
            let runs =
                [sequential(local(), frames), sequential(requests(), frames), sequential(cached(), frames)];
            for (best, run) in best.iter_mut().zip(runs) {
                *best = [best[0].min(run[0]), best[1].min(run[1])];
            }
        }
        let [local, requests, cached] = best.map(|[seconds, _]| 512.0 / seconds);
        println!(
            "{frames:?} frames, MiB/s: local file {local:.0}, by requests {requests:.0}, disk cache {cached:.0}: \
             {:.2} of the file, {:.2} of requests; processor seconds {:.2?}",
            cached / local,
            cached / requests,
            best.map(|[_, used]| used)
        );
    }
}
