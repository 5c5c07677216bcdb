//! Versions, and what happens to them when an object is written to.

use memobj::pagers::{Bytes, Description, LengthRequest, Pager, WriteRequest};
use memobj_disk_cache::Keeping;
use memobj_sim::fixture::{sample_bytes, wait_until};
use memobj_sim::{Disk, Kept};

use crate::helpers::{
    BLOCK, MIB, Versioned, answer, ask, blocks, count, directory, open, read, settle, wait,
};

#[test]
fn versions_keys_and_block_sizes_do_not_mix() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let contents: Vec<Vec<u8>> = (0..6).map(|byte| vec![byte; 2 * BLOCK as usize]).collect();
    let all = [
        ("key", "v1", BLOCK, 2 * BLOCK),
        ("key", "v2", BLOCK, 2 * BLOCK),
        ("key2", "v1", BLOCK, 2 * BLOCK),
        ("key", "v1", 2 * BLOCK, 2 * BLOCK),
        ("key", "v1", BLOCK, BLOCK + 9),
        ("keyv", "1", BLOCK, 2 * BLOCK),
    ];
    for disk in ["cold", "warm"] {
        for ((key, version, block, length), content) in all.into_iter().zip(&contents) {
            let content = &content[..length as usize];
            let pager = cache.pager(Versioned(Bytes::new(content), version, block), key);
            assert_eq!(read(&pager, 0..length), content, "{disk} {key} {version}");
            settle(&cache);
            let misses = if disk == "cold" { length.div_ceil(block) } else { 0 };
            assert_eq!(count(&pager, "misses"), misses, "{disk} {key} {version} {block}");
        }
    }
    assert_eq!(blocks(directory.path()).len(), 11);
}

#[test]
fn without_a_version_nothing_is_kept() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let length = 3 * BLOCK;
    let unversioned = cache.pager(Bytes::new(sample_bytes(length)), "key");
    let empty = cache.pager(Versioned(Bytes::new(sample_bytes(length)), "", BLOCK), "key");
    assert_eq!((unversioned.keeping(), empty.keeping()), (Keeping::NoVersion, Keeping::NoVersion));
    assert_eq!(read(&unversioned, 0..length), sample_bytes(length));
    assert_eq!(read(&empty, 0..length), sample_bytes(length));
    let large = cache.pager(Versioned(Bytes::new(sample_bytes(length)), "v", 16 * MIB), "key");
    assert_eq!(large.keeping(), Keeping::BlockTooLarge);
    assert_eq!(read(&large, 0..length), sample_bytes(length));
    settle(&cache);
    assert_eq!(blocks(directory.path()).len(), 0);
    assert!(unversioned.counters().is_empty());
}

#[test]
fn what_was_written_to_is_neither_kept_nor_looked_for() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let length = 3 * BLOCK;
    let disk = Disk::new(sample_bytes(length));
    let make = |version| cache.pager(Versioned(disk.clone(), version, BLOCK), "key");
    let other = make("other");
    read(&other, 0..length);
    let pager = make("v");
    assert!(pager.describe().is_writable());
    read(&pager, 0..length);
    settle(&cache);
    assert_eq!((blocks(directory.path()).len(), pager.keeping()), (6, Keeping::Kept));
    let (sender, done) = std::sync::mpsc::channel();
    pager.write_back(WriteRequest::new(4096, vec![7; 4096], move |answer| sender.send(answer).unwrap()));
    done.recv().unwrap().unwrap();
    assert_eq!(pager.keeping(), Keeping::Changed);
    let mut expected = sample_bytes(length).to_vec();
    expected[4096..8192].fill(7);
    assert_eq!(read(&pager, 0..length), expected);
    settle(&cache);
    assert_eq!(count(&pager, "hits"), 0);
    assert_eq!(blocks(directory.path()).len(), 3, "those of the other version");
    // A version that did not change with the bytes, as one with the grain of a clock.
    assert_eq!(read(&make("v"), 0..length), expected);
}

/// An inner request that began before a write has bytes of before it: they are answered to nobody who asks afterwards, and
/// are not kept.
#[test]
fn a_write_meets_a_request_that_is_under_way() {
    for change in ["write", "length"] {
        let directory = directory();
        let cache = open(directory.path(), 16 * MIB);
        let inner = Kept::new(Description::new(3 * BLOCK).block_bytes(BLOCK).version("v").writable());
        let pager = cache.pager(inner.clone(), "key");
        let before = ask(&pager, 4096..8192);
        let old = inner.supplies(1).remove(0);
        assert_eq!(old.range(), 0..BLOCK);
        if change == "write" {
            pager.write_back(WriteRequest::new(0, vec![7; 4096], |_| ()));
            inner.writes(1).remove(0).done();
        } else {
            pager.set_length(LengthRequest::new(2 * BLOCK, |_| ()));
        }
        let after = ask(&pager, 0..4096);
        let mut new = inner.supplies(1).remove(0);
        assert_eq!(new.range(), 0..4096, "asked for itself");
        answer(old);
        assert_eq!(wait(&before).unwrap(), sample_bytes(8192)[4096..]);
        new.fill(0, &[7; 4096]).unwrap();
        new.done();
        assert_eq!(wait(&after).unwrap(), [7; 4096]);
        settle(&cache);
        assert_eq!(blocks(directory.path()).len(), 0, "{change}");
    }
}

/// As the engine does it, with commits in place between.
#[test]
fn an_engine_writes_through_it() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let length = 8 * BLOCK;
    let disk = Disk::new(sample_bytes(length));
    let mut expected = sample_bytes(length).to_vec();
    for round in 0..4_u8 {
        let version = ["a", "b", "c", "d"][round as usize];
        let engine = memobj_sim::fixture::cache(MIB);
        let pager = cache.pager(Versioned(disk.clone(), version, BLOCK), "key");
        let options = memobj_sim::writable_fixture::writable();
        let object = engine.object("key", pager, options).unwrap();
        let mapping = object.map_all(memobj::MapOptions::new()).unwrap();
        let mut bytes = vec![0; length as usize];
        mapping.read_at(0, &mut bytes).unwrap();
        assert!(bytes == expected, "round {round}");
        for page in 0..20 {
            let at = (page * 7 + u64::from(round)) % 128 * 4096;
            mapping.write_at(at, &[round + 1; 4096]).unwrap();
            expected[at as usize..at as usize + 4096].fill(round + 1);
        }
        mapping.sync(..).unwrap();
        mapping.read_at(0, &mut bytes).unwrap();
        assert!(bytes == expected, "round {round}");
        drop((mapping, object));
        wait_until("nothing waits", || cache.settle(std::time::Duration::from_secs(1)));
    }
}
