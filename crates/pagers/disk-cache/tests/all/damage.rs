//! Whatever happens to the directory, the bytes are right.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use memobj::pagers::Bytes;
use memobj::{Event, ObjectOptions};
use memobj_disk_cache::{DiskCache, DiskCacheOptions, DiskCached};
use memobj_sim::fixture::{check_sample, sample_bytes, wait_until};

use crate::helpers::{BLOCK, MIB, Versioned, blocks, count, directory, files, open, read, settle};

const LENGTH: u64 = 3 * BLOCK + 777;

fn pager(cache: &DiskCache, version: &'static str) -> DiskCached<Versioned<Bytes>> {
    cache.pager(Versioned(Bytes::new(sample_bytes(LENGTH)), version, BLOCK), "sample")
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn cut(path: &Path, length: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// A way to damage a block, by its file, the file of another block, and that of the same block of another version.
type Damage = Box<dyn Fn(&Path, &Path, &Path)>;

/// Ways to damage a block.
fn damages() -> Vec<(String, Damage)> {
    let mut all: Vec<(String, Damage)> = Vec::new();
    let fields = [0, 7, 8, 12, 16, 47, 48, 55, 56, 63, 64, 71, 72, 79].map(|field| BLOCK + field);
    for at in [0, 1, 4095, 4096, BLOCK / 2, BLOCK - 1].into_iter().chain(fields) {
        all.push((format!("byte {at}"), Box::new(move |path, _, _| flip(path, at))));
    }
    for length in [0, 1, 4096, BLOCK - 1, BLOCK, BLOCK + 79, BLOCK + 81, 2 * BLOCK] {
        all.push((format!("length {length}"), Box::new(move |path, _, _| cut(path, length))));
    }
    let copy = |from: &Path, to: &Path| assert!(std::fs::copy(from, to).unwrap() > 0);
    all.push(("another block".into(), Box::new(move |path, other, _| copy(other, path))));
    all.push(("another version".into(), Box::new(move |path, _, old| copy(old, path))));
    let zeros = |path: &Path, _: &Path, _: &Path| std::fs::write(path, vec![0; BLOCK as usize + 80]).unwrap();
    all.push(("zeros".into(), Box::new(zeros)));
    let replace = |with: fn(&Path, &Path)| -> Damage {
        Box::new(move |path, other, _| {
            std::fs::remove_file(path).unwrap();
            with(path, other);
        })
    };
    all.push(("a folder".into(), replace(|path, _| std::fs::create_dir(path).unwrap())));
    let link = |path: &Path, other: &Path| std::os::unix::fs::symlink(other, path).unwrap();
    all.push(("a link".into(), replace(link)));
    let pipe = |path: &Path, _: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    };
    all.push(("a pipe".into(), replace(pipe)));
    all
}

#[test]
fn a_damaged_block_is_a_miss_and_is_kept_anew() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    read(&pager(&cache, "old"), 0..LENGTH);
    settle(&cache);
    let old = blocks(directory.path());
    read(&pager(&cache, "v"), 0..LENGTH);
    settle(&cache);
    let ours: Vec<_> = blocks(directory.path()).into_iter().filter(|path| !old.contains(path)).collect();
    assert_eq!((old.len(), ours.len()), (4, 4));
    for (what, damage) in damages() {
        damage(&ours[1], &ours[2], &old[1]);
        let pager = pager(&cache, "v");
        check_sample(0..LENGTH, &read(&pager, 0..LENGTH), &what);
        assert_eq!((count(&pager, "hits"), count(&pager, "misses")), (3, 1), "{what}");
        assert_eq!((count(&pager, "damaged"), count(&pager, "failures")), (1, 0), "{what}");
        settle(&cache);
        assert_eq!(count(&pager, "written_bytes"), BLOCK, "{what}: kept anew");
        check_sample(0..LENGTH, &read(&pager, 0..LENGTH), &what);
        assert_eq!((count(&pager, "hits"), count(&pager, "damaged")), (7, 1), "{what}");
        settle(&cache);
        assert!(files(&directory.path().join("blocks/removed")).is_empty(), "{what}");
        let metadata = std::fs::symlink_metadata(&ours[1]).unwrap();
        assert!(metadata.is_file(), "{what}");
    }
    let used = cache.used_bytes().unwrap();
    cache.tidy().unwrap();
    assert_eq!(cache.used_bytes().unwrap(), 6 * (BLOCK + 4096) + 2 * 4096);
    // Files whose length was changed, or that were replaced, counted otherwise.
    assert!(used.abs_diff(cache.used_bytes().unwrap()) < 8 * BLOCK, "{used}");
}

