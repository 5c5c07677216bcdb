//! How long commits take while what they have committed is copied in place.
//!
//! ```sh
//! cargo run --release --example commit_latency -- [seconds [pages of a commit [pause in microseconds]]]
//! ```
//!
//! Works on a file of 64 MiB in the folder for temporary files (`TMPDIR`).

use std::error::Error;
use std::time::{Duration, Instant};

use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions, Writing};

const LENGTH: u64 = 64 << 20;

/// Reads the arguments, and measures.
pub fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map_while(|number| number.parse().ok());
    let mut next = |otherwise| numbers.next().unwrap_or(otherwise);
    let (seconds, pages, pause_us) = (next(5), next(16), next(0));
    measure(Duration::from_secs(seconds), pages, Duration::from_micros(pause_us))
}

/// Commits `pages` scattered pages again and again for as long as `limit`, and prints how long the commits took.
pub fn measure(limit: Duration, pages: u64, pause: Duration) -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("memobj-commit-latency-{}", std::process::id()));
    let file = std::fs::File::create(&path)?;
    std::io::copy(&mut std::io::Read::take(std::io::repeat(7), LENGTH), &mut &file)?;
    file.sync_all()?;
    let cache = Cache::new(CacheOptions::new().budget_bytes(64 << 20))?;
    let options = ObjectOptions::new().writing(Writing::Atomic);
    let object = cache.open_file(&path, options)?;
    let mapping = object.map(0..LENGTH, MapOptions::default())?;
    let (mut took, mut random, start) = (Vec::new(), 1u64, Instant::now());
    while start.elapsed() < limit {
        for _ in 0..pages {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            mapping.write_at((random >> 20) % (LENGTH / 4096) * 4096, &random.to_le_bytes().repeat(512))?;
        }
        let begun = Instant::now();
        object.commit()?;
        took.push(begun.elapsed());
        std::thread::sleep(pause);
    }
    took.sort_unstable();
    let part = |thousandths: usize| took[(took.len() - 1) * thousandths / 1000];
    println!(
        "{} commits of {pages} pages: p50 {:?}, p90 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        took.len(),
        part(500),
        part(900),
        part(990),
        part(999),
        part(1000)
    );
    let metrics = cache.metrics();
    println!(
        "{} checkpoints took {:?}; the longest commit beside one {:?}",
        metrics.checkpoints,
        Duration::from_nanos(metrics.checkpoint_ns),
        Duration::from_nanos(metrics.longest_commit_beside_checkpoint_ns)
    );
    object.close()?;
    std::fs::remove_file(path)?;
    Ok(())
}
