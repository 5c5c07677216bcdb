//! `memobj torture`: nothing promised is lost, and it would be noticed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::test_folder::TestFolder;

#[test]
fn six_rounds_find_nothing_and_leave_nothing() {
    let test_folder = TestFolder::new();
    let ran = test_folder
        .run(&["torture", "--rounds", "6", "--seed", "11", "--size", "2M", "--budget", "256k", "--dir", "."]);
    assert_eq!((ran.code(), ran.err()), (0, ""), "{}", ran.out());
    assert!(ran.out().starts_with("seed 11\n6 rounds, 8 kills, "), "{}", ran.out());
    assert_eq!(fs::read_dir(test_folder.path()).expect("the room").count(), 0);
}

#[test]
fn a_worker_that_lies_is_found() {
    let test_folder = TestFolder::new();
    // Rounds take turns: with and without commits. A life may be too short to lie in, on a slow machine nearly all are; the
    // first lie that is found ends it.
    for seed in ["1", "2"] {
        let options = ["--rounds", "2000", "--seed", seed, "--size", "1M", "--sabotage", "lie-about-sync"];
        let ran = test_folder.run(&[&["torture", "--dir", "."], &options[..]].concat());
        assert_eq!(ran.code(), 1, "{} {}", ran.out(), ran.err());
        assert!(ran.err().starts_with(&format!("memobj: seed {seed}, round ")), "{}", ran.err());
        assert!(ran.err().contains("record "), "{}", ran.err());
    }
}

#[test]
fn an_interrupt_ends_it_and_removes_its_files() {
    let test_folder = TestFolder::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_memobj"))
        .args(["torture", "--rounds", "1000000", "--size", "1M", "--dir", "."])
        .current_dir(test_folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("seed "), "{line}");
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill(1) runs").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(fs::read_dir(test_folder.path()).expect("the room").count(), 0);
}

#[test]
fn help_says_what_is_not_tested() {
    let ran = TestFolder::new().run(&["torture", "--help"]);
    assert!(ran.code() == 0 && ran.out().contains("Loss of\npower is NOT tested"), "{}", ran.out());
    assert!(!ran.out().contains("sabotage"), "{}", ran.out());
}
