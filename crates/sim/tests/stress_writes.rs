//! Six threads store to two objects under one small budget, with failures of every kind of write; every byte is
//! checked against what its owner stored last.
//!
//! `MEMOBJ_STRESS_SECONDS` is how long (6), `MEMOBJ_SEED` what is drawn (the time). The seed is printed; threads
//! make a run repeat in its draws only, not in its order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use memobj::pagers::{Faulty, Inject, Injection, Operation};
use memobj::{AccessError, Advice, Cache, CacheOptions, Delivery, FailurePolicy, Mapping, MemoryObject};
use memobj_sim::fixture::MIB;
use memobj_sim::watchdog::{PATIENCE, watch};
use memobj_sim::writable_fixture::{DELIVERIES, mapped, writable};
use memobj_sim::{Disk, Random};

const THREADS: u64 = 6;
/// Each thread owns one slot in six, so that neighbours in a page are different threads'.
const SLOT: u64 = 512;
const SLOTS: u64 = 4096;
const LENGTH: u64 = SLOT * SLOTS + 1000;
const BUDGET: u64 = MIB;

struct Object {
    object: MemoryObject,
    mapping: Mapping,
    /// What is in the end, whichever it is.
    kept: Kept,
}

enum Kept {
    File(tempfile::NamedTempFile),
    Disk(Arc<Faulty<Disk>>),
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number: {text}")))
}

#[test]
fn six_threads_store_to_two_objects_under_one_budget() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = setting("MEMOBJ_SEED").unwrap_or(now.as_nanos() as u64);
    let seconds = setting("MEMOBJ_STRESS_SECONDS").unwrap_or(6).max(3);
    println!("MEMOBJ_SEED={seed} MEMOBJ_STRESS_SECONDS={seconds}");
    for delivery in DELIVERIES {
        stress(delivery, seed, Duration::from_secs(seconds) / 3);
    }
}

