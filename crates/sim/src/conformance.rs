//! What every pager must do, checked on the pager itself, without an engine.

use std::ops::Range;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use memobj::SupplyError;
use memobj::pagers::{Blocking, BlockingPager, Pager, SupplyRequest};

use crate::random::Random;

const PAGE: u64 = 4096;

/// Runs the whole suite on a pager that is called, as it is and as [`Blocking`]; `make` opens the same object again and
/// again, `expected` are its bytes.
///
/// # Panics
///
/// If the pager does not conform.
pub fn run<P: BlockingPager + 'static>(make: impl Fn() -> P, expected: &[u8]) {
    assert_eq!(make().length(), expected.len() as u64);
    for range in ranges(expected.len() as u64) {
        let mut buffer = vec![0xa5; (range.end - range.start) as usize];
        let count = make().supply(range.clone(), &mut buffer);
        let count = count.unwrap_or_else(|error| panic!("supply {range:?}: {error}"));
        assert_eq!(count, buffer.len(), "supply {range:?} answered another length");
        compare(&buffer, &range, expected);
    }
    run_answering(|| Blocking(make()), expected);
}

/// Runs the whole suite on a pager that answers requests.
///
/// # Panics
///
/// If the pager does not conform.
pub fn run_answering<P: Pager + 'static>(make: impl Fn() -> P, expected: &[u8]) {
    length_is_right_and_stays(&make(), expected);
    whole_and_aligned_ranges(&make(), expected);
    many_requests_at_once(&make(), expected);
    disjoint_ranges_of_threads(&make(), expected);
    instances_do_not_disturb_each_other(&make(), make(), expected);
    detach_ends_requests(make());
}

fn compare(got: &[u8], range: &Range<u64>, expected: &[u8]) {
    let right = &expected[range.start as usize..range.end as usize];
    assert_eq!(got.len(), right.len(), "supply {range:?} answered another length");
    let wrong = got.iter().zip(right).position(|(got, right)| got != right);
    assert_eq!(wrong, None, "supply {range:?}: a wrong byte at this index");
}

type Answer = Result<Vec<u8>, SupplyError>;

/// Asks for `range`; the answer can come from any thread.
fn ask<P: Pager + ?Sized>(pager: &P, range: Range<u64>) -> Receiver<Answer> {
    let (sender, answer) = channel();
    let request = SupplyRequest::new(range, move |answer| {
        // Who asked may have ended by a panic.
        let _ = sender.send(answer.map(<[u8]>::to_vec));
    });
    pager.supply(request.expect("memory for a request"));
    answer
}

fn wait(answer: &Receiver<Answer>, what: &dyn std::fmt::Debug) -> Answer {
    answer
        .recv_timeout(crate::fixture::GUARD)
        .unwrap_or_else(|error| panic!("no answer for {what:?}: {error}"))
}

/// Supplies `range` and checks that all of it is right.
fn check<P: Pager + ?Sized>(pager: &P, range: Range<u64>, expected: &[u8]) {
    let answer = wait(&ask(pager, range.clone()), &range);
    let bytes = answer.unwrap_or_else(|error| panic!("supply {range:?}: {error}"));
    compare(&bytes, &range, expected);
}

fn length_is_right_and_stays<P: Pager>(pager: &P, expected: &[u8]) {
    let length = expected.len() as u64;
    assert_eq!(pager.describe().length(), length);
    assert!(pager.describe().depth_limit() > 0 && pager.describe().block().is_power_of_two());
    if length > 0 {
        check(pager, 0..length.min(PAGE), expected);
    }
    assert_eq!(pager.describe().length(), length, "after a supply");
}

/// A range as the engine forms them: starts at a page, ends at a page or at the end.
fn some_range(random: &mut Random, length: u64) -> Range<u64> {
    let pages = length.div_ceil(PAGE);
    let start = random.below(pages);
    let count = 1 + random.below((pages - start).min(64));
    start * PAGE..((start + count) * PAGE).min(length)
}

/// All of it, its tails, and some others.
fn ranges(length: u64) -> Vec<Range<u64>> {
    if length == 0 {
        return Vec::new();
    }
    let tails = [1, 2, 512].map(|pages| length.div_ceil(PAGE).saturating_sub(pages) * PAGE..length);
    let mut random = Random::new(1);
    let some = (0..200).map(|_| some_range(&mut random, length));
    std::iter::once(0..length).chain(tails).filter(|range| !range.is_empty()).chain(some).collect()
}

fn whole_and_aligned_ranges<P: Pager>(pager: &P, expected: &[u8]) {
    ranges(expected.len() as u64).into_iter().for_each(|range| check(pager, range, expected));
}

/// Requests that are all made before the first answer is looked at.
fn many_requests_at_once<P: Pager>(pager: &P, expected: &[u8]) {
    let length = expected.len() as u64;
    let depth = pager.describe().depth_limit().min(64) as u64;
    let share = length.div_ceil(PAGE).div_ceil(depth).max(1) * PAGE;
    let parts: Vec<Range<u64>> =
        (0..length).step_by(share as usize).map(|start| start..(start + share).min(length)).collect();
    let asked: Vec<_> = parts.iter().map(|part| ask(pager, part.clone())).collect();
    for (part, answer) in parts.iter().zip(asked) {
        let bytes = wait(&answer, part).unwrap_or_else(|error| panic!("supply {part:?}: {error}"));
        compare(&bytes, part, expected);
    }
}

fn disjoint_ranges_of_threads<P: Pager>(pager: &P, expected: &[u8]) {
    let length = expected.len() as u64;
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

fn instances_do_not_disturb_each_other<P: Pager>(one: &P, other: P, expected: &[u8]) {
    other.detach();
    drop(other);
    let first = expected.len().min(PAGE as usize);
    if first > 0 {
        check(one, 0..first as u64, &expected[..first]);
    }
}

/// After `detach` a request ends soon, with whatever answer, and with the right bytes if the answer is "all".
fn detach_ends_requests<P: Pager + 'static>(pager: P) {
    let length = pager.describe().length();
    let start = Instant::now();
    pager.detach();
    if length == 0 {
        return;
    }
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        let answer = ask(&pager, 0..length.min(PAGE));
        let _ = answer.recv();
        let _ = sender.send(());
    });
    let answer = ended.recv_timeout(crate::fixture::GUARD);
    assert!(answer.is_ok(), "a request is not answered {:?} after detach", start.elapsed());
}
