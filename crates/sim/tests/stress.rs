//! Eight threads over three objects under one budget, with eviction and injected errors; every byte is checked.
//!
//! `MEMOBJ_STRESS_SECONDS` is how long (5), `MEMOBJ_SEED` what is drawn (the time). The seed is printed; threads
//! make a run repeat in its draws only, not in its order.

use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use memobj::pagers::{Bytes, Faulty, Inject, Injection};
use memobj::{
    AccessError, Advice, Cache, CacheOptions, Delivery, ErrorKind, FailurePolicy, FrameSize, MapOptions,
    Mapping, ObjectOptions,
};
use memobj_sim::watchdog::watch;
use memobj_sim::{Random, known_byte};

const MIB: u64 = 1 << 20;
const THREADS: u64 = 8;
const LENGTH: u64 = 64 * MIB + 1234;
const CUSTOM_LENGTH: u64 = 16 * MIB + 77;
/// A quarter of all bytes.
const BUDGET: u64 = (2 * LENGTH + CUSTOM_LENGTH) / 4;

struct Object {
    mapping: Mapping,
    bytes: Vec<u8>,
    /// Where errors may come from, and of which kind.
    bad: Vec<(Range<u64>, ErrorKind)>,
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number: {text}")))
}

#[test]
fn eight_threads_over_three_objects_under_one_budget() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = setting("MEMOBJ_SEED").unwrap_or(now.as_nanos() as u64);
    let seconds = setting("MEMOBJ_STRESS_SECONDS").unwrap_or(5).max(2);
    println!("MEMOBJ_SEED={seed} MEMOBJ_STRESS_SECONDS={seconds}");
    for delivery in [Delivery::ReaderThread, Delivery::InThread] {
        stress(delivery, seed, Duration::from_secs(seconds) / 2);
    }
}

fn stress(delivery: Delivery, seed: u64, time: Duration) {
    let cache = Cache::new(CacheOptions::new().budget_bytes(BUDGET)).unwrap();
    let objects = [
        file_object(&cache, delivery, FrameSize::Small, 1),
        file_object(&cache, delivery, FrameSize::Large, 2),
        custom_object(&cache, delivery, seed),
    ];
    let (steps, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let deadline = Instant::now() + time;
    // A slow machine takes longer to come to what is tested.
    let goes_on = || {
        let metrics = cache.metrics();
        Instant::now() < deadline || metrics.evicted_pages == 0 || metrics.failed_pages == 0
    };
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&cache, &steps, &stop, seed));
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (objects, steps) = (&objects, &steps);
                let random = Random::new(seed ^ (thread << 32));
                let goes_on = &goes_on;
                scope.spawn(move || work(objects, random, goes_on, steps))
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    });
    objects.iter().for_each(Object::heals);
    let metrics = cache.metrics();
    println!("{delivery:?}: {} steps, {metrics:?}", steps.load(Ordering::Relaxed));
    assert!(metrics.peak_frame_bytes <= BUDGET, "{metrics:?}");
    assert!(metrics.evicted_pages > 0 && metrics.failed_pages > 0, "{metrics:?}");
    assert_eq!(metrics.pinned_bytes, 0);
}

fn file_object(cache: &Cache, delivery: Delivery, frames: FrameSize, salt: u64) -> Object {
    let bytes: Vec<u8> = known_bytes(salt, LENGTH);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file.as_file().sync_all().unwrap();
    let object = cache.open_file(file.path(), ObjectOptions::new().frames(frames)).unwrap();
    let mapping = object.map(0..LENGTH, MapOptions::new().delivery(delivery)).unwrap();
    Object { mapping, bytes, bad: Vec::new() }
}

fn custom_object(cache: &Cache, delivery: Delivery, seed: u64) -> Object {
    let bytes = known_bytes(3, CUSTOM_LENGTH);
    let mut random = Random::new(seed);
    let (mut plan, mut bad) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let page = random.below(CUSTOM_LENGTH / 4096) * 4096;
        let (action, kind) = match random.below(4) {
            0 => (Inject::Error, ErrorKind::Io),
            1 => (Inject::Short, ErrorKind::Truncated),
            2 => (Inject::Long, ErrorKind::Integrity),
            _ => (Inject::Delay(Duration::from_millis(2)), ErrorKind::Timeout),
        };
        // Once the first is used up, the next of the same page strikes.
        let times = Some(1 + random.below(20) as u32);
        plan.push(Injection::new(page..page + 4096, action).times(times));
        bad.push((page..page + 4096, kind));
    }
    let options = ObjectOptions::new().frames(FrameSize::Small).policy(
        [FailurePolicy::FailAtOnce, FailurePolicy::RetryFor(Duration::from_millis(200))]
            [random.below(2) as usize],
    );
    let pager = Faulty::new(Bytes::new(bytes.clone()), plan, seed);
    let mapping = cache.object("custom", pager, options).unwrap();
    let mapping = mapping.map(0..CUSTOM_LENGTH, MapOptions::new().delivery(delivery)).unwrap();
    Object { mapping, bytes, bad }
}

