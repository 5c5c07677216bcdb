//! Budgets that are too small.

use crate::build::{Kind, program};
use crate::ends::run;
use crate::test_folder::TestFolder;

#[test]
fn a_budget_in_which_programs_get_nowhere_is_refused_with_the_least() {
    let Some(test_folder) = TestFolder::new() else { return };
    let end = run(test_folder.memobj(&["--budget", "1M"], &["echo", "x"]));
    assert!(end.code() == 2 && end.out.is_empty() && end.err.contains("the least is 4M"), "{end:?}");
    run(test_folder.memobj(&["--budget", "4M"], &["echo", "x"])).succeeded("the least");
}

#[test]
fn a_line_tells_which_budget_would_do() {
    let (Some(test_folder), Some(program)) = (TestFolder::new(), program("crowd", Kind::Dynamic)) else {
        return;
    };
    test_folder.sample("sample", 2048);
    let words = [program.as_os_str(), "threads".as_ref(), "sample".as_ref(), "1".as_ref()];
    let end = run(test_folder.memobj(&["--tight", "--budget", "64k"], &words));
    assert!(end.status.success(), "{end:?}");
    let line = end.err.lines().last().expect("a line");
    assert!(line.starts_with("memobj: the budget of 64 KiB is too small for what runs: "), "{end:?}");
    let enough = line.split("--budget ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a figure");
    run(test_folder.memobj(&["--budget", enough], &words)).succeeded(enough);
}
