//! Files that change while programs have them mapped: mappings show what they show natively.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::build::{Kind, program};
use crate::ends::run;
use crate::test_folder::{PAGE, TestFolder};

/// Runs a mode of writers.c natively and under `memobj run`.
fn mode(mode: &str) {
    let (Some(test_folder), Some(program)) = (TestFolder::new(), program("writers", Kind::Dynamic)) else {
        return;
    };
    let words = [program.as_os_str(), mode.as_ref(), "file".as_ref()];
    test_folder.same(&words).succeeded(mode);
}

#[test]
fn a_shared_mapping_shows_what_later_writers_write() {
    mode("shared");
}

#[test]
fn a_private_mapping_keeps_stores_and_shows_what_others_write_elsewhere() {
    mode("private");
}

#[test]
fn files_grow_under_longer_mappings() {
    mode("grow-shared");
    mode("grow-private");
    mode("grow-moved");
}

#[test]
fn files_are_cut_off_inside_a_page() {
    mode("cut-shared");
    mode("cut-private");
}

#[test]
fn no_store_is_lost_while_a_mapping_changes_hands() {
    mode("race");
}

#[test]
fn children_that_are_forked_meanwhile_see_the_change() {
    mode("forking");
}

#[test]
fn calls_that_sleep_meanwhile_go_on() {
    for how in ["nanosleep", "read", "poll", "ppoll", "sigsuspend", "futex", "sigwait", "wait", "busy"] {
        mode(how);
    }
}

#[test]
fn a_process_behind_its_own_filter_sees_the_change() {
    mode("filtered");
}

#[test]
fn a_shared_mapping_is_duplicated() {
    mode("twice");
}

#[test]
fn a_program_that_opens_for_writing_without_waiting_is_not_refused() {
    mode("nonblock");
}

/// What `told` of writers.c says, when this process writes to its file between two lines.
fn told(mut command: Command, file: &std::path::Path, change: &dyn Fn(&std::path::Path)) -> String {
    use std::io::{BufRead, BufReader};
    std::fs::write(file, [b'a'; 8 * PAGE]).expect("a file");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program");
    let (mut tell, mut said) = (child.stdin.take().expect("its input"), String::new());
    let mut lines = BufReader::new(child.stdout.take().expect("its output"));
    for _ in 0..2 {
        while !said.ends_with("ready\n") {
            assert!(lines.read_line(&mut said).expect("a line") > 0, "it ends early: {said}");
        }
        said.push_str("and then\n");
        change(file);
        tell.write_all(b"\n").expect("it listens");
    }
    drop(tell);
    std::io::Read::read_to_string(&mut lines, &mut said).expect("its end");
    assert!(child.wait().expect("a status").success(), "{said}");
    said
}

#[test]
fn writers_from_outside_are_seen() {
    use std::os::unix::fs::FileExt;
    let (Some(test_folder), Some(program)) = (TestFolder::new(), program("writers", Kind::Dynamic)) else {
        return;
    };
    let write = |path: &std::path::Path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("the file");
        file.write_all_at(b"changed", 5).expect("it is written");
    };
    let shorten = |path: &std::path::Path| {
        let file = std::fs::OpenOptions::new().write(true).truncate(true).open(path).expect("the file");
        file.write_all_at(&[b'n'; 8 * PAGE], 0).expect("it is written");
    };
    for change in [&write as &dyn Fn(&std::path::Path), &shorten] {
        let words = [program.as_os_str(), "told".as_ref(), "file".as_ref()];
        let native = told(test_folder.native(&words), &test_folder.path("file"), change);
        let end = told(test_folder.memobj(&[], &words), &test_folder.path("file"), change);
        assert_eq!(end, native);
    }
}

#[test]
fn an_unchanged_file_is_served_although_it_is_young() {
    let Some(test_folder) = TestFolder::new() else { return };
    let script = "echo text > young; cp young other; memobj_reads=$(python3 -c '
import mmap, os
for name in (\"young\", \"other\"):
    fd = os.open(name, os.O_RDONLY)
    m = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    print(m[:], sum(\"memfd:memobj\" in line and name in line for line in open(\"/proc/self/maps\")))
'); echo $memobj_reads";
    if !crate::test_folder::has("python3") {
        return;
    }
    let end = run(test_folder.memobj(&[], &["bash", "-c", script]));
    assert_eq!(end.out, "b'text\\n' 1 b'text\\n' 1\n", "{end:?}");
}
