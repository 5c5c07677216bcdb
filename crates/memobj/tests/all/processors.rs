//! Faults are resolved where they are raised; whoever raises them may move.

use memobj::pagers::Bytes;
use memobj::{Cache, CacheOptions, Delivery, FrameSize, MapOptions, Mapping, ObjectOptions};
use memobj_linux::processor;
use memobj_sim::fixture::{MIB, Sample, check_sample, sample_bytes, within};

const PAGE: u64 = 4096;
/// More than the faults after which a lane is chosen, so that every move finds one alone.
const PAGES_AT_ONCE: u64 = 100;
const LENGTH: u64 = 8 * MIB;

/// The object in memory, so that faults come fast, and in a file, so that each wakes somebody.
fn mappings() -> [(Cache, Mapping); 2] {
    let sample = Sample::new(LENGTH);
    let options = ObjectOptions::new().frames(FrameSize::Small);
    let new = || Cache::new(CacheOptions::new().budget_bytes(LENGTH / 4)).unwrap();
    let map = MapOptions::new().delivery(Delivery::ReaderThread);
    let (first, second) = (new(), new());
    let bytes = first.object("bytes", Bytes::new(sample_bytes(LENGTH).to_vec()), options.clone()).unwrap();
    let file = second.open_file(sample.path(), options).unwrap();
    let mappings = [bytes, file].map(|object| object.map(0..LENGTH, map).unwrap());
    mappings.iter().for_each(|mapping| mapping.advise(0..LENGTH, memobj::Advice::Random).unwrap());
    let [bytes, file] = mappings;
    [(first, bytes), (second, file)]
}

fn touch(mapping: &Mapping, first_page: u64, pages: u64) {
    for page in first_page..first_page + pages {
        // An odd stride, so that no stream is seen.
        let start = page * 7919 % (LENGTH / PAGE) * PAGE;
        let mut bytes = [0; 64];
        mapping.touch_at(start, &mut bytes).unwrap();
        check_sample(start..start + 64, &bytes, "touched");
    }
}

#[test]
fn a_thread_that_moves_from_processor_to_processor_is_served() {
    for (_cache, mapping) in mappings() {
        within(60, "a thread that moves", move || {
            for round in 0..40 {
                let allowed = processor::allowed();
                let there = allowed[round % allowed.len()];
                let mapping = &mapping;
                std::thread::scope(|scope| {
                    scope.spawn(move || {
                        for (turn, processor) in [there, allowed[0], there].into_iter().enumerate() {
                            processor::stay_on(processor).unwrap();
                            touch(mapping, (round as u64 * 3 + turn as u64) * PAGES_AT_ONCE, PAGES_AT_ONCE);
                        }
                    });
                });
            }
        });
    }
}

#[test]
fn threads_that_take_turns_on_all_processors_are_served() {
    for (_cache, mapping) in mappings() {
        within(60, "threads that take turns", move || {
            let allowed = processor::allowed();
            std::thread::scope(|scope| {
                for (thread, processor) in allowed.iter().cycle().take(2 * allowed.len()).enumerate() {
                    let mapping = &mapping;
                    scope.spawn(move || {
                        processor::stay_on(*processor).unwrap();
                        for round in 0..20 {
                            // Of some rounds all threads have a part, of others one.
                            if round % 5 == thread as u64 || round % 2 == 0 {
                                touch(mapping, round * 1000 + thread as u64 * 100, PAGES_AT_ONCE);
                            }
                        }
                    });
                }
            });
        });
    }
}
