//! The choice case by case, then whole workloads through real page words.

extern crate std;

use super::*;
use crate::page_word::{PageWord, State, Transition};
use alloc::vec;
use alloc::vec::Vec;

fn clean(stamp: u8, heat: u8) -> Word {
    let filling = Word::default().after(Transition::Claim { deferred: false }).unwrap();
    filling.after(Transition::Supply { stamp, heat }).unwrap()
}

fn ghost(stamp: u8) -> Word {
    let evicting = clean(0, 0).after(Transition::Evict).unwrap();
    evicting.after(Transition::Evicted { stamp }).unwrap()
}

#[test]
fn the_choice_case_by_case() {
    use Choice::*;
    let cases = [
        // stamp, heat, now, choice
        (10, 0, 10, Keep { heat: 0 }),
        (10, 0, 11, Evict),
        (255, 0, 255, Keep { heat: 0 }),
        (255, 0, 0, Evict),
        (10, 1, 10, Keep { heat: 1 }),
        (10, 1, 40, Keep { heat: 0 }),
        (10, 2, 40, Keep { heat: 1 }),
        (10, 3, 11, Keep { heat: 3 }),
        (10, 3, 21, Keep { heat: 3 }),
        (10, 3, 22, Evict),
        (250, 3, 5, Keep { heat: 3 }),
        (250, 3, 6, Evict),
    ];
    for (stamp, heat, now, want) in cases {
        assert_eq!(choose(clean(stamp, heat), now), want, "stamp {stamp}, heat {heat}, now {now}");
    }
}

#[test]
fn the_heat_on_supply_case_by_case() {
    assert_eq!(heat_on_supply(Word::default(), 0), 0, "never resident before");
    for (stamp, now, want) in [(10, 10, 2), (10, 16, 2), (10, 17, 1), (10, 22, 1), (10, 23, 0), (250, 0, 2)] {
        let absent = ghost(stamp);
        assert_eq!(heat_on_supply(absent, now), want, "went at {stamp}, comes at {now}");
        let filling = absent.after(Transition::Claim { deferred: true }).unwrap();
        assert_eq!(heat_on_supply(filling, now), want, "the claim must not lose the ghost");
    }
}

#[test]
fn the_clock_turns_sixteen_ticks_per_budget() {
    let clock = Clock::new(1600);
    assert_eq!(clock.now(), 0);
    clock.supplied(99);
    assert_eq!(clock.now(), 0);
    clock.supplied(1);
    assert_eq!(clock.now(), 1);
    clock.supplied(1500);
    assert_eq!(clock.now(), TICKS_PER_TURNOVER);
    clock.supplied(25_600);
    assert_eq!(clock.now(), TICKS_PER_TURNOVER, "modulo 256");
    for limit in [0, 1, u64::MAX] {
        let clock = Clock::new(limit);
        clock.supplied(u64::MAX);
        clock.now();
    }
}

/// A cache of one object: pages of one byte, a hand that takes whole blocks.
struct Cache {
    pages: Vec<PageWord>,
    clock: Clock,
    budget: usize,
    resident: usize,
    block: usize,
    batch: usize,
    hand: usize,
    visited: u64,
    evicted: u64,
}

#[derive(Clone, Copy)]
enum Why {
    Asked,
    Guessed,
}

impl Cache {
    fn new(pages: usize, budget: usize, block: usize, batch: usize) -> Self {
        Self {
            pages: (0..pages).map(|_| PageWord::new()).collect(),
            clock: Clock::new(budget as u64),
            budget,
            resident: 0,
            block,
            batch,
            hand: 0,
            visited: 0,
            evicted: 0,
        }
    }

    fn holds(&self, page: usize) -> bool {
        self.pages[page].load().state() == State::Clean
    }

    fn visit(&mut self, page: usize, now: u8) {
        let page = &self.pages[page];
        let word = page.load();
        if word.state() != State::Clean {
            return;
        }
        self.visited += 1;
        match choose(word, now) {
            Choice::Keep { heat } => {
                page.advance(Transition::SetHeat { heat }).unwrap();
            }
            Choice::Evict => {
                page.advance(Transition::Evict).unwrap();
                page.advance(Transition::Evicted { stamp: now }).unwrap();
                self.resident -= 1;
                self.evicted += 1;
            }
        }
    }

    fn reclaim(&mut self) {
        let goal = self.evicted + self.batch as u64;
        let mut walked = 0;
        while self.evicted < goal {
            assert!(walked <= 4 * self.pages.len(), "the hand found too little in four sweeps");
            let now = self.clock.now();
            for page in self.hand..self.hand + self.block {
                self.visit(page, now);
            }
            self.hand = (self.hand + self.block) % self.pages.len();
            walked += self.block;
        }
    }

    /// Makes `page` resident; whether it was already.
    fn access(&mut self, page: usize, why: Why) -> bool {
        if self.holds(page) {
            return true;
        }
        if self.resident == self.budget {
            self.reclaim();
        }
        let now = self.clock.now();
        let before = self.pages[page].advance(Transition::Claim { deferred: false }).unwrap().before;
        let heat = match why {
            Why::Asked => heat_on_supply(before, now),
            Why::Guessed => heat_on_read_ahead(),
        };
        self.pages[page].advance(Transition::Supply { stamp: now, heat }).unwrap();
        self.clock.supplied(1);
        self.resident += 1;
        false
    }

    /// The part of the visited pages that stayed.
    fn kept(&self) -> f64 {
        1.0 - self.evicted as f64 / self.visited as f64
    }
}

