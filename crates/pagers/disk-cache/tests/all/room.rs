//! The budget, and what is evicted.

use std::path::Path;

use memobj::pagers::Bytes;
use memobj_disk_cache::{DiskCache, DiskCached};
use memobj_sim::fixture::{check_sample, sample_bytes};

use crate::helpers::{
    BLOCK, MIB, Versioned, blocks, bytes_on_disk, count, directory, files, make_older, open, read, settle,
};

/// What a block counts.
const CHARGE: u64 = BLOCK + 4096;

fn pager(cache: &DiskCache, key: &str, length: u64) -> DiskCached<Versioned<Bytes>> {
    cache.pager(Versioned(Bytes::new(sample_bytes(length)), "v", BLOCK), key)
}

fn number(path: &Path) -> u64 {
    path.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// Fills the directory little by little, so that nothing is refused for want of memory.
fn fill(cache: &DiskCache, key: &str, length: u64) {
    let pager = pager(cache, key, length);
    for at in (0..length).step_by(MIB as usize) {
        let range = at..(at + MIB).min(length);
        check_sample(range.clone(), &read(&pager, range), "filling");
        settle(cache);
    }
    assert_eq!(count(&pager, "failures"), 0);
}

#[test]
fn what_was_not_used_for_the_longest_time_goes_first() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    fill(&cache, "old", 12 * MIB);
    let old = blocks(directory.path());
    assert_eq!(old.len(), 192);
    for path in &old {
        make_older(path, 100_000 - 100 * number(path));
    }
    // Uses the oldest ten.
    let warm = pager(&cache, "old", 12 * MIB);
    read(&warm, 0..10 * BLOCK);
    assert_eq!(count(&warm, "hits"), 10);
    fill(&cache, "new", 3 * MIB);
    let left: Vec<_> = blocks(directory.path());
    let numbers = |of_old: bool| {
        let is_old = |path: &&std::path::PathBuf| old.contains(path) == of_old;
        let mut numbers: Vec<_> = left.iter().filter(is_old).map(|path| number(path)).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(numbers(false), (0..48).collect::<Vec<_>>(), "all new ones are there");
    let (used, rest): (Vec<u64>, Vec<u64>) = numbers(true).into_iter().partition(|number| *number < 10);
    assert_eq!(used, (0..10).collect::<Vec<_>>(), "those that were used are there");
    // The others went in their order.
    let first = rest[0];
    assert!(first > 20, "{first}");
    assert_eq!(rest, (first..192).collect::<Vec<_>>());
    let evicted = count(&warm, "evicted_bytes");
    assert_eq!(evicted, (first - 10) * CHARGE);
    assert_eq!(cache.used_bytes().unwrap(), left.len() as u64 * CHARGE);
    assert!(bytes_on_disk(directory.path()) <= 16 * MIB);
}

/// As while another process evicts, slowly.
#[test]
fn what_does_not_fit_is_not_kept_while_nobody_evicts() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    settle(&cache);
    let turn = std::fs::File::open(directory.path().join("blocks/turn")).unwrap();
    turn.lock().unwrap();
    fill(&cache, "key", 20 * MIB);
    let most = 16 * MIB / CHARGE;
    assert_eq!(blocks(directory.path()).len() as u64, most, "as many as fit");
    assert_eq!(cache.used_bytes().unwrap(), most * CHARGE);
    drop(turn);
    fill(&cache, "other", MIB);
    let used = cache.used_bytes().unwrap();
    assert!(used < 14 * MIB, "{used}");
}

#[test]
fn folders_of_versions_that_are_gone_go_too() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    fill(&cache, "old", MIB);
    let folder = blocks(directory.path())[0].parent().unwrap().to_owned();
    blocks(directory.path()).iter().for_each(|path| make_older(path, 1000));
    fill(&cache, "new", 15 * MIB);
    assert!(!folder.exists());
}

#[test]
fn leftovers_of_the_dead_are_removed_and_do_not_count() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    fill(&cache, "key", MIB);
    let used = cache.used_bytes().unwrap();
    assert_eq!(used, 16 * CHARGE);
    let root = directory.path().join("blocks");
    // As a process leaves them that is killed while it writes, and just after it has published a block.
    std::fs::write(root.join("tmp/w-0000000000000007-3-69632"), vec![1; 5000]).unwrap();
    let block = blocks(directory.path()).remove(3);
    std::fs::hard_link(&block, root.join("tmp/w-0000000000000007-4-69632")).unwrap();
    std::fs::write(root.join("tmp/of somebody else"), "kept").unwrap();
    cache.tidy().unwrap();
    let left = files(&root.join("tmp"));
    assert_eq!(left, [root.join("tmp/of somebody else")]);
    assert!(block.exists());
    // The first one was never added, and is subtracted: the scan puts that right.
    assert_eq!(cache.used_bytes().unwrap(), used);
}

