//! Several processes in one directory, and processes that are killed.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use memobj::pagers::Bytes;
use memobj_disk_cache::{DiskCache, DiskCached};
use memobj_sim::Random;
use memobj_sim::fixture::{StopAtEnd, check_sample, sample_bytes, wait_until};
use memobj_sim::process::{part, start};

use crate::helpers::{
    BLOCK, MIB, Versioned, blocks, bytes_on_disk, count, directory, files, open, read, settle,
};

const BUDGET: u64 = 16 * MIB;
const LENGTH: u64 = 24 * MIB;
const CHARGE: u64 = BLOCK + 4096;

fn pager(cache: &DiskCache) -> DiskCached<Versioned<Bytes>> {
    cache.pager(Versioned(Bytes::new(sample_bytes(LENGTH)), "v", BLOCK), "key")
}

/// Reads at random, and checks every byte.
fn read_some(pager: &DiskCached<Versioned<Bytes>>, random: &mut Random) {
    let start = random.below(LENGTH / 4096) * 4096;
    let end = (start + (1 + random.below(64)) * 4096).min(LENGTH);
    check_sample(start..end, &read(pager, start..end), "in a child");
}

/// What a child does: reads for ever, or so many times.
fn child(part: &str) {
    let (seed, rest) = part.split_once('/').unwrap();
    let (times, directory) = rest.split_once('/').unwrap();
    let (seed, times): (u64, u64) = (seed.parse().unwrap(), times.parse().unwrap());
    let cache = open(Path::new(directory), BUDGET);
    let pager = pager(&cache);
    let mut random = Random::new(seed);
    for _ in 0..times {
        read_some(&pager, &mut random);
    }
    settle(&cache);
    assert_eq!((count(&pager, "damaged"), count(&pager, "failures")), (0, 0), "{:?}", cache);
    assert!(count(&pager, "hits") > 0 && count(&pager, "evicted_bytes") < 1 << 40);
}

/// After all have ended: nothing is left over, nothing is wrong, and the numbers are right.
fn check_directory(directory: &Path) {
    let cache = open(directory, BUDGET);
    settle(&cache);
    cache.tidy().unwrap();
    let root = directory.join("blocks");
    assert_eq!(files(&root.join("tmp")), [] as [std::path::PathBuf; 0]);
    assert_eq!(files(&root.join("removed")), [] as [std::path::PathBuf; 0]);
    let on_disk = blocks(directory).len() as u64 * CHARGE;
    assert_eq!(cache.used_bytes().unwrap(), on_disk);
    assert!(on_disk <= BUDGET, "{on_disk}");
    let pager = pager(&cache);
    let kept: Vec<u64> = blocks(directory)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    for number in &kept {
        let range = number * BLOCK..(number + 1) * BLOCK;
        check_sample(range.clone(), &read(&pager, range), "kept");
    }
    assert_eq!((count(&pager, "hits"), count(&pager, "damaged")), (kept.len() as u64, 0));
}

#[test]
fn processes_share_a_directory_within_the_budget() {
    const NAME: &str = "processes_share_a_directory_within_the_budget";
    if let Some(part) = part(NAME) {
        return child(&part);
    }
    let directory = directory();
    let path = directory.path().display();
    let mut children: Vec<_> = (0..3).map(|seed| start(NAME, &format!("{seed}/600/{path}"))).collect();
    let (most, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = StopAtEnd(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // A file that moves while it is counted can be seen twice: only what is seen again is believed.
                let look = || bytes_on_disk(directory.path());
                if look() > BUDGET {
                    most.fetch_max((0..3).map(|_| look()).min().unwrap_or(0), Ordering::Relaxed);
                }
                // What has the name of a block is one.
                for path in blocks(directory.path()) {
                    if let Ok(metadata) = path.metadata() {
                        assert_eq!(metadata.len(), BLOCK + 80, "{}", path.display());
                    }
                }
            }
        });
        for child in &mut children {
            assert!(child.wait(60).success());
        }
    });
    let most = most.into_inner();
    assert!(most <= BUDGET + 3 * CHARGE, "{most} bytes");
    check_directory(directory.path());
}

#[test]
fn processes_are_killed_at_any_moment() {
    const NAME: &str = "processes_are_killed_at_any_moment";
    if let Some(part) = part(NAME) {
        return child(&part);
    }
    let seed = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(5);
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let directory = directory();
    let path = directory.path().display();
    let mut leftovers = 0;
    for round in 0..20_u64 {
        let mut children: Vec<_> =
            (0..2).map(|child| start(NAME, &format!("{}/1000000/{path}", 2 * round + child))).collect();
        let newest = || {
            let times = blocks(directory.path());
            times.iter().filter_map(|path| path.metadata().ok()?.modified().ok()).max()
        };
        let before = newest();
        wait_until("they write", || newest() > before);
        // waits: the moment of the kill is to be any.
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        for child in &mut children {
            // One that found a wrong byte has ended by itself.
            assert_eq!(child.kill().signal(), Some(9));
        }
        leftovers += files(&directory.path().join("blocks/tmp")).len();
        assert!(bytes_on_disk(directory.path()) <= BUDGET);
        // The next ones find the directory as it is, but for every fourth time.
        if round % 4 == 3 {
            check_directory(directory.path());
        }
    }
    println!("{leftovers} files were being written");
    check_directory(directory.path());
}
