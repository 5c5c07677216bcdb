//! How requests become those of the inner pager.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use memobj::pagers::{Bytes, Description, Pager, SupplyControl, SupplyRequest};
use memobj::{ErrorKind, SupplyError};
use memobj_disk_cache::{DiskCache, DiskCacheOptions, DiskCached};
use memobj_sim::fixture::{check_sample, sample_bytes, wait_until, within};
use memobj_sim::{Gate, Gated, Kept};

use crate::helpers::{
    BLOCK, MIB, Versioned, answer, ask, blocks, count, counters, directory, open, read, settle, wait,
};

fn kept(cache: &DiskCache, length: u64) -> (Kept, DiskCached<Kept>) {
    let inner = Kept::new(Description::new(length).block_bytes(BLOCK).version("v"));
    let pager = cache.pager(inner.clone(), "key");
    (inner, pager)
}

/// Has block `number` on the disk.
fn keep(cache: &DiskCache, inner: &Kept, pager: &DiskCached<Kept>, number: u64) {
    let answered = ask(pager, number * BLOCK..(number + 1) * BLOCK);
    inner.supplies(1).into_iter().for_each(answer);
    wait(&answered).unwrap();
    settle(cache);
}

#[test]
fn neighbours_that_are_missing_are_one_request_up_to_the_longest() {
    let directory = directory();
    let cache = open(directory.path(), 64 * MIB);
    let (inner, pager) = kept(&cache, 20 * MIB + 5);
    let answered = ask(&pager, 0..20 * MIB + 5);
    let requests = inner.supplies(2);
    let ranges: Vec<_> = requests.iter().map(SupplyRequest::range).collect();
    assert_eq!(ranges, [0..16 * MIB, 16 * MIB..20 * MIB + 5]);
    requests.into_iter().rev().for_each(answer);
    check_sample(0..20 * MIB + 5, &wait(&answered).unwrap(), "long");
    settle(&cache);
    assert_eq!(blocks(directory.path()).len(), 321);
    check_sample(0..20 * MIB + 5, &read(&pager, 0..20 * MIB + 5), "from the disk");
    assert_eq!(inner.supplied().len(), 2);
    assert_eq!((count(&pager, "misses"), count(&pager, "hits")), (321, 321));
    assert_eq!(count(&pager, "read_bytes"), 20 * MIB + 5);
    assert_eq!(count(&pager, "written_bytes"), 20 * MIB + 5);
}

#[test]
fn what_is_there_is_not_asked_for() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    keep(&cache, &inner, &pager, 1);
    keep(&cache, &inner, &pager, 4);
    let answered = ask(&pager, 4096..6 * BLOCK - 4096);
    let requests = inner.supplies(3);
    let ranges: Vec<_> = requests.iter().map(SupplyRequest::range).collect();
    assert_eq!(ranges, [0..BLOCK, 2 * BLOCK..4 * BLOCK, 5 * BLOCK..6 * BLOCK]);
    requests.into_iter().for_each(answer);
    check_sample(4096..6 * BLOCK - 4096, &wait(&answered).unwrap(), "with holes");
}

#[test]
fn a_page_brings_its_block_and_its_neighbours_need_no_request() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 2 * BLOCK);
    let first = ask(&pager, 8192..12288);
    let request = inner.supplies(1).remove(0);
    assert_eq!(request.range(), 0..BLOCK);
    answer(request);
    check_sample(8192..12288, &wait(&first).unwrap(), "a page");
    for at in (0..BLOCK).step_by(4096) {
        check_sample(at..at + 4096, &read(&pager, at..at + 4096), "its neighbours");
    }
    settle(&cache);
    check_sample(0..4096, &read(&pager, 0..4096), "from the disk");
    assert_eq!(inner.supplied().len(), 1);
}

#[test]
fn requests_for_the_same_block_share_one() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    let ranges = [0..2 * BLOCK, BLOCK..2 * BLOCK, 4096..8192, BLOCK + 4096..3 * BLOCK];
    let asked: Vec<_> = ranges
        .iter()
        .enumerate()
        .map(|(index, range)| {
            let answered = ask(&pager, range.clone());
            let known = [2, 3, 4, 6][index];
            wait_until("it was looked for", || count(&pager, "misses") == known);
            answered
        })
        .collect();
    let requests = inner.supplies(2);
    let asked_for: Vec<_> = requests.iter().map(SupplyRequest::range).collect();
    assert_eq!(asked_for, [0..2 * BLOCK, 2 * BLOCK..3 * BLOCK]);
    requests.into_iter().for_each(answer);
    for (range, answered) in ranges.into_iter().zip(asked) {
        check_sample(range, &wait(&answered).unwrap(), "shared");
    }
}

