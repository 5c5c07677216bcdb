//! `memobj hash`: right digests, and a clear error for what has none.

use std::fs;
use std::process::Command;

use crate::test_folder::TestFolder;

const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

#[test]
fn empty_file_has_the_digest_of_nothing() {
    let test_folder = TestFolder::new();
    test_folder.file("empty", 0);
    let ran = test_folder.run(&["hash", "empty"]);
    assert_eq!((ran.code(), ran.out(), ran.err()), (0, format!("{EMPTY}  empty\n").as_str(), ""));
}

#[test]
fn digest_of_a_file_larger_than_the_budget() {
    let test_folder = TestFolder::new();
    let digest = blake3::hash(&test_folder.file("data.bin", (3 << 20) + 123));
    for access in ["touch", "pin", "copy"] {
        for delivery in ["reader", "inthread", "auto"] {
            for threads in ["1", "3"] {
                let options = ["--access", access, "--delivery", delivery, "--threads", threads];
                let ran = test_folder.run(
                    &[&["hash", "--budget", "256k", "--frames", "4k"], &options[..], &["data.bin"]].concat(),
                );
                assert_eq!((ran.code(), ran.err()), (0, ""), "{options:?}");
                assert_eq!(ran.out(), format!("{digest}  data.bin\n"), "{options:?}");
            }
        }
    }
}

#[test]
fn digest_through_the_smallest_budget_and_an_error_below_it() {
    let test_folder = TestFolder::new();
    let digest = blake3::hash(&test_folder.file("data.bin", 90 * 4096 + 1));
    for access in ["touch", "pin", "copy"] {
        let ran = test_folder.run(&[
            "hash",
            "--budget",
            "64k",
            "--frames",
            "4k",
            "--threads",
            "4",
            "--access",
            access,
            "data.bin",
        ]);
        assert_eq!(
            (ran.code(), ran.out(), ran.err()),
            (0, format!("{digest}  data.bin\n").as_str(), ""),
            "{access}"
        );
    }
    for budget in ["1", "4k"] {
        let ran = test_folder.run(&["hash", "--budget", budget, "data.bin"]);
        assert_eq!((ran.code(), ran.out()), (1, ""));
        assert!(ran.err().contains("too small: the least is 65536 bytes"), "{}", ran.err());
    }
}

#[test]
fn every_frame_size_gives_the_same_digest() {
    let test_folder = TestFolder::new();
    let digest = blake3::hash(&test_folder.file("data.bin", (9 << 20) + 4097));
    for frames in ["4k", "2m", "auto"] {
        let ran = test_folder.run(&["hash", "--budget", "4M", "--frames", frames, "data.bin"]);
        assert_eq!(
            (ran.code(), ran.out()),
            (0, format!("{digest}  data.bin\n").as_str()),
            "{frames}: {}",
            ran.err()
        );
    }
}

#[test]
fn a_file_that_fails_does_not_stop_the_next() {
    let test_folder = TestFolder::new();
    test_folder.file("good", 0);
    let ran = test_folder.run(&["hash", "missing", "good"]);
    assert_eq!((ran.code(), ran.out()), (1, format!("{EMPTY}  good\n").as_str()));
    assert!(ran.err().starts_with("memobj: "), "{}", ran.err());
    assert!(ran.err().contains("missing") && ran.err().contains("no such file"), "{}", ran.err());
    assert_eq!(ran.err().lines().count(), 1, "{}", ran.err());
}

#[test]
fn a_directory_and_a_fifo_are_errors() {
    let test_folder = TestFolder::new();
    fs::create_dir(test_folder.path().join("directory")).expect("a directory");
    let made = Command::new("mkfifo").arg(test_folder.path().join("fifo")).status().expect("mkfifo(1) runs");
    assert!(made.success());
    for name in ["directory", "fifo"] {
        let ran = test_folder.run(&["hash", name]);
        assert_eq!((ran.code(), ran.out()), (1, ""), "{name}: {}", ran.err());
        assert!(ran.err().starts_with("memobj: ") && ran.err().contains(name), "{}", ran.err());
    }
}

#[test]
fn an_injected_error_names_the_page() {
    let test_folder = TestFolder::new();
    test_folder.file("data.bin", 5 * 4096);
    for access in ["touch", "pin", "copy"] {
        for delivery in ["reader", "inthread"] {
            let options =
                ["--access", access, "--delivery", delivery, "--frames", "4k", "--inject", "error@4k+4k"];
            let ran = test_folder.run(&[&["hash"], &options[..], &["data.bin"]].concat());
            assert_eq!((ran.code(), ran.out()), (1, ""), "{options:?}");
            assert_eq!(
                ran.err(),
                "memobj: supply [4096, 8192) of data.bin: input/output error\n",
                "{options:?}"
            );
        }
    }
}

#[test]
fn an_error_that_goes_away_is_retried() {
    let test_folder = TestFolder::new();
    let digest = blake3::hash(&test_folder.file("data.bin", 5 * 4096));
    for kind in ["error", "short"] {
        let spec = format!("{kind}@4k+4k:times=2");
        let ran =
            test_folder.run(&["hash", "--frames", "4k", "--inject", &spec, "--retry", "30s", "data.bin"]);
        assert_eq!(
            (ran.code(), ran.out(), ran.err()),
            (0, format!("{digest}  data.bin\n").as_str(), ""),
            "{spec}"
        );
    }
}

#[test]
fn an_injected_error_beyond_the_file_does_nothing() {
    let test_folder = TestFolder::new();
    let digest = blake3::hash(&test_folder.file("data.bin", 4096));
    let ran = test_folder.run(&["hash", "--frames", "4k", "--inject", "error@1M+4k", "data.bin"]);
    assert_eq!((ran.code(), ran.out(), ran.err()), (0, format!("{digest}  data.bin\n").as_str(), ""));
}

#[test]
fn names_are_escaped_as_b3sum_does() {
    let test_folder = TestFolder::new();
    test_folder.file("a\\b\nc", 0);
    let ran = test_folder.run(&["hash", "a\\b\nc"]);
    assert_eq!((ran.code(), ran.out()), (0, format!("\\{EMPTY}  a\\\\b\\nc\n").as_str()));
}

#[test]
fn statistics_are_one_json_object() {
    let test_folder = TestFolder::new();
    test_folder.file("data.bin", 1 << 20);
    let ran = test_folder.run(&["hash", "--budget", "64k", "--frames", "4k", "--stats", "json", "data.bin"]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
    let stats: serde_json::Value = serde_json::from_str(ran.err()).expect("standard error is JSON");
    let names = ["faults", "supplied_pages", "evicted_pages", "retries", "failed_pages", "peak_frame_bytes"];
    for name in names.iter().chain(&["budget_bytes", "read_bytes"]) {
        assert!(stats[name].is_u64(), "{name}: {stats}");
    }
    assert!(stats["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{stats}");
    assert_eq!(stats["budget_bytes"], 65536);
    assert!(stats["peak_frame_bytes"].as_u64() <= Some(65536), "{stats}");
    assert!(stats["read_bytes"].as_u64() >= Some(1 << 20), "{stats}");
}
