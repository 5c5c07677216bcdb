//! What objects cost beside their frames, however long they are.

use std::ops::Range;

use memobj::pagers::{Blocking, BlockingPager};
use memobj::{Cache, Mapping, SupplyError};
use memobj_sim::Random;
use memobj_sim::fixture::{MIB, Reading, wait_until, ways};

const LENGTH: u64 = 64 << 30;
const BLOCK: u64 = 2 << 20;
/// Words and a page table.
const TABLE: u64 = 8192;

/// Each eight bytes say where they are.
struct Places;

fn word_at(offset: u64) -> u64 {
    offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

impl BlockingPager for Places {
    fn length(&self) -> u64 {
        LENGTH
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        for (at, bytes) in range.clone().step_by(8).zip(buffer.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word_at(at).to_ne_bytes());
        }
        Ok(buffer.len())
    }
}

fn check_word(mapping: &Mapping, how: Reading, at: u64) {
    let bytes = how.read(mapping, at..at + 8).unwrap();
    assert_eq!(bytes, word_at(at).to_ne_bytes(), "byte {at:#x}");
}

/// Reads one word in each of `blocks` random blocks, each way of reading in turn.
fn read_at_random(mapping: &Mapping, seed: u64, blocks: u64, readings: &[Reading]) {
    let mut random = Random::new(seed);
    for turn in 0..blocks {
        let at = random.below(LENGTH / 8) * 8;
        check_word(mapping, readings[turn as usize % readings.len()], at);
    }
}

/// The least that a cache may have, and what four threads may have obtained beyond.
fn bound(cache: &Cache) -> u64 {
    cache.metrics().budget_bytes / 8 + 16 * MIB + 64 * TABLE
}

#[test]
fn tables_are_given_back_while_threads_read_all_over_a_long_object() {
    for way in ways().filter(|way| way.page == 4096) {
        let (cache, mapping) = way.map(Blocking(Places));
        let readings: &[Reading] = if mapping.can_be_touched() { &Reading::ALL } else { &Reading::ALL[..2] };
        let mut most = 0;
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4)
                .map(|seed| {
                    scope.spawn({
                        let mapping = &mapping;
                        move || read_at_random(mapping, seed, 1500, readings)
                    })
                })
                .collect();
            while readers.iter().any(|reader| !reader.is_finished()) {
                most = most.max(cache.metrics().table_bytes);
                std::thread::yield_now();
            }
        });
        assert!(most > 8 * MIB, "{}: {most} bytes, nothing had to be given back", way.label);
        assert!(most <= bound(&cache), "{}: {most} bytes of tables", way.label);
    }
}

#[test]
fn pages_of_a_block_whose_tables_were_given_back_are_obtained_again() {
    for way in ways().filter(|way| way.page == 4096) {
        let (cache, mapping) = way.map(Blocking(Places));
        let pinned = mapping.pin(3 * BLOCK..3 * BLOCK + 8).unwrap();
        let supplied = |cache: &Cache| cache.metrics().supplied_pages;
        check_word(&mapping, Reading::Copy, 0);
        // Enough blocks that each has to give its tables back once at least.
        for block in 0..3 * bound(&cache) / TABLE {
            check_word(&mapping, Reading::Copy, (block % (LENGTH / BLOCK - 8) + 8) * BLOCK);
        }
        let before = supplied(&cache);
        check_word(&mapping, Reading::Copy, 0);
        assert_eq!(supplied(&cache), before + 1, "{}: the page was there still", way.label);
        assert_eq!(pinned[..], word_at(3 * BLOCK).to_ne_bytes(), "{}: a pin", way.label);
        check_word(&mapping, Reading::Copy, 3 * BLOCK);
        assert_eq!(supplied(&cache), before + 1, "{}: a pinned page was evicted", way.label);
        drop((pinned, mapping));
        // A thread of the engine can hold the object a moment longer.
        wait_until("an object that is gone has no tables", || cache.metrics().table_bytes == 0);
    }
}
