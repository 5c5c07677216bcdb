//! How near the engine comes to what a pager with a latency and a depth allows. Measured only with `MEMOBJ_MEASURE`: times
//! decide no test.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use memobj::pagers::{Blocking, BlockingPager, Description, Pager, SupplyRequest, WriteRequest};
use memobj::{Advice, Cache, CacheOptions, Delivery, MapOptions, ObjectOptions, Writing};
use memobj_sim::fixture::{MIB, wait_until};
use memobj_sim::process::Usage;
use memobj_sim::{Gate, Random};

use crate::answering::{Sticks, Stuck, hang};

const PAGE: u64 = 4096;
const LATENCY: Duration = Duration::from_millis(20);
const DEPTH: usize = 64;

enum Request {
    Supply(SupplyRequest),
    Write(WriteRequest),
}

/// Answers each request [`LATENCY`] after it came, on one thread.
#[derive(Clone)]
struct Far {
    description: Description,
    queue: Arc<(Mutex<Queue>, Condvar)>,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<(Instant, Request)>,
    is_over: bool,
    most: usize,
    descents: usize,
    last: u64,
}

impl Far {
    fn new(length: u64, block: u64) -> Self {
        let description = Description::new(length).block_bytes(block).depth(DEPTH).writable();
        let far = Self { description, queue: Arc::default() };
        std::thread::spawn({
            let far = far.clone();
            move || far.answer()
        });
        far
    }

    fn push(&self, start: u64, request: Request) {
        let mut queue = self.queue.0.lock().unwrap();
        queue.descents += usize::from(start < queue.last);
        queue.last = start;
        queue.requests.push_back((Instant::now() + LATENCY, request));
        queue.most = queue.most.max(queue.requests.len());
        self.queue.1.notify_one();
    }

    fn answer(&self) {
        let mut queue = self.queue.0.lock().unwrap();
        while !queue.is_over {
            let now = Instant::now();
            let Some((at, _)) = queue.requests.front() else {
                queue = self.queue.1.wait(queue).unwrap();
                continue;
            };
            if *at > now {
                let left = *at - now;
                queue = self.queue.1.wait_timeout(queue, left).unwrap().0;
                continue;
            }
            let Some((_, request)) = queue.requests.pop_front() else { continue };
            drop(queue);
            match request {
                Request::Supply(request) => request.answer(|range, buffer| {
                    buffer.fill((range.start >> 12) as u8 | 1);
                    Ok(buffer.len())
                }),
                Request::Write(request) => request.done(),
            }
            queue = self.queue.0.lock().unwrap();
        }
    }
}

