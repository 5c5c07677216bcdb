use memobj_run::history::History;
use memobj_run::report::text;

use crate::sample::{big, hostile, ls};

fn width(report: &str) -> usize {
    report.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[test]
fn a_small_run_fits_on_a_screen() {
    let report = text(&ls());
    println!("{report}");
    assert!(report.lines().count() < 24, "{}", report.lines().count());
    assert!(width(&report) <= 80, "{}", width(&report));
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[0], "ls -l: exited with 0 after 3.5 ms");
    assert!(report.contains("frames    2.1 MiB at most of 64.0 MiB"), "{report}");
    assert!(report.contains("3 left to the kernel"), "{report}");
    assert!(report.contains("  /usr/lib/locale/locale-archive\n"), "{report}");
    assert!(!report.contains("could not be supplied"), "{report}");
}

#[test]
fn a_big_run_is_summed_up_in_forty_lines() {
    let mut history = big();
    let report = text(&history);
    println!("{report}");
    assert!(report.lines().count() <= 40, "{}", report.lines().count());
    assert!(report.contains("and 290 more files: "), "{report}");
    assert!(report.contains("; 1234 more are not counted"), "{report}");
    let wide = |line: &&str| line.chars().count() > 80 && !line.starts_with("  [");
    assert_eq!(report.lines().find(wide), None);
    // Whatever is long is cut, but not what failed.
    history.command = vec!["x".repeat(10_000).into(); 100];
    history.files[3].path = format!("/{}", "y".repeat(3000)).into();
    history.files[3].failed = vec![(1, "z".repeat(300))];
    history.files.swap(0, 3);
    let report = text(&history);
    assert!(report.lines().count() <= 40);
    assert_eq!(report.lines().find(wide), None);
    assert!(report.contains(&"y".repeat(3000)));
}

#[test]
fn failed_pages_are_named_with_file_and_range() {
    let mut history = ls();
    history.files[4].failed =
        vec![(40, "input/output error".into()), (41, "input/output error".into()), (469, "timed out".into())];
    let report = text(&history);
    let of = "of /usr/lib/x86_64-linux-gnu/libc.so.6:";
    assert!(report.contains(&format!("  [163840, 172032) {of} input/output error\n")), "{report}");
    // The file ends within its last page.
    assert!(report.contains(&format!("  [1921024, 1922136) {of} timed out\n")), "{report}");
    history.files[4].failed = (0..100).map(|page| (2 * page, "no".to_string())).collect();
    let report = text(&history);
    assert!(report.contains("\n  and 94 more ranges\n"), "{report}");
}

#[test]
fn names_cannot_steer_the_terminal() {
    let report = text(&hostile());
    let steers = |character: &char| character.is_control() && *character != '\n';
    assert_eq!(report.chars().find(steers), None, "{report}");
    assert!(report.contains("\\xff\\u{2028}\\u{202e}"), "{report}");
    assert!(report.contains("\\u{1b}[2J"), "{report}");
    let lines = report.lines().count();
    assert!(lines < 28, "a newline in a name begins no line: {lines}");
}

#[test]
fn an_empty_history_is_told_as_well() {
    let report = text(&History::default());
    assert!(report.starts_with(": its end was not seen after 0 ns\n"), "{report}");
    assert!(report.contains("none was mapped"), "{report}");
}
