//! The examples run, and what they claim holds.

#[path = "../examples/alloc_stream.rs"]
mod alloc_stream;
#[path = "../examples/commit_latency.rs"]
mod commit_latency;
#[path = "../examples/custom_pager.rs"]
mod custom_pager;

use memobj::pagers::BlockingPager;

#[test]
fn the_custom_pager_example_runs() {
    custom_pager::main().unwrap();
}

#[test]
fn the_alloc_stream_example_runs() {
    alloc_stream::main().unwrap();
}

#[test]
fn the_measurement_of_commits_runs() {
    let _by_hand = commit_latency::main;
    commit_latency::measure(std::time::Duration::from_millis(1), 2, std::time::Duration::ZERO).unwrap();
}

#[test]
fn the_custom_pager_conforms() {
    // Up to the page that it loses on purpose.
    let expected: Vec<u8> = (0..1024u64).flat_map(|index| (index * index).to_le_bytes()).collect();
    memobj_sim::conformance::run(|| custom_pager::Squares { count: 1024 }, &expected);
    let mut page = [0; 4096];
    let lost = custom_pager::Squares { count: 4096 }.supply(8192..12_288, &mut page).unwrap_err();
    assert_eq!(lost.kind, memobj::ErrorKind::Io);
}
