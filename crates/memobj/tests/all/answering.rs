//! Pagers that answer later, from any thread, in any order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memobj::pagers::{Blocking, BlockingPager, Description, SupplyRequest, WriteRequest};
use memobj::{
    AccessError, Cache, CacheOptions, Delivery, EngineClock, ErrorKind, FailurePolicy, MapOptions, Mapping,
    MemoryObject, ObjectOptions, SupplyError, Writing,
};
use memobj_sim::fixture::{MIB, check_sample, sample_bytes, wait_until, within};
use memobj_sim::process::{Usage, alone};
use memobj_sim::{Gate, Kept, Random};

const PAGE: u64 = 4096;

fn cache(budget_bytes: u64) -> Cache {
    Cache::new(CacheOptions::new().budget_bytes(budget_bytes)).unwrap()
}

fn map(cache: &Cache, pager: &Kept, options: ObjectOptions) -> Mapping {
    let object = cache.object("kept", pager.clone(), options).unwrap();
    object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap()
}

/// Answers with the bytes of a sample, in two pieces, the later one first.
fn answer(mut request: SupplyRequest) {
    let range = request.range();
    let bytes = sample_bytes(range.end);
    let middle = (range.start + range.end) / 2;
    request.fill(middle, &bytes[middle as usize..]).unwrap();
    request.fill(range.start, &bytes[range.start as usize..middle as usize]).unwrap();
    request.done();
}

fn kind(error: &AccessError) -> ErrorKind {
    error.page_error().map_or_else(|| panic!("{error}"), memobj::PageError::kind)
}

/// As many as the depth are under way, no more; they ascend, and lie in one block each.
#[test]
fn requests_ascend_merged_and_never_more_than_the_depth() {
    let seed = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(3);
    println!("seed {seed}");
    let (block, depth) = (16 * PAGE, 4);
    let pager = Kept::new(Description::new(8 * MIB).block_bytes(block).depth(depth));
    let mapping = map(&cache(32 * MIB), &pager, ObjectOptions::new());
    let mut blocks: Vec<u64> = (0..8 * MIB / block).collect();
    let mut random = Random::new(seed);
    for index in (1..blocks.len()).rev() {
        blocks.swap(index, random.below(index as u64 + 1) as usize);
    }
    let wanted: Vec<_> =
        blocks[..40].iter().map(|block_index| block_index * block..block_index * block + 3 * PAGE).collect();
    mapping.prefetch(&wanted).unwrap();
    let mut answered = 0;
    // The last request has none behind it that would fill the depth.
    while answered < wanted.len() {
        let requests = pager.supplies(depth.min(wanted.len() - answered));
        assert!(requests.len() <= depth);
        answered += requests.len();
        requests.into_iter().rev().for_each(answer);
    }
    assert!(pager.most() <= depth);
    for range in pager.supplied() {
        assert_eq!(range.start / block, (range.end - 1) / block, "{range:?} is of one block");
    }
    for range in wanted {
        check_sample(range.clone(), &mapping.pin(range).unwrap(), "prefetched");
    }
}

/// Who wants a page gets the absent pages of its block with it.
#[test]
fn a_page_that_is_wanted_comes_with_its_block() {
    let block = 16 * PAGE;
    let pager = Kept::new(Description::new(MIB).block_bytes(block));
    let mapping = map(&cache(8 * MIB), &pager, ObjectOptions::new());
    let reader = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.pin(5 * block + 3 * PAGE..5 * block + 3 * PAGE + 1).map(drop)
    });
    let requests = pager.supplies(1);
    assert_eq!(requests[0].range(), 5 * block..6 * block);
    assert!(requests[0].is_urgent() && requests[0].is_wanted());
    requests.into_iter().for_each(answer);
    reader.join().unwrap().unwrap();
    check_sample(5 * block..6 * block, &mapping.pin(5 * block..6 * block).unwrap(), "the block");
    assert_eq!(pager.supplied().len(), 1);
}

