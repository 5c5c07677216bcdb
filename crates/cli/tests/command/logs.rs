//! Commit logs beside files: all commands put in place what is committed; the log of a stranger is told of.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions, Writing};

use crate::test_folder::TestFolder;

const PATH: &str = "MEMOBJ_TEST_COMMIT_TO";

/// Part of the other tests, as a process of its own: commits to a file, and ends so that the log stays.
#[test]
fn part_commit_and_end() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let cache = Cache::new(CacheOptions::default()).expect("a cache");
    let options = ObjectOptions::new().writing(Writing::Atomic);
    let object = cache.open_file(Path::new(&path), options).expect("the file");
    let mapping = object.map(0..object.len(), MapOptions::default()).expect("a mapping");
    mapping.write_at(5000, b"committed").expect("room");
    object.commit().expect("a commit");
    std::process::exit(0)
}

/// The file `f` of these bytes, with a log beside it; and the bytes that are committed.
fn with_log(test_folder: &TestFolder, length: usize) -> Vec<u8> {
    let mut bytes = test_folder.file("f", length);
    let mut part = Command::new(std::env::current_exe().expect("this program"));
    part.args(["--exact", "logs::part_commit_and_end"]).env(PATH, test_folder.path().join("f"));
    assert!(part.output().expect("it runs").status.success());
    assert!(test_folder.path().join("f.memobj-log").exists());
    assert!(fs::read(test_folder.path().join("f")).expect("it") == bytes, "nothing is in place yet");
    bytes[5000..5009].copy_from_slice(b"committed");
    bytes
}

#[test]
fn every_command_reads_what_is_committed() {
    let test_folder = TestFolder::new();
    let commands: [&[&str]; 6] = [
        &["hash", "f"],
        &["read", "f"],
        &["copy", "f", "dst"],
        &["image", "--flat", "f"],
        &["patch", "--at", "0", "f"],
        &["patch", "--commit", "--at", "0", "f"],
    ];
    for arguments in commands {
        let bytes = with_log(&test_folder, 100_000);
        let ran = test_folder.run(arguments);
        assert_eq!((ran.code(), ran.err()), (0, ""), "{arguments:?}");
        assert!(fs::read(test_folder.path().join("f")).expect("it") == bytes, "{arguments:?}");
        assert!(!test_folder.path().join("f.memobj-log").exists(), "{arguments:?}");
        match arguments[0] {
            "read" => assert!(ran.0.stdout == bytes),
            "copy" => assert!(fs::read(test_folder.path().join("dst")).expect("the copy") == bytes),
            _ => {}
        }
    }
}

#[test]
fn the_log_of_a_stranger_can_be_left_out_by_who_reads() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("f", 20_000);
    fs::write(test_folder.path().join("f.memobj-log"), "mine").expect("a file");
    if chown(test_folder.path().join("f.memobj-log"), Some(12345), None).is_err() {
        return println!("skipped: files cannot be given away");
    }
    let commands: [&[&str]; 4] =
        [&["hash", "f"], &["read", "f"], &["copy", "f", "dst"], &["image", "--flat", "f"]];
    for arguments in commands {
        let ran = test_folder.run(arguments);
        assert_eq!((ran.code(), ran.out()), (1, ""), "{arguments:?}");
        let says = ["f.memobj-log", "another user", "--ignore-foreign-log"];
        assert!(says.iter().all(|word| ran.err().contains(word)), "{}", ran.err());
        let ran = test_folder.run(&[&arguments[..1], &["--ignore-foreign-log"], &arguments[1..]].concat());
        assert_eq!((ran.code(), ran.err()), (0, ""), "{arguments:?}");
        assert!(arguments[0] != "read" || ran.0.stdout == bytes);
    }
    assert!(fs::read(test_folder.path().join("dst")).expect("the copy") == bytes);
    // Who writes cannot leave it out: what is in it could be put over what he writes.
    let ran = test_folder.run(&["patch", "--at", "0", "f"]);
    assert!(ran.code() == 1 && ran.err().contains("another user"), "{}", ran.err());
    assert_eq!(test_folder.run(&["patch", "--ignore-foreign-log", "--at", "0", "f"]).code(), 2);
    assert_eq!(fs::read(test_folder.path().join("f.memobj-log")).expect("it"), b"mine");
}

#[test]
fn a_log_of_ones_own_is_not_left_out() {
    let test_folder = TestFolder::new();
    let bytes = with_log(&test_folder, 20_000);
    let ran = test_folder.run(&["read", "--ignore-foreign-log", "f"]);
    assert_eq!((ran.code(), ran.0.stdout == bytes), (0, true), "{}", ran.err());
    // Nor is one that cannot be used.
    let bytes = with_log(&test_folder, 20_000);
    fs::write(test_folder.path().join("f.memobj-log"), "no log").expect("a file");
    let ran = test_folder.run(&["read", "--ignore-foreign-log", "f"]);
    assert_eq!((ran.code(), ran.out()), (1, ""), "{} of {} bytes", ran.err(), bytes.len());
    let mode = fs::metadata(test_folder.path().join("f")).expect("it").permissions().mode();
    assert_eq!(mode & 0o600, 0o600);
}
