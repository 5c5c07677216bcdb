//! Pages that fail, pages that never come, and the end of those who supply them.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::build::{Kind, program};
use crate::ends::{End, LIMIT, Running, run};
use crate::test_folder::TestFolder;

/// Runs a mode of failures.c, with these options.
fn mode(options: &[&str], mode: &str) -> Option<End> {
    let test_folder = TestFolder::new()?;
    let program = program("failures", Kind::Dynamic)?;
    let file = test_folder.sample("sample", 256);
    Some(run(test_folder.memobj(options, &[program.as_os_str(), mode.as_ref(), file.as_os_str()])))
}

#[test]
fn an_error_kills_only_who_touches_the_page() {
    let Some(end) = mode(&["--inject", "sample:error@400k+4k"], "errors") else { return };
    let expected = "before: status 3\nbad: signal 7\nbehind: status 3\nwrite: -1\nerrors done\n";
    assert_eq!((end.code(), end.out.as_str()), (0, expected), "{end:?}");
    for line in end.err.lines() {
        assert!(line.contains("/sample") && line.contains("[409600, 413696)"), "{end:?}");
    }
    assert!((1..=2).contains(&end.err.lines().count()) && end.err.contains("SIGBUS"), "{end:?}");
}

#[test]
fn with_patience_nobody_notices() {
    let Some(end) = mode(&["--inject", "sample:error@400k+4k:times=3", "--retry", "20s"], "errors") else {
        return;
    };
    let expected = "before: status 3\nbad: status 3\nbehind: status 3\nwrite: 4096\nerrors done\n";
    assert_eq!((end.code(), end.out.as_str(), end.err.as_str()), (0, expected, ""));
}

#[test]
fn a_page_that_never_comes_holds_up_nobody_outside_its_window() {
    let Some(end) = mode(&["--inject", "sample:hang@400k+4k"], "hangs") else { return };
    let expected = "far: status 3\nbehind: status 3\nstuck: signal 9\nhangs done\n";
    assert_eq!((end.code(), end.out.as_str(), end.err.as_str()), (0, expected, ""));
}

/// The process itself, or a child of it, whose name is `name`.
fn child_of(pid: i32, name: &str) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let is_it = |child: &i32| {
        std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|its| its.trim_end() == name)
    };
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(is_it)
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).is_some_and(|state| !"ZX".contains(state))
}

/// Waits until each of `processes` has had some more faults.
fn wait_until_pages_come_and_go(processes: &[i32]) {
    const FAULTS: u64 = 8;
    let faults = |process: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it is alive");
        // Behind the name, which may have blanks; minflt and majflt in proc_pid_stat(5).
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[7].parse::<u64>().expect("minflt") + fields[9].parse::<u64>().expect("majflt")
    };
    let since = Instant::now();
    let before: Vec<u64> = processes.iter().map(faults).collect();
    while processes.iter().zip(&before).any(|(process, before)| faults(process) < before + FAULTS) {
        assert!(since.elapsed() < LIMIT, "a process has no faults");
        // waits: polls counters of the kernel.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills one of those who supply pages while 21 processes check bytes of a file that is 32 times the budget, and looks how they end.
fn kill_while_processes_read(name: &str, whom: impl Fn(i32) -> Option<i32>) {
    let Some(test_folder) = TestFolder::new() else { return };
    let Some(program) = program("crowd", Kind::Dynamic) else { return };
    let file = test_folder.sample("sample", 2048);
    let seed = std::process::id().to_string();
    println!("seed {seed}");
    let words = [program.as_os_str(), "processes".as_ref(), file.as_os_str(), seed.as_ref()];
    // Late pages, so that nearly all wait for one when it happens.
    let options = ["--tight", "--budget", "256k", "--inject", "sample:delay=5@0+8M"];
    let mut running = Running::start(test_folder.memobj(&options, &words));
    running.hear("running");
    let said = running.said().0;
    let processes: Vec<i32> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(processes.len() == 20 && processes.iter().all(|process| is_alive(*process)), "{said}");
    wait_until_pages_come_and_go(&processes);
    let victim = whom(running.pid()).and_then(Pid::from_raw).expect("the one to be killed");
    let since = Instant::now();
    kill_process(victim, Signal::KILL).expect("it is there");
    running.wait();
    while processes.iter().any(|process| is_alive(*process)) {
        assert!(since.elapsed() < LIMIT, "{name}: processes live on");
        // waits: polls for the end of processes that are not this one's.
        std::thread::sleep(Duration::from_millis(1));
    }
    let wrong = std::fs::read_to_string(test_folder.path("sample.wrong"));
    assert!(wrong.is_err(), "{name}: {wrong:?}");
}

#[test]
fn no_wrong_byte_when_the_supervisor_is_killed() {
    for _ in 0..3 {
        kill_while_processes_read("supervisor", |front| child_of(front, "memobj"));
    }
}

#[test]
fn no_wrong_byte_when_the_front_is_killed() {
    for _ in 0..2 {
        kill_while_processes_read("front", Some);
    }
}

#[test]
fn no_wrong_byte_when_the_guard_is_killed() {
    for _ in 0..2 {
        kill_while_processes_read("guard", |front| child_of(child_of(front, "memobj")?, "memobj-guard"));
    }
}