/// When a block fails, only the page that somebody waits for is asked for alone: a server in trouble does not get a request for
/// each page of it.
#[test]
fn a_block_that_fails_is_asked_for_again_in_what_is_wanted_only() {
    let block = 16 * PAGE;
    let pager = Kept::new(Description::new(MIB).block_bytes(block));
    let mapping = map(&cache(8 * MIB), &pager, ObjectOptions::new());
    let wanted = 3 * PAGE..4 * PAGE;
    let reader = std::thread::spawn({
        let (mapping, wanted) = (mapping.clone(), wanted.clone());
        move || mapping.pin(wanted).map(drop)
    });
    for range in [0..block, wanted.clone()] {
        let request = pager.supplies(1).remove(0);
        assert_eq!(request.range(), range);
        request.fail(SupplyError::new(ErrorKind::Io));
    }
    let error = reader.join().unwrap().unwrap_err();
    assert_eq!(error.page_error().map(|error| error.range()), Some(wanted));
    // Its neighbours have not failed.
    let reader = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.pin(4 * PAGE..5 * PAGE).map(drop)
    });
    let request = pager.supplies(1).remove(0);
    assert_eq!(request.range(), 4 * PAGE..block);
    answer(request);
    reader.join().unwrap().unwrap();
}

/// A server that asks for a pause gets it: the whole block is asked for again, after it, and no part before.
#[test]
fn a_server_that_asks_for_a_pause_is_asked_for_no_part_of_a_block() {
    let (cache, clock) = memobj_sim::time::timeless(8 * MIB);
    let (block, pause) = (16 * PAGE, std::time::Duration::from_secs(20));
    let pager = Kept::new(Description::new(MIB).block_bytes(block));
    for policy in [FailurePolicy::WaitForEver, FailurePolicy::FailAtOnce] {
        let mapping = map(&cache, &pager, ObjectOptions::new().policy(policy));
        let reader = std::thread::spawn({
            let mapping = mapping.clone();
            move || mapping.pin(3 * PAGE..4 * PAGE).map(drop)
        });
        pager.supplies(1).remove(0).fail(SupplyError::new(ErrorKind::Io).retry_after(pause));
        if policy == FailurePolicy::FailAtOnce {
            let error = reader.join().unwrap().unwrap_err();
            assert_eq!(error.page_error().map(|error| error.range()), Some(3 * PAGE..4 * PAGE));
            continue;
        }
        wait_until("it is to be asked again", || cache.metrics().retries == 1);
        clock.advance(pause);
        let request = pager.supplies(1).remove(0);
        assert_eq!(request.range(), 0..block);
        answer(request);
        reader.join().unwrap().unwrap();
    }
    assert!(pager.supplied().len() <= 3, "{:?}", pager.supplied());
}

/// What was not filled never reads as anything: a request that lacks a byte, is dropped, or is filled elsewhere.
#[test]
fn an_answer_that_lacks_a_byte_is_none() {
    let pager = Kept::new(Description::new(4 * PAGE));
    let mapping = map(&cache(MIB), &pager, ObjectOptions::new());
    let read = |act: &dyn Fn(SupplyRequest)| {
        let reader = std::thread::spawn({
            let mapping = mapping.clone();
            move || mapping.pin(0..PAGE).map(|pinned| pinned.to_vec())
        });
        pager.supplies(1).into_iter().for_each(act);
        let answer = reader.join().unwrap();
        mapping.retry(0..PAGE).unwrap();
        answer
    };
    let lacks = read(&|mut request| {
        request.fill(1, &[7; PAGE as usize - 1]).unwrap();
        request.done();
    });
    assert_eq!(kind(&lacks.unwrap_err()), ErrorKind::Truncated);
    assert_eq!(kind(&read(&drop).unwrap_err()), ErrorKind::Integrity);
    let outside = read(&|mut request| {
        assert_eq!(request.fill(PAGE - 1, &[1, 2]).unwrap_err().kind, ErrorKind::Integrity);
        assert_eq!(request.fill(u64::MAX, &[1]).unwrap_err().kind, ErrorKind::Integrity);
        request.fail(SupplyError::new(ErrorKind::Denied));
    });
    assert_eq!(kind(&outside.unwrap_err()), ErrorKind::Denied);
    check_sample(0..PAGE, &read(&answer).unwrap(), "at last");
}