/// A request that can be cancelled.
fn ask_cancellable(pager: &DiskCached<Kept>, range: std::ops::Range<u64>) -> SupplyControl {
    let (request, control) = SupplyRequest::cancellable(range, |_| ()).unwrap();
    pager.supply(request);
    control
}

#[test]
fn the_inner_request_is_cancelled_when_the_last_one_leaves() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    let first = ask_cancellable(&pager, 0..BLOCK);
    wait_until("it was looked for", || inner.waiting() == 1);
    let second = ask_cancellable(&pager, 4096..8192);
    let patient = ask(&pager, 0..BLOCK);
    wait_until("all were looked for", || count(&pager, "misses") == 3);
    let request = inner.supplies(1).remove(0);
    let (sender, told) = channel();
    request.when_unwanted(move || sender.send(()).unwrap());
    first.cancel();
    second.cancel();
    assert!(request.is_wanted(), "one still waits");
    assert!(told.try_recv().is_err());
    answer(request);
    check_sample(0..BLOCK, &wait(&patient).unwrap(), "the one who waits");
    assert_eq!(inner.supplied().len(), 1);

    let hasty = ask_cancellable(&pager, BLOCK..3 * BLOCK);
    let request = inner.supplies(1).remove(0);
    let (sender, told) = channel();
    request.when_unwanted(move || sender.send(()).unwrap());
    hasty.cancel();
    told.recv().unwrap();
    assert!(!request.is_wanted());
    // Nobody joins what was cancelled, and its answer harms nothing.
    let again = ask(&pager, BLOCK..2 * BLOCK);
    let second = inner.supplies(1).remove(0);
    assert_eq!(second.range(), BLOCK..2 * BLOCK);
    drop(request);
    answer(second);
    check_sample(BLOCK..2 * BLOCK, &wait(&again).unwrap(), "asked again");
}

#[test]
fn an_engine_that_unmaps_cancels() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    let engine = memobj_sim::fixture::cache(4 * MIB);
    let object = engine.object("key", pager, memobj::ObjectOptions::new()).unwrap();
    let mapping = object.map_all(memobj::MapOptions::new().delivery(memobj::Delivery::PinOnly)).unwrap();
    mapping.prefetch(&[0..BLOCK, 2 * BLOCK..3 * BLOCK]).unwrap();
    let requests = inner.supplies(2);
    assert!(requests.iter().all(|request| request.is_wanted() && !request.is_urgent()));
    drop(mapping);
    wait_until("nobody waits", || requests.iter().all(|request| !request.is_wanted()));
    wait_until("the engine has its requests back", || engine.pager_calls().given_up == 0);
}

#[test]
fn who_waits_makes_a_request_urgent() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    let (ahead, control) = SupplyRequest::cancellable(0..BLOCK, |_| ()).unwrap();
    control.mark_read_ahead();
    pager.supply(ahead);
    let request = inner.supplies(1).remove(0);
    assert!(!request.is_urgent());
    let answered = ask(&pager, 0..4096);
    wait_until("it has joined", || request.is_urgent());
    answer(request);
    wait(&answered).unwrap();
}

#[test]
fn an_error_goes_to_all_and_is_not_kept() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    for kind in [ErrorKind::Io, ErrorKind::Stale, ErrorKind::Timeout, ErrorKind::Denied] {
        let answered = ask(&pager, 0..2 * BLOCK);
        inner.supplies(1).remove(0).fail(SupplyError::new(kind));
        assert_eq!(wait(&answered).unwrap_err().kind, kind);
    }
    settle(&cache);
    assert_eq!(blocks(directory.path()).len(), 0);
}

#[test]
fn bytes_that_nobody_asked_for_fail_nobody() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    let answered = ask(&pager, 4096..8192);
    inner.supplies(1).remove(0).fail(SupplyError::new(ErrorKind::Io));
    let narrow = inner.supplies(1).remove(0);
    assert_eq!(narrow.range(), 4096..8192);
    answer(narrow);
    check_sample(4096..8192, &wait(&answered).unwrap(), "for itself");
    let answered = ask(&pager, 4096..8192);
    inner.supplies(1).remove(0).fail(SupplyError::new(ErrorKind::Io));
    inner.supplies(1).remove(0).fail(SupplyError::new(ErrorKind::Integrity));
    assert_eq!(wait(&answered).unwrap_err().kind, ErrorKind::Integrity);
    // A version that is gone is gone for all bytes.
    let answered = ask(&pager, 4096..8192);
    inner.supplies(1).remove(0).fail(SupplyError::new(ErrorKind::Stale));
    assert_eq!(wait(&answered).unwrap_err().kind, ErrorKind::Stale);
    settle(&cache);
    assert_eq!(blocks(directory.path()).len(), 0);
}