impl Pager for Far {
    fn describe(&self) -> Description {
        self.description.clone()
    }
    fn supply(&self, request: SupplyRequest) {
        self.push(request.range().start, Request::Supply(request));
    }
    fn write_back(&self, request: WriteRequest) {
        self.push(request.range().start, Request::Write(request));
    }
    fn detach(&self) {
        self.queue.0.lock().unwrap().is_over = true;
        self.queue.1.notify_all();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_far_pager_is_used_at_its_depth() {
    if std::env::var_os("MEMOBJ_MEASURE").is_none() {
        println!("skipped: measured only with MEMOBJ_MEASURE");
        return;
    }
    scattered();
    for block in [16 << 10, 64 << 10] {
        sequential(block);
    }
    write_back();
    beside_hangs();
}

/// 64 pages here and there, at once.
fn scattered() {
    let far = Far::new(1 << 30, PAGE);
    let cache = Cache::new(CacheOptions::new().budget_bytes(64 * MIB)).unwrap();
    let object = cache.object("far", far, ObjectOptions::new().advice(Advice::Random)).unwrap();
    let mapping = object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    let mut times = Vec::new();
    for round in 0..21_u64 {
        let ranges: Vec<_> =
            (0..64).map(|index| (index * 4093 + round * 64) * PAGE).map(|at| at..at + PAGE).collect();
        let begin = Instant::now();
        drop(mapping.pin_ranges(&ranges).unwrap());
        times.push(begin.elapsed());
    }
    println!("64 scattered pages: median {:?}, best possible {LATENCY:?}", median(times));
}

fn sequential(block: u64) {
    let length = 256 * MIB;
    let far = Far::new(length, block);
    let cache = Cache::new(CacheOptions::new().budget_bytes(256 * MIB)).unwrap();
    let options = ObjectOptions::new().advice(Advice::Sequential);
    let object = cache.object("far", far.clone(), options).unwrap();
    let mapping = object.map_all(MapOptions::new().delivery(Delivery::ReaderThread)).unwrap();
    let mut page = vec![0; PAGE as usize];
    let mut read = |from: u64, to: u64| {
        let begin = Instant::now();
        for at in (from..to).step_by(PAGE as usize) {
            mapping.touch_at(at, &mut page).unwrap();
        }
        begin.elapsed()
    };
    // The window grows to its size first.
    read(0, length / 4);
    let took = read(length / 4, length);
    let ideal = LATENCY.mul_f64((length / 4 * 3 / block) as f64 / DEPTH as f64);
    let most = far.queue.0.lock().unwrap().most;
    println!(
        "sequential, blocks of {block}: {took:?}, best possible {ideal:?}, ratio {:.3}, at most {most} at once",
        took.as_secs_f64() / ideal.as_secs_f64()
    );
}

fn write_back() {
    let length = 1 << 30;
    let far = Far::new(length, 256 << 10);
    let cache = Cache::new(CacheOptions::new().budget_bytes(3 << 30)).unwrap();
    let options = ObjectOptions::new().writing(Writing::InPlace);
    let object = cache.object("far", far.clone(), options).unwrap();
    let mapping = object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    let bytes = vec![3; MIB as usize];
    for at in (0..length).step_by(MIB as usize) {
        mapping.write_at(at, &bytes).unwrap();
    }
    let dirty = cache.metrics().dirty_bytes;
    {
        let mut queue = far.queue.0.lock().unwrap();
        (queue.most, queue.descents, queue.last) = (0, 0, 0);
    }
    let begin = Instant::now();
    let sync = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.sync(..)
    });
    let mut threads = 0;
    while !sync.is_finished() {
        threads = threads.max(Usage::now().threads);
        // waits: between two looks at how many threads there are; it decides nothing.
        std::thread::sleep(Duration::from_millis(5));
    }
    sync.join().unwrap().unwrap();
    let took = begin.elapsed();
    let (most, descents) = {
        let queue = far.queue.0.lock().unwrap();
        (queue.most, queue.descents)
    };
    let ideal = LATENCY.mul_f64(dirty as f64 / f64::from(256 << 10) / DEPTH as f64);
    println!(
        "write-back of {dirty} dirty bytes: {took:?}, best possible {ideal:?}, at most {most} at once, {descents} out of order, {threads} threads"
    );
}

/// Supplies sevens at once, by calls.
struct Sevens;

impl BlockingPager for Sevens {
    fn length(&self) -> u64 {
        64 * MIB
    }
    fn supply(&self, _: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, memobj::SupplyError> {
        buffer.fill(7);
        Ok(buffer.len())
    }
}

/// The 99th percentile of pins of absent pages of another object.
fn slow_pin(cache: &Cache) -> Duration {
    let options = ObjectOptions::new().advice(Advice::Random);
    let object = cache.object("sevens", Blocking(Sevens), options).unwrap();
    let mapping = object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    let mut random = Random::new(1);
    let mut times: Vec<Duration> = (0..20_000)
        .map(|_| {
            let at = random.below(64 * MIB / PAGE) * PAGE;
            let begin = Instant::now();
            drop(mapping.pin(at..at + 1).unwrap());
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 100 * 99]
}

fn beside_hangs() {
    for stuck in [Stuck::Supply, Stuck::WriteBack, Stuck::Sync, Stuck::SetLength, Stuck::Drop] {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let cache = Cache::new(CacheOptions::new().budget_bytes(4 * MIB)).unwrap();
            alone.push(slow_pin(&cache));
            let (gate, entered) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
            let pager = Sticks { stuck, gate: gate.clone(), entered: Arc::clone(&entered) };
            let options = ObjectOptions::new().writing(Writing::InPlace);
            let object = cache.object("sticks", Blocking(pager), options).unwrap();
            let mapping = object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
            let hanging = hang(stuck, object, mapping);
            wait_until("the pager hangs", || entered.load(Ordering::SeqCst) > 0);
            beside.push(slow_pin(&cache));
            gate.open();
            hanging.into_iter().for_each(|thread| thread.join().unwrap());
        }
        let (alone, beside) = (median(alone), median(beside));
        let ratio = beside.as_secs_f64() / alone.as_secs_f64();
        println!(
            "p99 of another object: alone {alone:?}, beside a hang in {stuck:?} {beside:?}, ratio {ratio:.2}"
        );
    }
}