/// Past its deadline a request is told that nobody waits, and its answer finds nobody.
#[test]
fn a_request_that_is_overdue_is_told_and_its_answer_changes_nothing() {
    let clock = EngineClock::manual();
    let cache = Cache::new(CacheOptions::new().budget_bytes(MIB).clock(clock.clone())).unwrap();
    let pager = Kept::new(Description::new(4 * PAGE));
    let mapping = map(&cache, &pager, ObjectOptions::new().supply_timeout(Duration::from_secs(5)));
    let reader = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.pin(0..PAGE).map(drop)
    });
    let mut late = pager.supplies(1).remove(0);
    let told = Arc::new(AtomicUsize::new(0));
    late.when_unwanted({
        let told = Arc::clone(&told);
        move || {
            told.fetch_add(1, Ordering::SeqCst);
        }
    });
    clock.advance(Duration::from_secs(6));
    assert_eq!(kind(&reader.join().unwrap().unwrap_err()), ErrorKind::Timeout);
    wait_until("the pager is told", || told.load(Ordering::SeqCst) == 1);
    assert!(!late.is_wanted());
    assert_eq!((cache.pager_calls().waited_for, cache.pager_calls().given_up), (0, 1));
    late.fill(0, &[0xee; PAGE as usize]).unwrap();
    late.done();
    assert_eq!(cache.pager_calls().given_up, 0);
    assert_eq!(kind(&mapping.pin(0..1).unwrap_err()), ErrorKind::Timeout);
    mapping.retry(0..PAGE).unwrap();
    let again = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.pin(0..PAGE).map(|pinned| pinned.to_vec())
    });
    pager.supplies(1).into_iter().for_each(answer);
    check_sample(0..PAGE, &again.join().unwrap().unwrap(), "asked for again");
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

/// Unmapping cancels: nothing of 10,000 requests is left, although the pager has not answered one.
#[test]
fn ten_thousand_cancelled_requests_leave_nothing_behind() {
    // What a process uses is counted.
    alone(
        "ten_thousand_cancelled_requests_leave_nothing_behind",
        ten_thousand_cancelled_requests_leave_nothing_behind_alone,
    );
}

fn ten_thousand_cancelled_requests_leave_nothing_behind_alone() {
    const REQUESTS: usize = 10_000;
    let length = 2 * REQUESTS as u64 * PAGE;
    let told = Arc::new(AtomicUsize::new(0));
    let life = |cache: &Cache| {
        let pager = Kept::new(Description::new(length).depth(REQUESTS));
        let mapping = map(cache, &pager, ObjectOptions::new());
        let mut asked: Vec<SupplyRequest> = Vec::new();
        // Each second page, so that there are no neighbours; some at a time, since a cache has as many guesses under way as
        // it has memory for.
        let mut next = 0;
        while asked.len() < REQUESTS {
            let some: Vec<_> = (next..(next + 1000).min(REQUESTS as u64))
                .map(|page| 2 * page * PAGE..(2 * page + 1) * PAGE)
                .collect();
            mapping.prefetch(&some).unwrap();
            asked.extend(pager.supplies(some.len()));
            next += some.len() as u64;
        }
        for request in &asked {
            assert!(request.is_wanted());
            let told = Arc::clone(&told);
            request.when_unwanted(move || {
                told.fetch_add(1, Ordering::Relaxed);
            });
        }
        drop(mapping);
        wait_until("all are told", || told.load(Ordering::Relaxed) == REQUESTS);
        assert!(asked.iter().all(|request| !request.is_wanted()));
        told.store(0, Ordering::Relaxed);
        wait_until("nobody waits", || cache.pager_calls().waited_for == 0);
        assert_eq!(cache.metrics().frame_bytes, 0);
        for request in asked {
            request.answer(|_, buffer| {
                buffer.fill(7);
                Ok(buffer.len())
            });
        }
        wait_until("nothing is left", || cache.pager_calls().given_up == 0);
    };
    let cache = cache(512 * MIB);
    life(&cache);
    let before = Usage::now();
    life(&cache);
    let after = Usage::now();
    assert_eq!(after.descriptors, before.descriptors);
    assert!(after.virtual_bytes < before.virtual_bytes + 16 * MIB, "{before:?} {after:?}");
}

/// What was being read ahead for a mapping goes with it, although the pager answers nothing any more.
#[test]
fn a_reader_that_leaves_takes_its_read_ahead_along() {
    // What a process uses is counted.
    alone(
        "a_reader_that_leaves_takes_its_read_ahead_along",
        a_reader_that_leaves_takes_its_read_ahead_along_alone,
    );
}

