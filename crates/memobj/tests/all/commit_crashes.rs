//! Processes that are killed while they commit.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use memobj::{FrameSize, MapOptions, ObjectOptions, Writing};
use memobj_sim::fixture::{MIB, cache, folder};
use memobj_sim::process::full_name;

const NAME: &str = "all_pages_are_of_one_commit_that_is_not_older_than_the_last_known";
const CHILD: &str = "MEMOBJ_COMMIT_CHILD";
const PAGES: u64 = 64;
const ROUNDS: u64 = 25;
const MARKED_BYTES: u64 = PAGES * 4096;

fn atomic() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::Atomic).frames(FrameSize::Small)
}

/// Commits generation after generation, and prints each after its commit. The length tells it, too.
fn commit_for_ever(path: &str) -> ! {
    // So little memory that pages are put away uncommitted.
    let cache = cache(MIB / 8);
    let object = cache.open_file(path, atomic()).unwrap();
    let mapping = object.map(0..MARKED_BYTES, MapOptions::default()).unwrap();
    let mut first = [0; 8];
    mapping.read_at(0, &mut first).unwrap();
    for generation in u64::from_le_bytes(first) + 1.. {
        object.set_len(MARKED_BYTES + generation % 1000).unwrap();
        for page in 0..PAGES {
            mapping.write_at(page * 4096 + page * 8, &generation.to_le_bytes()).unwrap();
        }
        mapping.write_at(0, &generation.to_le_bytes()).unwrap();
        if generation % 7 == 0 {
            let dropped = mapping.discard(0..MARKED_BYTES);
            assert!(dropped.is_err(), "only whole objects are discarded: {dropped:?}");
        }
        object.commit().unwrap();
        println!("committed {generation}");
        if generation % 50 == 0 {
            object.close().unwrap();
        }
    }
    unreachable!()
}

fn number(bytes: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(bytes[at as usize..][..8].try_into().unwrap())
}

/// The generation that all pages of the file have.
fn generation_of(path: &std::path::Path, options: ObjectOptions) -> u64 {
    let object = cache(MIB).open_file(path, options).unwrap();
    let length = object.len();
    let mapping = object.map(0..length, MapOptions::default()).unwrap();
    let mut bytes = vec![0; length as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    let generation = number(&bytes, 0);
    for page in 0..PAGES {
        assert_eq!(number(&bytes, page * 4096 + page * 8), generation, "page {page}");
    }
    assert_eq!(length, MARKED_BYTES + generation % 1000);
    generation
}

#[test]
fn all_pages_are_of_one_commit_that_is_not_older_than_the_last_known() {
    if let Ok(path) = std::env::var(CHILD) {
        commit_for_ever(&path);
    }
    let seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = seed | 1;
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![0; MARKED_BYTES as usize]).unwrap();
    let mut last = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &full_name(NAME), "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = |line: &str| line.split_once("committed ")?.1.trim().parse::<u64>().ok();
        // Not before it works, mostly.
        if round % 5 > 0 {
            last = lines.by_ref().find_map(|line| told(&line.unwrap())).unwrap();
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // waits: a random moment, at which the child is killed.
        std::thread::sleep(Duration::from_micros((random >> 33) % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines.filter_map(|line| told(&line.ok()?)).last().unwrap_or(last).max(last);
        let options = match round % 3 {
            0 => atomic(),
            1 => ObjectOptions::default(),
            _ => ObjectOptions::new().writing(Writing::InPlace),
        };
        let found = generation_of(&path, options);
        assert!(found >= last, "round {round}: {last} was committed, {found} is there");
        last = found;
    }
    assert!(last > 0);
}
