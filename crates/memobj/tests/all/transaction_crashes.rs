//! Processes that are killed while threads of theirs commit transactions, and one commits what it stores without.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use memobj::{FrameSize, MapOptions, MemoryObject, ObjectOptions, Writing};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, cache, folder};
use memobj_sim::process::full_name;

const NAME: &str = "each_transaction_is_there_as_a_whole_after_a_kill";
const CHILD: &str = "MEMOBJ_TRANSACTION_CHILD";
const WRITERS: u64 = 3;
/// Pages of a writer: one in each part of the object, so that a commit needs long to go from the first to the last.
const PARTS: u64 = 4;
const PART_PAGES: u64 = 500;
const PAGE: u64 = 4096;
const LENGTH: u64 = PARTS * PART_PAGES * PAGE;
const ROUNDS: u64 = 20;

fn atomic() -> ObjectOptions {
    ObjectOptions::new().writing(Writing::Atomic).frames(FrameSize::Small)
}

/// Where a writer's number is in each part.
fn places(writer: u64) -> impl Iterator<Item = u64> {
    (0..PARTS).map(move |part| (part * PART_PAGES + writer) * PAGE + 8 * writer)
}

/// Commits number after number, and prints each after its commit.
fn write_for_ever(object: &MemoryObject, writer: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut bytes = [0; 8];
    object.begin().unwrap().read_at(places(writer).next().unwrap(), &mut bytes).unwrap();
    for number in u64::from_le_bytes(bytes) + 1.. {
        let mut transaction = object.begin().unwrap();
        let last = match random.below(4) {
            0 => random.below(PARTS),
            _ => PARTS,
        };
        for (_, at) in (0..last).zip(places(writer)) {
            transaction.write_at(at, &number.to_le_bytes()).unwrap();
        }
        if last < PARTS {
            // Given up half-way.
            transaction.rollback();
            continue;
        }
        transaction.commit().unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "writer {writer} committed {number}").unwrap();
    }
}

fn run_child(path: &str, seed: u64) -> ! {
    // So little memory that pages are put away uncommitted.
    let cache = cache(MIB);
    let object = cache.open_file(path, atomic()).unwrap();
    let mapping = object.map(0..LENGTH, MapOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let object = &object;
            scope.spawn(move || write_for_ever(object, writer, seed.wrapping_add(writer)));
        }
        let mut random = Random::new(seed.wrapping_add(WRITERS));
        loop {
            for _ in 0..random.below(200) {
                let page = random.below(PARTS) * PART_PAGES + WRITERS + random.below(PART_PAGES - WRITERS);
                mapping.write_at(page * PAGE, &random.draw().to_le_bytes()).unwrap();
            }
            object.commit().unwrap();
        }
    })
}

/// The numbers that the writers have; panics if one has two.
fn numbers(path: &std::path::Path, round: u64) -> Vec<u64> {
    let object = cache(MIB).open_file(path, atomic()).unwrap();
    let mapping = object.map(0..LENGTH, MapOptions::default()).unwrap();
    let number = |at: u64| {
        let mut bytes = [0; 8];
        mapping.read_at(at, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    };
    let of_writer = |writer| {
        let found: Vec<u64> = places(writer).map(number).collect();
        assert!(found.iter().all(|number| *number == found[0]), "round {round}, writer {writer}: {found:?}");
        found[0]
    };
    (0..WRITERS).map(of_writer).collect()
}

#[test]
fn each_transaction_is_there_as_a_whole_after_a_kill() {
    let seed = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    if let Ok(path) = std::env::var(CHILD) {
        run_child(&path, seed);
    }
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![0; LENGTH as usize]).unwrap();
    let mut last = vec![0; WRITERS as usize];
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &full_name(NAME), "--nocapture"])
            .env(CHILD, &path)
            .env("MEMOBJ_SEED", random.draw().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = |line: &str| {
            let (writer, number) = line.split_once("writer ")?.1.split_once(" committed ")?;
            Some((writer.parse::<usize>().ok()?, number.trim().parse::<u64>().ok()?))
        };
        // Not before it works, mostly.
        if round % 5 > 0 {
            let (writer, number) = lines.by_ref().find_map(|line| told(&line.unwrap())).unwrap();
            last[writer] = number;
        }
        // waits: a random moment, at which the child is killed.
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        // The last line may have been cut off.
        let whole = lines.map_while(Result::ok).collect::<Vec<_>>();
        let whole = &whole[..whole.len().saturating_sub(1)];
        whole.iter().filter_map(|line| told(line)).for_each(|(writer, number)| last[writer] = number);
        let found = numbers(&path, round);
        for (found, last) in found.iter().zip(&last) {
            assert!(found >= last, "round {round}: {last} was committed, {found} is there");
        }
        last = found;
    }
    println!("last numbers {last:?}");
    assert!(last.iter().all(|number| *number > 0));
}