fn a_reader_that_leaves_takes_its_read_ahead_along_alone() {
    let (length, block) = (1 << 40, 16 * PAGE);
    let cache = cache(64 * MIB);
    let before = Usage::now().virtual_bytes;
    let pager = Kept::new(Description::new(length).block_bytes(block).depth(8));
    let mapping = map(&cache, &pager, ObjectOptions::new().advice(memobj::Advice::Sequential));
    let reader = std::thread::spawn({
        let mapping = mapping.clone();
        move || (0..64).for_each(|page| drop(mapping.pin(page * PAGE..page * PAGE + 1).unwrap()))
    });
    while !reader.is_finished() {
        for request in pager.supplies(0) {
            request.answer(|_, buffer| {
                buffer.fill(7);
                Ok(buffer.len())
            });
        }
        std::thread::yield_now();
    }
    reader.join().unwrap();
    let asked = pager.supplies(1);
    assert!(Usage::now().virtual_bytes > before + length / 2);
    drop(mapping);
    wait_until("the addresses are given back", || Usage::now().virtual_bytes < before + length / 2);
    assert!(asked.iter().all(|request| !request.is_wanted()));
    wait_until("nobody waits", || cache.pager_calls().waited_for == 0);
    drop(asked);
    // A worker may have handed over another request since.
    wait_until("nothing is left", || {
        drop(pager.supplies(0));
        cache.pager_calls().given_up == 0
    });
}

fn take(request: WriteRequest, disk: &mut [u8]) {
    let range = request.range();
    disk[range.start as usize..range.end as usize].copy_from_slice(request.bytes());
    request.done();
}

/// Writes ascend, as many under way as the depth; what fails is Dirty again, and no page is offered twice at once.
#[test]
fn writes_ascend_at_the_depth_of_the_pager() {
    // What a process uses is counted.
    alone("writes_ascend_at_the_depth_of_the_pager", writes_ascend_at_the_depth_of_the_pager_alone);
}

fn writes_ascend_at_the_depth_of_the_pager_alone() {
    let (length, block, depth) = (8 * MIB, 16 * PAGE, 8);
    let pager = Kept::new(Description::new(length).block_bytes(block).depth(depth).writable());
    let cache = cache(64 * MIB);
    let mapping = map(&cache, &pager, ObjectOptions::new().writing(Writing::InPlace));
    let bytes = sample_bytes(length);
    let writer = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.write_at(0, bytes)
    });
    // Whole pages need not be supplied; what is asked for all the same is answered.
    while !writer.is_finished() {
        pager.supplies(0).into_iter().for_each(answer);
        std::thread::yield_now();
    }
    writer.join().unwrap().unwrap();
    let sync = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.sync(..)
    });
    let mut disk = vec![0; length as usize];
    let first = pager.writes(depth);
    assert_eq!(first.len(), depth);
    let threads = Usage::now().threads;
    assert!(threads <= 16, "{threads} threads");
    let mut refused = None;
    for (index, request) in first.into_iter().rev().enumerate() {
        match index {
            3 => {
                refused = Some(request.range());
                request.fail(SupplyError::new(ErrorKind::NoSpace));
            }
            _ => take(request, &mut disk),
        }
    }
    let refused = refused.unwrap();
    while !sync.is_finished() {
        pager.writes(0).into_iter().for_each(|request| take(request, &mut disk));
        std::thread::yield_now();
    }
    let error = sync.join().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.range()), (ErrorKind::NoSpace, refused.clone()));
    let again = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.sync(..)
    });
    while !again.is_finished() {
        pager.writes(0).into_iter().for_each(|request| take(request, &mut disk));
        std::thread::yield_now();
    }
    again.join().unwrap().unwrap();
    check_sample(0..length, &disk, "written");
    assert!(pager.most() <= depth);
    let written = pager.written();
    let first_try: Vec<_> = written[..depth].to_vec();
    assert!(first_try.windows(2).all(|pair| pair[0].end <= pair[1].start), "{first_try:?}");
    assert_eq!(written.iter().filter(|range| **range == refused).count(), 2);
    assert_eq!(cache.metrics().dirty_bytes, 0);
}

