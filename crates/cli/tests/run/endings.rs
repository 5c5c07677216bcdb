//! Every run ends: when its programs have, however they have, and when somebody wants it to.

use std::io::Read;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::build::{Kind, program};
use crate::ends::{LIMIT, Running, run};
use crate::test_folder::TestFolder;

fn pid_of(number: i32) -> Pid {
    Pid::from_raw(number).expect("a number")
}

/// The first number that it has said.
fn said_number(running: &mut Running) -> Pid {
    let said = running.said().0;
    pid_of(said.split(' ').next().and_then(|number| number.parse().ok()).expect("its number"))
}

#[test]
fn a_thread_ends_the_process_while_another_maps() {
    let Some(test_folder) = TestFolder::new() else { return };
    let endings = program("endings", Kind::Dynamic).expect("a C compiler");
    for at in 0..25 {
        let late = (1000 + at * 1700).to_string();
        let end = run(test_folder.memobj(&[], &[endings.as_os_str(), "exits".as_ref(), late.as_ref()]));
        assert_eq!((end.code(), end.err.as_str()), (7, ""), "after {late} us");
    }
}

#[test]
fn a_program_that_maps_is_killed() {
    let Some(test_folder) = TestFolder::new() else { return };
    let endings = program("endings", Kind::Dynamic).expect("a C compiler");
    for at in 0..20 {
        let mut running = Running::start(test_folder.memobj(&[], &[endings.as_os_str(), "maps".as_ref()]));
        running.hear("ready");
        kill_process(said_number(&mut running), Signal::KILL).expect("it is there");
        let end = running.end();
        assert_eq!((end.signal(), end.err.as_str()), (Some(9), ""), "{at}");
    }
}

#[test]
fn children_die_while_they_are_taken_over() {
    let Some(test_folder) = TestFolder::new() else { return };
    let endings = program("endings", Kind::Dynamic).expect("a C compiler");
    let words = [endings.as_os_str(), "children".as_ref(), "20".as_ref()];
    for _ in 0..10 {
        test_folder.same(&words);
    }
    for _ in 0..4 {
        let end = run(test_folder.memobj(&["--report", "text"], &words));
        assert_eq!((end.code(), end.out.as_str()), (0, "done\n"), "{end:?}");
    }
}

#[test]
fn every_signal_reaches_the_program() {
    let Some(test_folder) = TestFolder::new() else { return };
    let real_time = Signal::from_named_raw(34);
    let usual = [Signal::BUS, Signal::SEGV, Signal::PIPE, Signal::FPE, Signal::XCPU, Signal::VTALARM];
    for signal in usual.into_iter().chain(real_time) {
        let mut running =
            Running::start(test_folder.memobj(&[], &["sh", "-c", "echo ready; exec sleep 100"]));
        running.hear("ready");
        kill_process(pid_of(running.pid()), signal).expect("the front is there");
        let end = running.end();
        assert_eq!((end.signal(), end.err.as_str()), (Some(signal.as_raw()), ""), "{signal:?}");
    }
}

#[test]
fn a_signal_ends_a_run_whose_supervisor_is_stuck() {
    let Some(test_folder) = TestFolder::new() else { return };
    let mut running = Running::start(test_folder.memobj(&[], &["sh", "-c", "echo ready; exec sleep 100"]));
    running.hear("ready");
    let front = running.pid();
    let children = std::fs::read_to_string(format!("/proc/{front}/task/{front}/children")).expect("a list");
    let supervisor = children.trim().parse().map(pid_of).expect("one child");
    kill_process(supervisor, Signal::STOP).expect("the supervisor is there");
    kill_process(pid_of(front), Signal::TERM).expect("the front is there");
    let end = running.end();
    assert_eq!(end.signal(), Some(15));
    assert!(end.err.contains("does not answer"), "{end:?}");
}

#[test]
fn a_signal_ends_a_run_that_waits_for_what_was_left_behind() {
    let Some(test_folder) = TestFolder::new() else { return };
    let script = "sleep 100 & echo ready";
    let mut running = Running::start(test_folder.memobj(&["--report", "text"], &["sh", "-c", script]));
    running.hear("ready");
    let since = Instant::now();
    let status = loop {
        // The shell may get the first.
        let _ = kill_process(pid_of(running.pid()), Signal::TERM);
        if let Some(status) = running.child.try_wait().expect("a child") {
            break status;
        }
        assert!(since.elapsed() < LIMIT, "it goes on");
        // waits: polls for the end.
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    running.nothing_is_left();
}

#[test]
fn what_a_program_closes_nobody_else_holds() {
    let Some(test_folder) = TestFolder::new() else { return };
    let endings = program("endings", Kind::Dynamic).expect("a C compiler");
    let mut command = test_folder.memobj(&[], &[endings.as_os_str(), "quiet".as_ref()]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("its end comes");
    assert_eq!(said, "quiet\n");
    assert!(child.try_wait().expect("a child").is_none(), "it runs still");
    std::fs::write(test_folder.path("go"), "").expect("a file");
    assert_eq!(child.wait().expect("a child").code(), Some(3));
}

#[test]
fn what_is_left_behind_does_not_hold_what_the_program_said() {
    let Some(test_folder) = TestFolder::new() else { return };
    let script = "(until [ -e go ]; do sleep 0.01; done; : > done) > /dev/null 2>&1 & echo now";
    let mut command = test_folder.memobj(&[], &["bash", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("its end comes");
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("its end comes");
    assert_eq!((said.as_str(), child.wait().expect("a child").code()), ("now\n", Some(0)));
    assert!(!test_folder.path("done").exists());
    std::fs::write(test_folder.path("go"), "").expect("a file");
    let since = Instant::now();
    while !test_folder.path("done").exists() {
        assert!(since.elapsed() < LIMIT, "what was left behind does not work");
        // waits: polls for what a process leaves, that nobody can wait for.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