#[test]
fn a_damaged_block_is_an_event_once() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    read(&pager(&cache, "v"), 0..LENGTH);
    settle(&cache);
    let block = blocks(directory.path()).remove(1);
    flip(&block, 5);
    let engine = memobj_sim::fixture::cache(MIB);
    let events = engine.events();
    let object = engine.object("sample", pager(&cache, "v"), ObjectOptions::new()).unwrap();
    let mapping = object.map_all(memobj::MapOptions::new()).unwrap();
    for _ in 0..2 {
        for at in (0..LENGTH).step_by(4096) {
            let range = at..(at + 4096).min(LENGTH);
            check_sample(range.clone(), &mapping.pin(range).unwrap(), "through the engine");
        }
    }
    let mut damaged = Vec::new();
    while let Some(event) = events.try_next() {
        if let Event::CopyDamaged { object, bytes, place } = event {
            damaged.push((object, bytes, place));
        }
    }
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert_eq!((&damaged[0].0[..], damaged[0].1.clone()), ("sample", BLOCK..2 * BLOCK));
    assert_eq!(Path::new(&damaged[0].2), block);
}

#[test]
fn a_directory_that_is_removed_is_no_error() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let pager = pager(&cache, "v");
    read(&pager, 0..LENGTH);
    settle(&cache);
    std::fs::remove_dir_all(directory.path().join("blocks")).unwrap();
    for _ in 0..2 {
        check_sample(0..LENGTH, &read(&pager, 0..LENGTH), "without a directory");
        settle(&cache);
    }
    assert_eq!(count(&pager, "hits"), 0);
    assert!(count(&pager, "failures") >= 8, "{}", count(&pager, "failures"));
    assert!(cache.tidy().is_err() || cache.used_bytes().is_err());
    // Whoever opens it makes it again.
    let again = open(directory.path(), 16 * MIB);
    let warm = self::pager(&again, "v");
    read(&warm, 0..LENGTH);
    settle(&again);
    assert_eq!(blocks(directory.path()).len(), 4);
}

#[test]
fn files_of_the_directory_that_are_removed_are_made_anew() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let root = directory.path().join("blocks");
    for entry in std::fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
    }
    let pager = pager(&cache, "v");
    check_sample(0..LENGTH, &read(&pager, 0..LENGTH), "emptied");
    settle(&cache);
    // What is needed to write is missing until somebody opens the directory.
    let other = open(directory.path(), 16 * MIB);
    settle(&other);
    check_sample(0..LENGTH, &read(&pager, 0..LENGTH), "emptied");
    settle(&cache);
    assert_eq!(blocks(directory.path()).len(), 4);
    assert_eq!(cache.used_bytes().unwrap(), 3 * (BLOCK + 4096) + 4096);
    assert_eq!(other.used_bytes().unwrap(), cache.used_bytes().unwrap());
}

#[test]
fn nothing_in_the_directory_is_open_to_others() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    read(&pager(&cache, "v"), 0..LENGTH);
    settle(&cache);
    let root = directory.path().join("blocks");
    let block = blocks(directory.path()).remove(0);
    let folders = [&root, block.parent().unwrap(), block.parent().unwrap().parent().unwrap()];
    for folder in folders.map(Path::to_owned).iter().chain(&["tmp", "removed"].map(|name| root.join(name))) {
        assert_eq!(folder.metadata().unwrap().mode() & 0o7777, 0o700, "{}", folder.display());
    }
    for file in files(&root) {
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600, "{}", file.display());
    }
}

#[test]
fn a_directory_of_others_is_refused() {
    let directory = directory();
    for mode in [0o777, 0o720, 0o702] {
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let error = DiskCache::open(directory.path(), DiskCacheOptions::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{mode:o}");
        assert!(error.to_string().contains("can be written by others"), "{error}");
    }
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(DiskCache::open(directory.path(), DiskCacheOptions::new()).unwrap());
    if std::os::unix::fs::chown(directory.path(), Some(12345), None).is_err() {
        return println!("skipped: only root can give a directory to somebody else");
    }
    let error = DiskCache::open(directory.path(), DiskCacheOptions::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("belongs to user 12345"), "{error}");
    let small = DiskCacheOptions::new().budget_bytes(16 * MIB - 1);
    let error = DiskCache::open(directory.path(), small).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

/// Root may do everything; others are told that they may not.
#[test]
fn blocks_that_cannot_be_read_are_misses() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    read(&pager(&cache, "v"), 0..LENGTH);
    settle(&cache);
    let block = blocks(directory.path()).remove(1);
    std::fs::set_permissions(&block, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(&block).is_ok() {
        return println!("skipped: this user can read what nobody may");
    }
    let warm = pager(&cache, "v");
    check_sample(0..LENGTH, &read(&warm, 0..LENGTH), "unreadable");
    assert_eq!((count(&warm, "hits"), count(&warm, "misses"), count(&warm, "failures")), (3, 1, 1));
    let folder = block.parent().unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o500)).unwrap();
    std::fs::remove_file(directory.path().join("none")).unwrap_err();
    flip_nothing(&cache, &warm);
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// In a folder that cannot be written, everything is read as before.
fn flip_nothing(cache: &DiskCache, warm: &DiskCached<Versioned<Bytes>>) {
    check_sample(0..LENGTH, &read(warm, 0..LENGTH), "in a folder that cannot be written");
    settle(cache);
    wait_until("nothing is under way", || cache.used_bytes().is_ok());
}

#[test]
fn damage_as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("damage_as_an_ordinary_user");
}