/// Which function of a pager waits at a gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stuck {
    Supply,
    WriteBack,
    Sync,
    SetLength,
    Drop,
}

pub(crate) struct Sticks {
    pub(crate) stuck: Stuck,
    pub(crate) gate: Gate,
    pub(crate) entered: Arc<AtomicUsize>,
}

impl Sticks {
    fn enter(&self, function: Stuck) {
        if self.stuck == function {
            self.entered.fetch_add(1, Ordering::SeqCst);
            self.gate.pass();
        }
    }
}

impl BlockingPager for Sticks {
    fn length(&self) -> u64 {
        64 * PAGE
    }
    fn supply(&self, range: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        self.enter(Stuck::Supply);
        buffer.copy_from_slice(&sample_bytes(range.end)[range.start as usize..]);
        Ok(buffer.len())
    }
    fn is_writable(&self) -> bool {
        true
    }
    fn write_back(&self, _: std::ops::Range<u64>, _: &[u8]) -> Result<(), SupplyError> {
        self.enter(Stuck::WriteBack);
        Ok(())
    }
    fn sync(&self) -> Result<(), SupplyError> {
        self.enter(Stuck::Sync);
        Ok(())
    }
    fn set_length(&self, _: u64) -> Result<(), SupplyError> {
        self.enter(Stuck::SetLength);
        Ok(())
    }
}

impl Drop for Sticks {
    fn drop(&mut self) {
        self.enter(Stuck::Drop);
    }
}

/// Has threads call `stuck` of the object's pager, which hangs, and lets go of the object.
pub(crate) fn hang(stuck: Stuck, object: MemoryObject, mapping: Mapping) -> Vec<std::thread::JoinHandle<()>> {
    let mut hanging: Vec<_> = (0..8)
        .map(|index: u64| {
            let (object, mapping) = (object.clone(), mapping.clone());
            std::thread::spawn(move || {
                let at = index * 8 * PAGE;
                match stuck {
                    Stuck::Supply => drop(mapping.pin(at..at + 1)),
                    Stuck::WriteBack | Stuck::Sync => {
                        let _ = mapping.write_at(at, &[1; PAGE as usize]);
                        let _ = mapping.sync(at..at + PAGE);
                    }
                    Stuck::SetLength => drop(object.set_len((60 + index % 2) * PAGE)),
                    Stuck::Drop => {}
                }
            })
        })
        .collect();
    // The last handle drops the pager, which may hang.
    hanging.push(std::thread::spawn(move || drop((object, mapping))));
    hanging
}

/// A pager that hangs in any of its functions, with as many calls as it is made, blocks nobody else of its cache.
#[test]
fn a_pager_that_hangs_in_any_function_holds_up_nobody_else() {
    for stuck in [Stuck::Supply, Stuck::WriteBack, Stuck::Sync, Stuck::SetLength, Stuck::Drop] {
        let (gate, entered) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let cache = Cache::new(CacheOptions::new().budget_bytes(2 * MIB).workers(4)).unwrap();
        let pager = Sticks { stuck, gate: gate.clone(), entered: Arc::clone(&entered) };
        let object =
            cache.object("sticks", Blocking(pager), ObjectOptions::new().writing(Writing::InPlace)).unwrap();
        let mapping = object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
        let hanging = hang(stuck, object, mapping);
        wait_until("the pager hangs", || entered.load(Ordering::SeqCst) > 0);
        let other = Kept::new(Description::new(4 * MIB));
        let read = within(30, "the other object", {
            let (cache, other) = (cache.clone(), other.clone());
            move || {
                let mapping = map(&cache, &other, ObjectOptions::new());
                let answers = std::thread::spawn({
                    let other = other.clone();
                    move || {
                        while !other.is_detached() {
                            other.supplies(0).into_iter().for_each(answer);
                            std::thread::yield_now();
                        }
                    }
                });
                for at in (0..4 * MIB).step_by(PAGE as usize) {
                    check_sample(at..at + PAGE, &mapping.pin(at..at + PAGE).unwrap(), "beside a hang");
                }
                drop(mapping);
                answers
            }
        });
        read.join().unwrap();
        gate.open();
        hanging.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