fn stress(delivery: Delivery, seed: u64, time: Duration) {
    let cache = Cache::new(CacheOptions::new().budget_bytes(BUDGET)).unwrap();
    let objects = [file_object(&cache, delivery), disk_object(&cache, delivery, seed)];
    let (steps, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let deadline = Instant::now() + time;
    // A slow machine takes longer to come to what is tested.
    let goes_on = || Instant::now() < deadline || cache.metrics().evicted_pages == 0;
    let models: Vec<[Vec<u8>; 2]> = std::thread::scope(|scope| {
        scope.spawn(|| watch(&cache, &steps, &stop, seed));
        let work = |thread| {
            let (objects, steps) = (&objects, &steps);
            let goes_on = &goes_on;
            move || {
                let random = Random::new(seed ^ (thread << 32));
                Writer { thread, random, models: [vec![0; SLOTS as usize], vec![0; SLOTS as usize]] }
                    .work(objects, goes_on, steps)
            }
        };
        let workers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(work(thread))).collect();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::Relaxed);
        let ended = ended.into_iter();
        ended.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    for (index, object) in objects.iter().enumerate() {
        object.check_at_the_end(index, &models, delivery);
    }
    let metrics = cache.metrics();
    println!("{delivery:?}: {} steps, {metrics:?}", steps.load(Ordering::Relaxed));
    assert!(metrics.peak_frame_bytes <= BUDGET && metrics.evicted_pages > 0, "{metrics:?}");
    assert_eq!(metrics.pinned_bytes, 0);
    memobj_sim::fixture::wait_until_clean(&cache);
}

fn file_object(cache: &Cache, delivery: Delivery) -> Object {
    let file = tempfile::NamedTempFile::new_in(memobj_sim::fixture::folder()).unwrap();
    file.as_file().set_len(LENGTH).unwrap();
    let object = cache.open_file(file.path(), writable()).unwrap();
    let mapping = object.map(0..LENGTH, mapped(delivery)).unwrap();
    Object { object, mapping, kept: Kept::File(file) }
}

fn disk_object(cache: &Cache, delivery: Delivery, seed: u64) -> Object {
    let mut random = Random::new(seed);
    let pager = Arc::new(Faulty::new(Disk::new(vec![0; LENGTH as usize]), Vec::new(), seed));
    for _ in 0..100 {
        let page = random.below(LENGTH / 4096) * 4096;
        let action = match random.below(4) {
            0 => Inject::Error,
            1 => Inject::Short,
            2 => Inject::Long,
            _ => Inject::Delay(Duration::from_millis(3)),
        };
        let times = Some(1 + random.below(3) as u32);
        pager.inject(Operation::WriteBack, Injection::new(page..page + 4096, action).times(times));
    }
    let policy = FailurePolicy::RetryFor(Duration::from_secs(10));
    let options = writable().policy(policy);
    let object = cache.object("disk", Arc::clone(&pager), options).unwrap();
    let mapping = object.map(0..LENGTH, mapped(delivery)).unwrap();
    Object { object, mapping, kept: Kept::Disk(pager) }
}

/// A thread and what it stored last to each slot of its own.
struct Writer {
    thread: u64,
    random: Random,
    models: [Vec<u8>; 2],
}

impl Writer {
    fn work(mut self, objects: &[Object; 2], goes_on: impl Fn() -> bool, steps: &AtomicU64) -> [Vec<u8>; 2] {
        while goes_on() {
            let index = self.random.below(2) as usize;
            self.step(&objects[index], index);
            steps.fetch_add(1, Ordering::Relaxed);
        }
        self.models
    }

    fn step(&mut self, object: &Object, index: usize) {
        // Some slots are used more than others, so that pages are stored to while they are written.
        let few = if self.random.below(2) == 0 { 60 } else { SLOTS };
        let slot = self.random.below(few) / THREADS * THREADS + self.thread;
        if slot >= SLOTS {
            return;
        }
        let range = slot * SLOT..(slot + 1) * SLOT;
        let mapping = &object.mapping;
        match self.random.below(20) {
            0..7 => self.store(object, index, slot),
            7..14 => self.check(mapping, index, slot),
            14 => {
                // A failure of before is told here, or its own.
                let _ = mapping.sync(range);
            }
            15 => drop(mapping.advise(0..LENGTH, Advice::DontNeed)),
            16 => {
                let ahead = range.start..(range.start + 4 * SLOT).min(LENGTH);
                mapping.prefetch(std::slice::from_ref(&ahead)).unwrap();
            }
            17 if self.random.below(20) == 0 => drop(object.object.sync()),
            18 if self.random.below(20) == 0 => {
                if let Kept::Disk(pager) = &object.kept {
                    let range = range.start / 4096 * 4096..range.end;
                    let injection = Injection::new(range, Inject::Error).times(1);
                    pager.inject(Operation::WriteBack, injection);
                }
            }
            _ => self.check(mapping, index, slot),
        }
    }

    fn store(&mut self, object: &Object, index: usize, slot: u64) {
        let value = 1 + self.random.below(255) as u8;
        let (at, mapping) = (slot * SLOT, &object.mapping);
        let done = match self.random.below(3) {
            0 => match mapping.pin_mut(at..at + SLOT) {
                Ok(mut pinned) => {
                    pinned.fill(value);
                    true
                }
                Err(AccessError::InUse | AccessError::PinsExceedBudget { .. }) => false,
                Err(error) => panic!("pin_mut at {at}: {error}"),
            },
            1 if mapping.can_be_touched() => match mapping.shared_words() {
                Ok(words) => {
                    let word = u64::from_ne_bytes([value; 8]);
                    (at / 8..(at + SLOT) / 8).for_each(|index| words.store(index, word));
                    true
                }
                Err(_) => false,
            },
            _ => {
                mapping.write_at(at, &[value; SLOT as usize]).unwrap();
                true
            }
        };
        if done {
            self.models[index][slot as usize] = value;
        }
    }

    fn check(&mut self, mapping: &Mapping, index: usize, slot: u64) {
        let (at, right) = (slot * SLOT, self.models[index][slot as usize]);
        let mut buffer = [0xee; SLOT as usize];
        let answer = match self.random.below(3) {
            0 => mapping.pin(at..at + SLOT).map(|pinned| buffer.copy_from_slice(&pinned)),
            1 if mapping.can_be_touched() => mapping.touch_at(at, &mut buffer),
            _ => mapping.read_at(at, &mut buffer),
        };
        match answer {
            Ok(()) => {
                let wrong = buffer.iter().position(|byte| *byte != right);
                let got = wrong.map(|index| buffer[index]);
                assert_eq!(got, None, "object {index}, slot {slot}: instead of {right}, at {wrong:?}");
            }
            // All threads together may want more pins than there may be.
            Err(AccessError::PinsExceedBudget { .. } | AccessError::TooManyPins) => {}
            Err(error) => panic!("slot {slot}: {error}"),
        }
    }
}

impl Object {
    fn check_at_the_end(&self, index: usize, models: &[[Vec<u8>; 2]], delivery: Delivery) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.object.close() {
            assert!(Instant::now() < deadline, "{delivery:?}: never whole: {error}");
        }
        let bytes = match &self.kept {
            Kept::File(file) => std::fs::read(file.path()).unwrap(),
            Kept::Disk(pager) => {
                assert!(!pager.inner().overlapped(), "two writes of one page at once");
                pager.inner().durable()
            }
        };
        for (slot, slot_bytes) in bytes.chunks_exact(SLOT as usize).enumerate().take(SLOTS as usize) {
            let right = models[slot % THREADS as usize][index][slot];
            assert!(
                slot_bytes.iter().all(|byte| *byte == right),
                "{delivery:?}: object {index}, slot {slot}: not {right}"
            );
        }
    }
}

#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}