fn known_bytes(salt: u64, length: u64) -> Vec<u8> {
    (0..length).step_by(8).flat_map(|at| (at..(at + 8).min(length)).map(|at| known_byte(salt, at))).collect()
}

fn work(objects: &[Object; 3], mut random: Random, goes_on: impl Fn() -> bool, steps: &AtomicU64) {
    while goes_on() {
        step(&objects[random.below(3) as usize], &mut random);
        steps.fetch_add(1, Ordering::Relaxed);
    }
}

fn step(object: &Object, random: &mut Random) {
    let length = 1 + match random.below(8) {
        0 => random.below(600_000),
        _ => random.below(9000),
    };
    let at = random.below(object.mapping.len() - length);
    let range = at..at + length;
    let mapping = &object.mapping;
    match random.below(16) {
        0..5 => {
            let mut buffer = vec![0xee; length as usize];
            let answer = mapping.touch_at(at, &mut buffer);
            object.judge(range, answer.map(|()| buffer));
        }
        5..9 => {
            let mut buffer = vec![0xee; length as usize];
            let answer = mapping.read_at(at, &mut buffer);
            object.judge(range, answer.map(|()| buffer));
        }
        9..11 => object.judge(range.clone(), mapping.pin(range)),
        11 => {
            let ranges: Vec<_> = (0..16)
                .map(|_| (random.below(mapping.len() - 100), 1 + random.below(100)))
                .map(|(start, length)| start..start + length)
                .collect();
            match mapping.pin_ranges(&ranges) {
                Ok(pins) => {
                    pins.into_iter().zip(ranges).for_each(|(pin, range)| object.judge(range, Ok(pin)))
                }
                Err(error) => object.check_error(&(0..mapping.len()), &error),
            }
        }
        12 => mapping.prefetch(std::slice::from_ref(&range)).unwrap(),
        13 => drop(mapping.retry(range).unwrap()),
        14 => {
            let kinds = [Advice::Normal, Advice::Random, Advice::Sequential, Advice::DontNeed];
            mapping.advise(range, kinds[random.below(4) as usize]).unwrap();
        }
        _ => drop(mapping.retry(0..mapping.len()).unwrap()),
    }
}

impl Object {
    /// Once the injections are used up, everything can be read: no page is left behind in any state.
    fn heals(&self) {
        for _ in 0..5000 {
            self.mapping.retry(0..self.mapping.len()).unwrap();
            let mut buffer = vec![0xee; self.bytes.len()];
            match self.mapping.read_at(0, &mut buffer) {
                Ok(()) => return self.judge(0..self.mapping.len(), Ok(buffer)),
                Err(error) => self.check_error(&(0..self.mapping.len()), &error),
            }
        }
        panic!("still not whole: {:?}", self.mapping.last_error());
    }

    fn judge(&self, range: Range<u64>, answer: Result<impl std::ops::Deref<Target = [u8]>, AccessError>) {
        match answer {
            Ok(bytes) => {
                let right = &self.bytes[range.start as usize..range.end as usize];
                let wrong = bytes.iter().zip(right).position(|(got, right)| got != right);
                assert_eq!(
                    (bytes.len(), wrong),
                    (right.len(), None),
                    "wrong byte in {range:?}, at this index"
                );
            }
            Err(error) => self.check_error(&range, &error),
        }
    }

    fn check_error(&self, asked: &Range<u64>, error: &AccessError) {
        let error = match error {
            AccessError::Page(error) => error,
            // All threads together may want more pins than there may be.
            AccessError::PinsExceedBudget { .. } => return,
            error => panic!("{asked:?}: {error}"),
        };
        let range = error.range();
        assert!(range.start < asked.end && asked.start < range.end, "{error} was not asked for: {asked:?}");
        let fits = |kind: ErrorKind| kind == error.kind() || error.kind() == ErrorKind::Timeout;
        let planned = self.bad.iter().any(|(bad, kind)| *bad == range && fits(*kind));
        assert!(planned, "no such error was injected: {error}");
    }
}
