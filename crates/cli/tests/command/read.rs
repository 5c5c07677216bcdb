//! `memobj read`: the bytes asked for, and what happens when nobody takes them.

use std::io::Read;
use std::process::Stdio;

use crate::test_folder::TestFolder;

#[test]
fn the_whole_file_comes_out() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("data.bin", (1 << 20) + 77);
    for access in ["touch", "pin", "copy"] {
        for threads in ["1", "4"] {
            let options = ["--budget", "128k", "--frames", "4k", "--access", access, "--threads", threads];
            let ran = test_folder.run(&[&["read"], &options[..], &["data.bin"]].concat());
            assert_eq!((ran.code(), ran.err()), (0, ""), "{options:?}");
            assert!(ran.0.stdout == bytes, "{options:?}: other bytes");
        }
    }
}

#[test]
fn ranges_need_no_alignment_and_are_clipped_at_the_end() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("data.bin", 100_000);
    let cases = [
        ("0", "1", 0..1),
        ("4095", "2", 4095..4097),
        ("96k", "1M", 98304..100_000),
        ("100000", "5", 0..0),
        ("7", "0", 0..0),
    ];
    for (offset, length, range) in cases {
        let ran =
            test_folder.run(&["read", "--frames", "4k", "--offset", offset, "--length", length, "data.bin"]);
        assert_eq!((ran.code(), ran.err()), (0, ""), "{offset}+{length}");
        assert!(ran.0.stdout == bytes[range], "{offset}+{length}: other bytes");
    }
}

#[test]
fn an_offset_past_the_end_is_an_error() {
    let test_folder = TestFolder::new();
    test_folder.file("data.bin", 100);
    let ran = test_folder.run(&["read", "--offset", "101", "data.bin"]);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    assert_eq!(ran.err(), "memobj: read data.bin: offset 101 is past the end at 100\n");
}

#[test]
fn what_precedes_a_failed_page_comes_out() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("data.bin", 64 * 4096);
    let options = ["--budget", "64k", "--frames", "4k", "--inject", "error@160k+4k"];
    let ran = test_folder.run(&[&["read"], &options[..], &["data.bin"]].concat());
    assert_eq!(ran.code(), 1);
    assert_eq!(ran.err(), "memobj: supply [163840, 167936) of data.bin: input/output error\n");
    let written = ran.0.stdout.len();
    assert!(written > 0 && written <= 160 << 10 && ran.0.stdout == bytes[..written], "{written} bytes");
}

#[test]
fn a_reader_that_stops_early_is_not_an_error() {
    let test_folder = TestFolder::new();
    test_folder.file("data.bin", 4 << 20);
    let mut command = test_folder.command(&["read", "data.bin"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("timeout(1) runs");
    let mut output = child.stdout.take().expect("standard output is piped");
    output.read_exact(&mut [0]).expect("a first byte");
    drop(output);
    let ended = child.wait_with_output().expect("the command ends");
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(141), &b""[..]));
}