/// Exact LRU: time stamps, and a queue in which only a page's newest entry counts.
struct Lru {
    newest: Vec<u64>,
    queue: std::collections::VecDeque<(u64, usize)>,
    resident: usize,
    budget: usize,
    time: u64,
}

impl Lru {
    fn new(pages: usize, budget: usize) -> Self {
        Self { newest: vec![0; pages], queue: Default::default(), resident: 0, budget, time: 0 }
    }

    fn access(&mut self, page: usize) -> bool {
        self.time += 1;
        let hit = self.newest[page] != 0;
        while !hit && self.resident == self.budget {
            let (time, oldest) = self.queue.pop_front().unwrap();
            if self.newest[oldest] == time {
                self.newest[oldest] = 0;
                self.resident -= 1;
            }
        }
        self.resident += usize::from(!hit);
        self.newest[page] = self.time;
        self.queue.push_back((self.time, page));
        hit
    }
}

/// xorshift64*: the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Zipf ranks with exponent 0.99, scattered over the pages.
fn zipf(pages: usize, count: usize) -> Vec<usize> {
    let mut sum = 0.0;
    let mut upto = Vec::with_capacity(pages);
    for rank in 1..=pages {
        sum += (rank as f64).powf(-0.99);
        upto.push(sum);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let draw = |_| {
        let at = random.unit() * sum;
        let rank = upto.partition_point(|&x| x < at).min(pages - 1);
        (rank * 2_654_435_761 + 12_345) % pages
    };
    (0..count).map(draw).collect()
}

/// Hit rates in percent after `warm` accesses: this policy's and exact LRU's.
fn compare(cache: &mut Cache, accesses: &[usize], warm: usize) -> (f64, f64) {
    let mut lru = Lru::new(cache.pages.len(), cache.budget);
    let mut hits = (0, 0);
    for (time, &page) in accesses.iter().enumerate() {
        let hit = (cache.access(page, Why::Asked), lru.access(page));
        if time >= warm {
            hits.0 += u32::from(hit.0);
            hits.1 += u32::from(hit.1);
        }
    }
    let percent = |hits: u32| f64::from(hits) * 100.0 / (accesses.len() - warm) as f64;
    (percent(hits.0), percent(hits.1))
}

#[test]
fn zipf_is_within_a_point_of_exact_lru() {
    let mut cache = Cache::new(16_384, 4096, 512, 256);
    let (ours, lru) = compare(&mut cache, &zipf(16_384, 300_000), 100_000);
    std::println!("zipf: {ours:.2}, exact lru {lru:.2}, kept {:.2}", cache.kept());
    assert!(ours > lru - 1.0, "{ours:.2} against {lru:.2}");
    assert!(cache.kept() < 0.5, "kept {:.2}", cache.kept());
}

#[test]
fn uniform_random_hits_its_share_and_keeps_little() {
    let mut cache = Cache::new(16_384, 4096, 512, 256);
    let mut random = Random(7);
    let accesses: Vec<usize> = (0..200_000).map(|_| random.below(16_384)).collect();
    let (ours, lru) = compare(&mut cache, &accesses, 100_000);
    std::println!("uniform: {ours:.2}, exact lru {lru:.2}, kept {:.2}", cache.kept());
    assert!((ours - 25.0).abs() < 1.0, "{ours:.2}");
    assert!(cache.kept() < 0.34, "kept {:.2}", cache.kept());
}

/// Readers that each go round a part of their own, `window` pages read ahead; how many pages had to be
/// supplied once more because they went before they were consumed, and how many were supplied at all.
fn stream(cache: &mut Cache, readers: usize, window: usize, rounds: usize) -> (u64, u64) {
    let part = cache.pages.len() / readers;
    let mut random = Random(77);
    let mut at: Vec<usize> = (0..readers).map(|reader| reader * 13).collect();
    let mut ahead = vec![false; cache.pages.len()];
    let (mut again, mut supplied) = (0, 0);
    for _ in 0..rounds * cache.pages.len() {
        let reader = random.below(readers);
        for step in 0..=window {
            let page = reader * part + (at[reader] + step) % part;
            let why = if step == 0 { Why::Asked } else { Why::Guessed };
            if !cache.access(page, why) {
                again += u64::from(ahead[page]);
                supplied += 1;
            }
            ahead[page] = step > 0;
        }
        at[reader] += 1;
    }
    (again, supplied)
}

#[test]
fn four_streams_do_not_lose_what_was_read_ahead() {
    for (block, batch) in [(512, 1), (512, 8), (16, 1), (64, 16)] {
        let mut cache = Cache::new(512, 128, block, batch);
        let (again, supplied) = stream(&mut cache, 4, 8, 20);
        std::println!("streams, block {block}: {again} of {supplied} again");
        assert!(again * 1000 <= supplied, "{again} of {supplied} were supplied twice");
    }
}

#[test]
fn a_sequential_loop_evicts_behind_the_reader() {
    let mut cache = Cache::new(16_384, 4096, 512, 256);
    let (again, supplied) = stream(&mut cache, 1, 64, 6);
    std::println!("loop: {again} of {supplied} again, kept {:.2}", cache.kept());
    assert_eq!(again, 0, "of {supplied}");
    assert!(cache.kept() < 0.3, "kept {:.2}", cache.kept());
}

#[test]
fn a_tiny_budget_still_finds_a_victim() {
    for budget in 1..40 {
        let mut cache = Cache::new(64, budget, 64, 1);
        let mut random = Random(budget as u64);
        for _ in 0..2000 {
            let why = if random.below(2) == 0 { Why::Asked } else { Why::Guessed };
            cache.access(random.below(64), why);
            assert!(cache.resident <= budget);
        }
    }
}