/// A pager that panics.
struct Panics;

impl Pager for Panics {
    fn describe(&self) -> Description {
        Description::new(8 * BLOCK).block_bytes(BLOCK).version("v")
    }
    fn supply(&self, _: SupplyRequest) {
        panic!("on purpose");
    }
}

#[test]
fn a_pager_that_panics_harms_only_its_request() {
    let directory = directory();
    let options = DiskCacheOptions::new().threads(1);
    let cache = DiskCache::open(directory.path().join("blocks"), options).unwrap();
    let panics = cache.pager(Panics, "panics");
    for _ in 0..3 {
        assert_eq!(wait(&ask(&panics, 0..BLOCK)).unwrap_err().kind, ErrorKind::Integrity);
    }
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    keep(&cache, &inner, &pager, 0);
}

#[test]
fn a_pager_that_blocks_keeps_nobody_from_the_disk() {
    let directory = directory();
    let options = DiskCacheOptions::new().threads(1);
    let cache = DiskCache::open(directory.path().join("blocks"), options).unwrap();
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    keep(&cache, &inner, &pager, 0);
    let gate = Gate::default();
    let gated = Gated::new(Bytes::new(sample_bytes(8 * BLOCK)), gate.clone(), 8);
    let blocking = cache.pager(Versioned(gated, "v", BLOCK), "blocks");
    let stuck: Vec<_> = (0..8).map(|number| ask(&blocking, number * BLOCK..(number + 1) * BLOCK)).collect();
    wait_until("all block", || count(&blocking, "misses") == 8);
    check_sample(0..BLOCK, &read(&pager, 0..BLOCK), "beside it");
    gate.open();
    for answered in stuck {
        assert!(wait(&answered).unwrap().iter().all(|byte| *byte == 0xbd));
    }
}

#[test]
fn a_pager_that_is_dropped_fails_what_waits() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    let answered = ask(&pager, 0..BLOCK);
    let request = inner.supplies(1).remove(0);
    pager.detach();
    assert!(inner.is_detached());
    assert_eq!(wait(&ask(&pager, 0..4096)).unwrap_err().kind, ErrorKind::Detached);
    drop((pager, inner));
    drop(request);
    assert!(wait(&answered).is_err());
}

#[test]
fn blocks_without_memory_to_wait_in_are_not_kept() {
    let directory = directory();
    let options = DiskCacheOptions::new().waiting_bytes(BLOCK - 1);
    let cache = DiskCache::open(directory.path().join("blocks"), options).unwrap();
    let (inner, pager) = kept(&cache, 8 * BLOCK);
    keep(&cache, &inner, &pager, 0);
    assert_eq!(blocks(directory.path()).len(), 0);
    assert_eq!((count(&pager, "failures"), counters(&pager).len()), (0, 7));
}

/// Everything that was started ends with the last handle, when what waits has been written.
#[test]
fn the_last_handle_ends_its_threads() {
    memobj_sim::process::alone("the_last_handle_ends_its_threads", || {
        let directory = directory();
        let threads = || memobj_sim::process::Usage::now().threads;
        let descriptors = || memobj_sim::process::Usage::now().descriptors;
        let before = (threads(), descriptors());
        for _ in 0..3 {
            let cache = open(directory.path(), 16 * MIB);
            let pager = cache.pager(Versioned(Bytes::new(sample_bytes(4 * MIB)), "v", BLOCK), "key");
            drop(cache);
            check_sample(0..4 * MIB, &read(&pager, 0..4 * MIB), "without a handle");
            drop(pager);
            wait_until("all has ended", || (threads(), descriptors()) == before);
            assert_eq!(blocks(directory.path()).len(), 64);
        }
    });
}

/// Many threads, many blocks, an inner pager that answers out of order from another thread.
#[test]
fn many_at_once() {
    let directory = directory();
    let cache = open(directory.path(), 16 * MIB);
    let length = 20 * MIB;
    let (inner, pager) = kept(&cache, length);
    let ended = Arc::new(AtomicUsize::new(0));
    within(60, "many at once", move || {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (pager, ended) = (&pager, Arc::clone(&ended));
                scope.spawn(move || {
                    let mut random = memobj_sim::Random::new(thread);
                    for _ in 0..300 {
                        let start = random.below(length / 4096) * 4096;
                        let end = (start + (1 + random.below(80)) * 4096).min(length);
                        check_sample(start..end, &read(pager, start..end), "many at once");
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
            while ended.load(Ordering::SeqCst) < 4 {
                inner.supplies(0).into_iter().rev().for_each(answer);
                std::thread::yield_now();
            }
        });
        assert!(count(&pager, "hits") > 0);
    });
}