#[test]
fn the_number_of_bytes_in_use_heals() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    fill(&cache, "key", 2 * MIB);
    let usage = directory.path().join("blocks/usage");
    let good = std::fs::read(&usage).unwrap();
    for bad in [&[][..], &[0; 32], &good[..31], &[&good[..10], &[9][..], &good[11..]].concat()] {
        std::fs::write(&usage, bad).unwrap();
        assert_eq!(cache.used_bytes().unwrap(), 32 * CHARGE);
    }
    // Removed and added by hand.
    blocks(directory.path())[..10].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert_eq!(cache.used_bytes().unwrap(), 32 * CHARGE);
    cache.tidy().unwrap();
    assert_eq!(cache.used_bytes().unwrap(), 22 * CHARGE);
    let (from, to) = (blocks(directory.path())[0].clone(), blocks(directory.path())[0].with_file_name("999"));
    std::fs::copy(from, to).unwrap();
    cache.tidy().unwrap();
    assert_eq!(cache.used_bytes().unwrap(), 23 * CHARGE);
}

#[test]
fn a_smaller_budget_evicts_when_the_directory_is_opened() {
    let directory = directory();
    let cache = open(directory.path(), 64 * MIB);
    fill(&cache, "key", 20 * MIB);
    let small = open(directory.path(), 16 * MIB);
    settle(&small);
    assert!(small.used_bytes().unwrap() <= 16 * MIB);
    assert!(bytes_on_disk(directory.path()) <= 16 * MIB);
}

/// Two handles of one process are as two processes.
#[test]
fn two_handles_count_together() {
    let directory = directory();
    let (one, other) = (open(directory.path(), 16 * MIB), open(directory.path(), 16 * MIB));
    std::thread::scope(|scope| {
        for (cache, key) in [(&one, "one"), (&other, "other"), (&one, "same"), (&other, "same")] {
            scope.spawn(move || fill(cache, key, 10 * MIB));
        }
    });
    settle(&one);
    settle(&other);
    let on_disk = blocks(directory.path()).len() as u64 * CHARGE;
    assert_eq!(one.used_bytes().unwrap(), on_disk);
    assert_eq!(other.used_bytes().unwrap(), on_disk);
    assert!(on_disk <= 16 * MIB);
}

const SMALL: &str = "MEMOBJ_TEST_SMALL_DISK";

/// On a file system that is full, everything is read as before.
#[test]
fn a_disk_that_is_full_is_no_error() {
    if let Some(disk) = std::env::var_os(SMALL) {
        return fill_disk(Path::new(&disk));
    }
    let directory = directory();
    let test = memobj_sim::process::full_name("a_disk_that_is_full_is_no_error");
    let script = r#"mount -t tmpfs -o size=4m none "$1" || exit 77; exec "$2" "$3" --exact --nocapture"#;
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(SMALL, directory.path())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("was full"));
        }
        Ok(output) if matches!(output.status.code(), Some(1 | 77)) => {
            println!("skipped: this user cannot mount: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => {
            memobj_sim::process::show(&output);
            panic!("{}", output.status);
        }
        Err(error) => println!("skipped: unshare(1): {error}"),
    }
}

fn fill_disk(disk: &Path) {
    let cache = open(disk, 16 * MIB);
    let pager = pager(&cache, "key", 8 * MIB);
    for _ in 0..2 {
        check_sample(0..8 * MIB, &read(&pager, 0..8 * MIB), "on a full disk");
        settle(&cache);
    }
    assert!(count(&pager, "failures") > 0 && count(&pager, "hits") > 0);
    assert_eq!(count(&pager, "damaged"), 0);
    assert!(files(&disk.join("blocks/tmp")).is_empty());
    assert_eq!(cache.used_bytes().unwrap(), blocks(disk).len() as u64 * CHARGE);
    // There is space again.
    let some = blocks(disk);
    some[..some.len() / 2].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let before = count(&pager, "written_bytes");
    read(&pager, 0..8 * MIB);
    settle(&cache);
    assert!(count(&pager, "written_bytes") > before);
    println!("was full");
}

#[test]
fn room_as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("room_as_an_ordinary_user");
}
