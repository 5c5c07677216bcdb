//! Processes, threads and programs that come from each other.

use std::os::unix::fs::PermissionsExt;

use crate::build::{Kind, program};
use crate::ends::{End, run};
use crate::test_folder::TestFolder;

/// Runs a mode of processes.c on a file of 512 pages, natively and under `memobj run`.
fn mode(mode: &str) -> Option<End> {
    let test_folder = TestFolder::new()?;
    let sample = test_folder.sample("sample", 512);
    let program = program("processes", Kind::Dynamic)?;
    Some(test_folder.same(&[program.as_os_str(), mode.as_ref(), sample.as_os_str()]))
}

fn succeeds(name: &str) {
    let Some(end) = mode(name) else { return };
    assert!(end.succeeded(name).out.ends_with(&format!("{name} done\n")));
}

#[test]
fn forked_processes_find_the_pages_that_they_inherit() {
    succeeds("forks");
}

#[test]
fn vfork_and_posix_spawn() {
    succeeds("spawns");
}

#[test]
fn clone_with_and_without_shared_memory() {
    succeeds("clones");
}

#[test]
fn a_program_of_many_threads_forks() {
    succeeds("threads");
}

#[test]
fn several_threads_fork_at_once() {
    succeeds("forks-at-once");
}

#[test]
fn a_thread_that_is_not_the_first_begins_another_program() {
    let Some(end) = mode("thread-executes") else { return };
    assert_eq!((end.code(), end.err.as_str()), (21, ""));
}

#[test]
fn signals_interrupt_a_program_in_whose_name_calls_are_made() {
    succeeds("interrupted");
}

#[test]
fn scripts_with_and_without_a_first_line() {
    let Some(test_folder) = TestFolder::new() else { return };
    let script = |name: &str, text: &str| {
        let path = test_folder.file(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        path.to_str().expect("text").to_string()
    };
    let plain = script("plain", "#!/bin/sh\necho \"$0 $@\"\nexit 6\n");
    let nested = script("nested", &format!("#!{plain} first\n"));
    let perl = script("perl", "#!/usr/bin/env perl\nprint \"$0 @ARGV\\n\"; exec 'sh', '-c', 'exit 8'\n");
    let bare = script("bare", "echo bare \"$@\"; exit 4\n");
    for (words, code) in [(&plain, 6), (&nested, 6), (&perl, 8)] {
        assert_eq!(test_folder.same(&[words, "a", "b c"]).code(), code);
    }
    // Which a shell runs, or execvp(3), but not execve(2).
    let end = run(test_folder.memobj(&[], &[&bare, "a", "b c"]));
    assert_eq!((end.code(), end.out.as_str()), (4, "bare a b c\n"));
    assert_eq!(test_folder.same(&["sh", "-c", "./bare x; exec ./bare y"]).code(), 4);
    let broken = script("broken", "#!/no/such/interpreter\n");
    assert!([126, 127].contains(&run(test_folder.memobj(&[], &[&broken])).code()));
}

#[test]
fn programs_that_cannot_be_run() {
    let Some(test_folder) = TestFolder::new() else { return };
    test_folder.file("data", "no program");
    for (word, code) in [("/no/such/program", 127), ("no-such-program", 127), ("./data", 126), ("/", 126)] {
        let end = run(test_folder.memobj(&[], &[word]));
        assert_eq!(end.code(), code, "{end:?}");
        assert!(end.err.starts_with("memobj: ") && end.err.lines().count() == 1, "{end:?}");
    }
}
