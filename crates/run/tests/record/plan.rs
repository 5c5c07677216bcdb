use memobj_run::record::{FilePlan, LeftOut, Record};

use crate::bytes::Numbers;
use crate::check::check_plan;
use crate::from_history::history;

/// What is asked for, in pages: file, first, end.
fn planned(record: &Record, limit_pages: u64) -> Vec<(String, u64, u64)> {
    let plan = check_plan(record, limit_pages.saturating_mul(4096));
    let ranges = plan.requests.iter().flat_map(|request| {
        let name = request.path.to_string_lossy().into_owned();
        request.ranges.iter().map(move |range| (name.clone(), range.start / 4096, range.end.div_ceil(4096)))
    });
    ranges.collect()
}

fn asked(touches: &[(usize, u64)]) -> Vec<(String, u64, u64)> {
    planned(&Record::from_history(&history(&["/a", "/b"], touches)), u64::MAX)
}

fn expected(ranges: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    ranges.iter().map(|(name, first, end)| (name.to_string(), *first, *end)).collect()
}

#[test]
fn neighbours_are_read_together_in_the_order_of_the_first() {
    // 100 and, 16 pages behind it, 117 and 90 before it; 134 is 16 pages behind that; 200 is far.
    let touches = [(0, 100), (1, 7), (0, 200), (0, 117), (0, 90), (1, 8), (0, 134)];
    assert_eq!(asked(&touches), expected(&[("/a", 90, 135), ("/b", 7, 9), ("/a", 200, 201)]));
    // 17 pages are not read over.
    assert_eq!(asked(&[(0, 100), (0, 118)]), expected(&[("/a", 100, 101), ("/a", 118, 119)]));
    assert_eq!(asked(&[(0, 100), (0, 82)]), expected(&[("/a", 100, 101), ("/a", 82, 83)]));
}

#[test]
fn a_page_between_two_requests_makes_them_one() {
    assert_eq!(asked(&[(0, 30), (1, 0), (0, 10), (0, 20)]), expected(&[("/a", 10, 31), ("/b", 0, 1)]));
    assert_eq!(asked(&[(0, 10), (1, 0), (0, 30), (0, 20)]), expected(&[("/a", 10, 31), ("/b", 0, 1)]));
}

#[test]
fn requests_have_at_most_two_mebibytes() {
    let touches: Vec<(usize, u64)> = (0..600).map(|page| (0, page)).collect();
    assert_eq!(asked(&touches), expected(&[("/a", 0, 512), ("/a", 512, 600)]));
    let touches: Vec<(usize, u64)> = (0..600).rev().map(|page| (0, page)).collect();
    assert_eq!(asked(&touches), expected(&[("/a", 88, 600), ("/a", 0, 88)]));
    // What would be too long with both neighbours goes to one of them.
    let touches: Vec<(usize, u64)> =
        (0..400).chain(402..600).map(|page| (0, page)).chain([(0, 400)]).collect();
    assert_eq!(asked(&touches), expected(&[("/a", 0, 401), ("/a", 402, 600)]));
}

#[test]
fn it_ends_where_the_room_ends() {
    let record = Record::from_history(&history(&["/a", "/b"], &[(0, 0), (1, 5), (0, 10), (1, 100)]));
    assert_eq!(planned(&record, 0), []);
    assert_eq!(planned(&record, 1), expected(&[("/a", 0, 1)]));
    assert_eq!(planned(&record, 11), expected(&[("/a", 0, 1), ("/b", 5, 6)]));
    assert_eq!(planned(&record, 12), expected(&[("/a", 0, 11), ("/b", 5, 6)]));
    assert_eq!(planned(&record, 13), expected(&[("/a", 0, 11), ("/b", 5, 6), ("/b", 100, 101)]));
}

#[test]
fn ranges_end_with_the_file() {
    let record = Record::from_history(&history(&["/a"], &[(0, 599)]));
    let plan = record.plan(record.files(), u64::MAX);
    assert_eq!(plan.requests[0].ranges.first(), Some(&(599 * 4096..600 * 4096 - 5)));
}

#[test]
fn files_that_changed_are_left_out_and_named() {
    let record = Record::from_history(&history(&["/a", "/b", "/c", "/d"], &[(0, 1), (1, 2), (2, 3), (3, 4)]));
    let mut known = record.files().to_vec();
    known[0].length_bytes += 1;
    known[1].modified.1 += 1;
    known.remove(2);
    let plan = record.plan(&known, u64::MAX);
    let names: Vec<_> =
        plan.requests.iter().map(|request| request.path.to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["/d"]);
    let left_out = |path: &str, reason| FilePlan { path: path.into(), reason };
    let expected = [
        left_out("/a", LeftOut::Changed),
        left_out("/b", LeftOut::Changed),
        left_out("/c", LeftOut::Missing),
    ];
    assert_eq!(plan.left_out, expected);
}

#[test]
fn random_records_are_covered_once_each() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut numbers = Numbers(seed);
    for _ in 0..300 {
        let count = numbers.below(400);
        let touches: Vec<(usize, u64)> =
            (0..count).map(|_| (numbers.below(2) as usize, numbers.below(600))).collect();
        let record = Record::from_history(&history(&["/a", "/b"], &touches));
        check_plan(&record, u64::MAX);
        check_plan(&record, numbers.below(1200) * 4096);
    }
}
