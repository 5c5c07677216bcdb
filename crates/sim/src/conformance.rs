//! What every pager must do, checked on the pager itself, without an engine.

use std::ops::Range;
use std::time::{Duration, Instant};

use memobj::pagers::{Pager, Source};

use crate::random::Random;

const PAGE: u64 = 4096;

/// How long a pager may take to end a call of an object that has ended. Long enough for any machine.
const PATIENCE: Duration = crate::fixture::GUARD;

/// Runs the whole suite; `make` opens the same object again and again, `expected` are its bytes.
///
/// # Panics
///
/// If the pager does not conform.
pub fn run<P: Pager + 'static>(make: impl Fn() -> P, expected: &[u8]) {
    length_is_right_and_stays(&make(), expected);
    whole_and_aligned_ranges(&make(), expected);
    the_tail(&make(), expected);
    disjoint_ranges_at_once(&make(), expected);
    the_shorter_way_agrees(&make(), expected);
    instances_do_not_disturb_each_other(&make(), make(), expected);
    detach_ends_calls(make());
}

/// Supplies `range` and checks that all of it is right.
fn check<P: Pager + ?Sized>(pager: &P, range: Range<u64>, expected: &[u8]) {
    let mut buffer = vec![0xa5; (range.end - range.start) as usize];
    let count = pager.supply(range.clone(), &mut buffer);
    let count = count.unwrap_or_else(|error| panic!("supply {range:?}: {error}"));
    assert_eq!(count, buffer.len(), "supply {range:?} answered another length");
    let right = &expected[range.start as usize..range.end as usize];
    let wrong = buffer.iter().zip(right).position(|(got, right)| got != right);
    assert_eq!(wrong, None, "supply {range:?}: a wrong byte at this index");
}

fn length_is_right_and_stays<P: Pager>(pager: &P, expected: &[u8]) {
    assert_eq!(pager.length(), expected.len() as u64);
    if pager.length() > 0 {
        check(pager, 0..pager.length().min(PAGE), expected);
    }
    assert_eq!(pager.length(), expected.len() as u64, "after a supply");
}

/// A range as the engine forms them: starts at a page, ends at a page or at the end.
fn some_range(random: &mut Random, length: u64) -> Range<u64> {
    let pages = length.div_ceil(PAGE);
    let start = random.below(pages);
    let count = 1 + random.below((pages - start).min(64));
    start * PAGE..((start + count) * PAGE).min(length)
}

fn whole_and_aligned_ranges<P: Pager>(pager: &P, expected: &[u8]) {
    let length = pager.length();
    if length == 0 {
        return;
    }
    check(pager, 0..length, expected);
    let mut random = Random::new(1);
    for _ in 0..200 {
        check(pager, some_range(&mut random, length), expected);
    }
}

fn the_tail<P: Pager>(pager: &P, expected: &[u8]) {
    let length = pager.length();
    for pages in [1, 2, 512] {
        let start = length.div_ceil(PAGE).saturating_sub(pages) * PAGE;
        if start < length {
            check(pager, start..length, expected);
        }
    }
}

fn disjoint_ranges_at_once<P: Pager>(pager: &P, expected: &[u8]) {
    let length = pager.length();
    let threads = 4;
    let share = (length.div_ceil(PAGE)).div_ceil(threads) * PAGE;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let (start, end) = ((thread * share).min(length), ((thread + 1) * share).min(length));
                for page in (start..end).step_by(PAGE as usize) {
                    check(pager, page..(page + PAGE).min(end), expected);
                }
            });
        }
    });
}

fn the_shorter_way_agrees<P: Pager>(pager: &P, expected: &[u8]) {
    match pager.source() {
        Source::Memory(bytes) => assert!(bytes.starts_with(expected), "the slice is not the object"),
        Source::Zero => assert!(expected.iter().all(|byte| *byte == 0), "the object is not zeros"),
        Source::File(file) => assert_eq!(file.length(), expected.len() as u64),
        _ => {}
    }
}

fn instances_do_not_disturb_each_other<P: Pager>(one: &P, other: P, expected: &[u8]) {
    other.detach();
    drop(other);
    check(one, 0..one.length().min(PAGE), &expected[..expected.len().min(PAGE as usize)]);
}

/// After `detach` a call ends soon, with whatever answer, and with the right bytes if the answer is "all".
fn detach_ends_calls<P: Pager + 'static>(pager: P) {
    let length = pager.length();
    if length == 0 {
        return pager.detach();
    }
    let start = Instant::now();
    let (sender, ended) = std::sync::mpsc::channel();
    pager.detach();
    std::thread::spawn(move || {
        let mut buffer = vec![0; length.min(PAGE) as usize];
        let _ = pager.supply(0..length.min(PAGE), &mut buffer);
        let _ = sender.send(());
    });
    let answer = ended.recv_timeout(PATIENCE);
    assert!(answer.is_ok(), "a supply still runs {:?} after detach", start.elapsed());
}
