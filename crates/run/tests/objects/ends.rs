//! What is left when something dies.

use crate::command::{children, command, find, name, sleeps_in, until, wait};

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").expect("mounts")
}

/// The supervisor is killed while a program waits for it: the program ends, and nothing is left.
#[test]
fn a_supervisor_that_is_killed_leaves_nothing() {
    let before = mounts();
    let maps = ["--map", "/hangs=1000000,hang=4096-8192"];
    let Some(mut started) = command(&maps, &["cat", "/hangs"]) else { return };
    let child = started.spawn().expect("the example starts");
    let mut cat = None;
    until("cat waits", || {
        cat = find(child.id(), "cat");
        cat.is_some_and(|cat| sleeps_in(cat) == "request_wait_answer")
    });
    assert_eq!(mounts(), before, "the file system is seen by others");
    let supervisor = children(child.id())[0];
    let mut all = children(supervisor);
    all.push(supervisor);
    assert!(all.iter().any(|pid| name(*pid) == "memobj-guard"), "{all:?}");
    let pid = rustix::process::Pid::from_raw(supervisor as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
    let end = wait(child);
    assert_eq!(
        (end.code, &end.err[..]),
        (Some(1), "memobj: the supervisor has ended, and the program with it\n")
    );
    until("all processes have ended", || all.iter().all(|pid| is_gone(*pid)));
    assert_eq!(mounts(), before);
}

fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[test]
fn nothing_is_left_after_an_ordinary_end() {
    let before = mounts();
    let Some(mut started) = command(&["--map", "/m=1000000"], &["cat", "/m"]) else { return };
    let child = started.spawn().expect("the example starts");
    let id = child.id();
    let end = wait(child);
    assert_eq!((end.code, end.out.is_empty()), (Some(0), false), "{end:#?}");
    assert!(children(id).is_empty());
    assert_eq!(mounts(), before);
}
