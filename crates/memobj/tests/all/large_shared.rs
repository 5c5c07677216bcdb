//! Shared frames of 2 MiB: one file, two views, and nothing seen of it before it is whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memobj::{Advice, Delivery, FrameSize, FrameVisibility, MapOptions, ObjectOptions};
use memobj_sim::fixture::{MIB, Reading, Sample, cache, has_large_shared_frames, sample_pager};
use memobj_sim::random::Random;

const BOTH: [Delivery; 2] = [Delivery::ReaderThread, Delivery::InThread];

fn options(frames: FrameSize) -> ObjectOptions {
    ObjectOptions::new().frames(frames).visibility(FrameVisibility::Shared).advice(Advice::Sequential)
}

#[test]
fn they_are_chosen_by_size_and_budget_for_sequences() {
    if !has_large_shared_frames() {
        return;
    }
    for (budget, frames, length, page) in [
        (32 * MIB, FrameSize::Auto, 16 * MIB, 2 * MIB),
        (32 * MIB, FrameSize::Auto, 16 * MIB - 1, 4096),
        (32 * MIB, FrameSize::Large, 1, 2 * MIB),
        (32 * MIB, FrameSize::Small, 16 * MIB, 4096),
        (31 * MIB, FrameSize::Large, 16 * MIB, 4096),
    ] {
        let object = cache(budget).object("sample", sample_pager(length), options(frames)).unwrap();
        let mapping = object.map(0..length, MapOptions::default()).unwrap();
        assert_eq!(mapping.page_bytes(), page, "{frames:?} {length} under {budget}");
    }
    for advice in [Advice::Normal, Advice::Random] {
        let options = options(FrameSize::Auto).advice(advice);
        let object = cache(32 * MIB).object("sample", sample_pager(16 * MIB), options).unwrap();
        assert_eq!(object.map(0..1, MapOptions::default()).unwrap().page_bytes(), 4096, "{advice:?}");
    }
}

/// Eviction, supply and the two views race; every byte that is read must be the object's.
#[test]
fn no_view_ever_shows_a_frame_that_is_not_whole() {
    if !has_large_shared_frames() {
        return;
    }
    const LENGTH: u64 = 12 * MIB + 5000;
    let sample = Sample::new(LENGTH);
    let cache = cache(32 * MIB);
    let file = cache.open_file(sample.path(), options(FrameSize::Large)).unwrap();
    let memory = cache.object("memory", sample_pager(LENGTH), options(FrameSize::Large)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for object in [&file, &memory] {
            let mappings =
                BOTH.map(|delivery| object.map(0..LENGTH, MapOptions::new().delivery(delivery)).unwrap());
            let evicting = object.map(0..LENGTH, MapOptions::default()).unwrap();
            for (seed, mapping) in mappings.into_iter().enumerate() {
                let (over, sample) = (&over, &sample);
                scope.spawn(move || {
                    let mut random = Random::new(seed as u64);
                    while !over.load(Ordering::Relaxed) {
                        let start = random.below(LENGTH - 1);
                        let end = (start + 1 + random.below(3 * 4096)).min(LENGTH);
                        let reading = Reading::ALL[random.below(3) as usize];
                        let bytes = reading.read(&mapping, start..end).unwrap();
                        sample.check(start..end, &bytes, "a race");
                    }
                });
            }
            let over = &over;
            scope.spawn(move || {
                let mut random = Random::new(7);
                while !over.load(Ordering::Relaxed) {
                    let start = random.below(LENGTH);
                    evicting.advise(start..(start + 3 * MIB).min(LENGTH), Advice::DontNeed).unwrap();
                    std::thread::yield_now();
                }
            });
        }
        let start = Instant::now();
        let raced = || cache.metrics().evicted_pages > 10 && start.elapsed() > Duration::from_secs(1);
        while !raced() {
            // waits: lets the threads race.
            std::thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
    });
    let metrics = cache.metrics();
    assert!(metrics.evicted_pages > 10 && metrics.peak_frame_bytes <= 32 * MIB, "{metrics:?}");
}

#[test]
fn the_budget_counts_whole_frames_and_gets_them_back() {
    if !has_large_shared_frames() {
        return;
    }
    for delivery in BOTH {
        let cache = cache(32 * MIB);
        let object = cache.object("sample", sample_pager(4 * MIB + 1), options(FrameSize::Large)).unwrap();
        let mapping = object.map(0..object.len(), MapOptions::new().delivery(delivery)).unwrap();
        mapping.populate(0..object.len()).unwrap();
        assert_eq!(cache.metrics().frame_bytes, 6 * MIB);
        mapping.advise(0..2 * MIB, Advice::DontNeed).unwrap();
        assert_eq!(cache.metrics().frame_bytes, 4 * MIB);
        drop(mapping);
        assert_eq!(cache.metrics().frame_bytes, 0);
    }
}
