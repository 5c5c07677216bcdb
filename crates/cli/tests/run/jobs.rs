//! Job control: the process that a shell knows behaves as the program does.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, waitpid};

use crate::build::{Kind, program};
use crate::ends::{LIMIT, Running};
use crate::test_folder::TestFolder;

/// What is heard of `pid` next, of its stops and continuations as well.
fn next(pid: Pid) -> WaitStatus {
    let since = Instant::now();
    loop {
        let options = WaitOptions::UNTRACED | WaitOptions::CONTINUED | WaitOptions::NOHANG;
        if let Some((_, status)) = waitpid(Some(pid), options).expect("a child to wait for") {
            return status;
        }
        assert!(since.elapsed() < LIMIT, "nothing is heard of {pid:?}");
        // waits: polls for news.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A program that tells of signals, under `memobj run` in a process group of its own: the front, and itself.
fn start(test_folder: &TestFolder) -> (Running, Pid, Pid) {
    let program = program("told", Kind::Dynamic).expect("a C compiler");
    let mut running = Running::start(test_folder.memobj(&[], &[program]));
    running.hear("ready");
    let number = running.said().0.split(' ').next().and_then(|number| number.parse().ok());
    let program = number.and_then(Pid::from_raw).expect("its number");
    let front = Pid::from_raw(running.pid()).expect("a number");
    (running, front, program)
}

fn stops(front: Pid) {
    assert!(next(front).stopped(), "the front does not stop");
}

#[test]
fn the_front_stops_and_goes_on_with_the_program() {
    let Some(test_folder) = TestFolder::new() else { return };
    let (running, front, program) = start(&test_folder);
    kill_process(program, Signal::STOP).expect("the program is there");
    stops(front);
    kill_process(program, Signal::CONT).expect("the program is there");
    assert!(next(front).continued());
    kill_process(program, Signal::TERM).expect("the program is there");
    assert_eq!(running.end().code(), 7);
}

#[test]
fn the_front_dies_with_a_program_that_is_killed_while_it_is_stopped() {
    let Some(test_folder) = TestFolder::new() else { return };
    let (running, front, program) = start(&test_folder);
    kill_process(program, Signal::STOP).expect("the program is there");
    stops(front);
    kill_process(program, Signal::KILL).expect("the program is there");
    assert_eq!(running.end().signal(), Some(9));
}

#[test]
fn a_group_stops_and_goes_on() {
    let Some(test_folder) = TestFolder::new() else { return };
    for signal in [Signal::STOP, Signal::TSTP] {
        let (running, front, _) = start(&test_folder);
        kill_process_group(front, signal).expect("the group is there");
        stops(front);
        kill_process_group(front, Signal::CONT).expect("the group is there");
        kill_process(front, Signal::USR1).expect("the front is there");
        assert_eq!(running.end().code(), 8, "{signal:?}");
    }
}

#[test]
fn the_program_goes_on_when_only_the_front_is_told_to() {
    let Some(test_folder) = TestFolder::new() else { return };
    let (running, front, program) = start(&test_folder);
    kill_process(program, Signal::STOP).expect("the program is there");
    stops(front);
    kill_process(front, Signal::CONT).expect("the front is there");
    kill_process(front, Signal::TERM).expect("the front is there");
    assert_eq!(running.end().code(), 7);
}

#[test]
fn signals_sent_to_the_front_reach_the_program() {
    let Some(test_folder) = TestFolder::new() else { return };
    for (signal, code, word) in [(Signal::TERM, 7, "told TERM"), (Signal::USR1, 8, "told USR1")] {
        let (running, front, _) = start(&test_folder);
        kill_process(front, signal).expect("the front is there");
        let end = running.end();
        assert_eq!(end.code(), code);
        assert!(end.out.contains(word), "{end:?}");
    }
    // One that it does not catch ends both.
    let mut running = Running::start(test_folder.memobj(&[], &["sh", "-c", "echo ready; exec sleep 100"]));
    running.hear("ready");
    kill_process(Pid::from_raw(running.pid()).expect("a number"), Signal::TERM).expect("the front is there");
    assert_eq!(running.end().signal(), Some(15));
}

#[test]
fn what_the_program_leaves_behind_goes_on_without_the_front() {
    let Some(test_folder) = TestFolder::new() else { return };
    let script = "(until [ -e go ]; do sleep 0.01; done; ls / | sort | tail -1 > late; mv late done) & echo now; exit 3";
    let mut running = Running::start(test_folder.memobj(&[], &["bash", "-c", script]));
    assert_eq!(running.wait().code(), Some(3));
    assert_eq!(running.said().0, "now\n");
    assert!(!test_folder.path("done").exists());
    test_folder.file("go", "");
    let since = Instant::now();
    while !test_folder.path("done").exists() {
        assert!(since.elapsed() < LIMIT, "what was left behind does not work");
        // waits: polls for what a process leaves, that nobody can wait for.
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(std::fs::metadata(test_folder.path("done")).expect("the file").len() > 0);
}

#[test]
fn a_shell_with_jobs() {
    let Some(test_folder) = TestFolder::new() else { return };
    let script = r#"
        set -m
        waits() { until jobs | grep -q "$1"; do sleep 0.01; done; }
        sleep 100 & first=$!
        kill -STOP %1; waits Stopped; jobs; bg > /dev/null; waits Running; jobs
        kill $first; wait $first; echo "status $?"
        sh -c 'kill -TSTP $$; echo again; exit 5'
        waits Stopped; fg > /dev/null; echo "status $?"
        cat /etc/passwd | wc -l & wait
    "#;
    let native = Running::start(test_folder.native(&["bash", "-c", script])).end();
    let end = Running::start(test_folder.memobj(&[], &["bash", "-c", script])).end();
    assert_eq!((native.status, &native.out), (end.status, &end.out));
    assert!(end.out.contains("Stopped") && end.out.contains("status 143\nagain\nstatus 5\n"), "{end:?}");
}
