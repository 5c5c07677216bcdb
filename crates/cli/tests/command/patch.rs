//! `memobj patch`: bytes from standard input at an offset, and nothing else changed.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use crate::test_folder::{Ran, TestFolder};

fn patch(test_folder: &TestFolder, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = test_folder.command(&[&["patch"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("timeout(1) runs");
    let mut pipe = child.stdin.take().expect("it is piped");
    std::thread::scope(|scope| {
        // The command may end before it has read all.
        scope.spawn(move || drop(pipe.write_all(input)));
    });
    Ran(child.wait_with_output().expect("the command ends"))
}

#[test]
fn bytes_land_where_they_should() {
    let test_folder = TestFolder::new();
    let input = test_folder.file("input", 700_001);
    for commit in [&[][..], &["--commit"]] {
        for (at, offset, length) in [
            ("0", 0, 0),
            ("4K", 4096, 10),
            ("1M", 1 << 20, 700_001),
            ("4095", 4095, 2),
            ("777", 777, 600_000),
        ] {
            let mut bytes = test_folder.file("f", 1_500_000);
            let arguments = [&["--budget", "64k", "--at", at], commit, &["f"]].concat();
            let ran = patch(&test_folder, &arguments, &input[..length]);
            assert_eq!((ran.code(), ran.out(), ran.err()), (0, "", ""), "{at} {commit:?}");
            bytes.resize(bytes.len().max(if length > 0 { offset + length } else { 0 }), 0);
            bytes[offset..offset + length].copy_from_slice(&input[..length]);
            assert!(
                fs::read(test_folder.path().join("f")).expect("it") == bytes,
                "{at} {commit:?}: other bytes"
            );
        }
    }
}

#[test]
fn a_patch_past_the_end_extends_the_file_with_zeros() {
    let test_folder = TestFolder::new();
    for commit in [&[][..], &["--commit"]] {
        for length in [0, 100, 4096] {
            let mut bytes = test_folder.file("f", length);
            let ran = patch(&test_folder, &[&["--at", "3M"], commit, &["f"]].concat(), b"beyond");
            assert_eq!((ran.code(), ran.err()), (0, ""), "{length} {commit:?}");
            bytes.resize(3 << 20, 0);
            bytes.extend_from_slice(b"beyond");
            assert!(fs::read(test_folder.path().join("f")).expect("it") == bytes, "{length} {commit:?}");
        }
    }
}

#[test]
fn any_length_streams_through_a_small_budget() {
    let test_folder = TestFolder::new();
    test_folder.file("f", 10);
    let bytes = test_folder.file("input", (24 << 20) + 3);
    let mut command =
        test_folder.command(&["patch", "--at", "5", "--budget", "128k", "--stats", "json", "f"]);
    let input = File::open(test_folder.path().join("input")).expect("it was made");
    let ran = Ran(command.stdin(input).output().expect("timeout(1) runs"));
    assert_eq!(ran.code(), 0, "{}", ran.err());
    let stats: serde_json::Value = serde_json::from_str(ran.err()).expect("JSON");
    assert!(stats["peak_frame_bytes"].as_u64() <= Some(128 << 10), "{stats}");
    assert!(stats["written_bytes"].as_u64() >= Some(24 << 20), "{stats}");
    assert!(fs::read(test_folder.path().join("f")).expect("it")[5..] == bytes);
}

#[test]
fn what_cannot_be_patched_is_an_error() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("f", 5000);
    let ran = patch(&test_folder, &["--at", "0", "missing"], b"x");
    assert_eq!((ran.code(), ran.err()), (1, "memobj: open missing: no such file or directory\n"));
    let ran = patch(&test_folder, &["--at", "0", "."], b"x");
    assert_eq!(ran.code(), 1);
    let ran = patch(&test_folder, &["--at", "9000000T", "f"], b"x");
    assert_eq!((ran.code(), ran.out()), (1, ""), "{}", ran.err());
    let message = "memobj: write f at 9895604649984000000: offsets past 64T cannot be mapped\n";
    assert_eq!(ran.err(), message);
    let ran = patch(&test_folder, &["f"], b"x");
    assert_eq!(ran.code(), 2);
    assert!(fs::read(test_folder.path().join("f")).expect("it") == bytes);
}

#[test]
fn a_block_device_has_no_room_behind_its_end() {
    let test_folder = TestFolder::new();
    test_folder.file("disk", 1 << 20);
    let output =
        Command::new("losetup").args(["--find", "--show", "disk"]).current_dir(test_folder.path()).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        return println!("skipped: no loop device can be had");
    };
    let device = String::from_utf8(output.stdout).expect("text").trim().to_string();
    let inside = patch(&test_folder, &["--at", "1048574", &device], b"xy");
    let across = patch(&test_folder, &["--at", "1048574", &device], b"0123456789");
    let behind = patch(&test_folder, &["--at", "2M", &device], b"x");
    let copied = test_folder.run(&["copy", "disk", &device]);
    Command::new("losetup").args(["--detach", &device]).status().expect("losetup(8) runs");
    assert_eq!((inside.code(), inside.err()), (0, ""));
    for ran in [across, behind] {
        assert!(ran.code() == 1 && ran.err().contains("no room"), "{}", ran.err());
        assert!(!ran.err().contains("input/output"), "{}", ran.err());
    }
    assert_eq!(copied.code(), 0, "{}", copied.err());
}
