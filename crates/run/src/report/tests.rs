//! What all reports count, and where programs are in the tree.

use std::time::Duration;

use super::runs::{failed_runs, runs};
use super::summary::{Place, Summary, command, outcome, places, process_count, tree};
use crate::history::{FaultRecord, FileHistory, History, ProcessHistory, ProgramEnd, Resolution};

fn program(pid: u32, parent: u32, end: ProgramEnd) -> ProcessHistory {
    ProcessHistory { pid, parent, ended: Some((Duration::ZERO, end)), ..Default::default() }
}

/// A shell that makes two processes; each goes on with another program, and the first of them had made one before.
fn shell() -> History {
    let exit = ProgramEnd::Exited(0);
    let processes = vec![
        program(10, 1, ProgramEnd::Exited(3)),
        program(11, 10, ProgramEnd::Replaced),
        program(12, 11, exit),
        program(11, 10, exit),
        program(13, 10, ProgramEnd::Replaced),
        program(13, 10, exit),
        // The number 12 again: another process, of the program that 11 is by now.
        program(12, 11, exit),
    ];
    History { processes, ..Default::default() }
}

#[test]
fn programs_have_their_place_in_the_tree() {
    let history = shell();
    let at = |parent, replaces| Place { parent, replaces };
    let expected = [
        at(None, None),
        at(Some(0), None),
        at(Some(1), None),
        at(Some(0), Some(1)),
        at(Some(0), None),
        at(Some(0), Some(4)),
        at(Some(3), None),
    ];
    assert_eq!(places(&history), expected);
    assert_eq!(tree(&history), [(0, 0), (1, 1), (2, 2), (3, 1), (6, 2), (4, 1), (5, 1)]);
    assert_eq!(process_count(&history), 5);
    assert_eq!(outcome(&history), Some(ProgramEnd::Exited(3)));
}

#[test]
fn strange_parents_are_no_circle() {
    let exit = ProgramEnd::Exited(0);
    let processes = vec![program(1, 1, exit), program(2, 3, exit), program(3, 2, exit), program(1, 1, exit)];
    let history = History { processes, ..Default::default() };
    assert_eq!(tree(&history), [(0, 0), (1, 0), (2, 1), (3, 0)]);
    assert_eq!(outcome(&History::default()), None);
}

#[test]
fn deep_trees_take_no_stack() {
    let count = 100_000;
    let processes = (1..=count).map(|pid| program(pid, pid - 1, ProgramEnd::Exited(0))).collect();
    let tree = tree(&History { processes, ..Default::default() });
    assert_eq!(tree.last(), Some(&(count as usize - 1, count as usize - 1)));
}

#[test]
fn faults_count_for_file_and_process() {
    let fault = |at, process, file, resolution| {
        let (at, duration) = (Duration::from_micros(at), Duration::from_micros(10));
        FaultRecord { at, duration, process, file, page: 0, resolution }
    };
    let history = History {
        files: vec![FileHistory::default(); 2],
        processes: vec![ProcessHistory::default()],
        faults: vec![
            fault(7, 0, 1, Resolution::Supplied),
            fault(5, 0, 1, Resolution::Failed),
            // Of nobody that is known.
            fault(9, 8, 8, Resolution::Resident),
        ],
        ..Default::default()
    };
    let summary = Summary::of(&history);
    let counts = |part: &super::summary::Part| (part.counts.major, part.counts.minor, part.counts.failed);
    assert_eq!(counts(&summary.whole), (1, 1, 1));
    assert_eq!(counts(&summary.files[0]), (0, 0, 0));
    assert_eq!(counts(&summary.files[1]), (1, 0, 1));
    assert_eq!(counts(&summary.processes[0]), (1, 0, 1));
    assert_eq!(summary.files[1].first, Some(Duration::from_micros(5)));
    assert_eq!(summary.files[1].last, Some(Duration::from_micros(7)));
    assert_eq!(summary.whole.slept, Duration::from_micros(30));
}

#[test]
fn pages_become_runs_in_their_order() {
    assert_eq!(runs([4, 5, 6, 2, 3, 3, u64::MAX]), [(4, 3), (2, 2), (3, 1), (u64::MAX, 1)]);
    assert_eq!(runs([]), []);
}

#[test]
fn neighbours_that_failed_alike_are_one_run() {
    let failed = |pages: &[(u64, &str)]| {
        let failed = pages.iter().map(|(page, reason)| (*page, reason.to_string())).collect();
        FileHistory { path: "/lib: x/y".into(), failed, ..Default::default() }
    };
    let file = failed(&[(1, "a"), (2, "a"), (3, "b"), (5, "b")]);
    assert_eq!(failed_runs(&file), [(1, 2, "a"), (3, 1, "b"), (5, 1, "b")]);
    // As errors of pages are told: each with its own range.
    let file = failed(&[
        (1, "supply [4096, 8192) of /lib: x/y: input/output error"),
        (2, "supply [8192, 12288) of /lib: x/y: input/output error"),
        (3, "supply [12288, 16384) of /other: input/output error"),
    ]);
    let other = "supply [12288, 16384) of /other: input/output error";
    assert_eq!(failed_runs(&file), [(1, 2, "input/output error"), (3, 1, other)]);
}

#[test]
fn the_command_is_that_of_the_first_process_if_nothing_else_is_known() {
    let mut history = shell();
    assert_eq!(command(&history), [""; 0]);
    history.processes[0].command = vec!["sh".into(), "-c".into()];
    assert_eq!(command(&history), ["sh", "-c"]);
    history.command = vec!["/bin/sh".into()];
    assert_eq!(command(&history), ["/bin/sh"]);
}
