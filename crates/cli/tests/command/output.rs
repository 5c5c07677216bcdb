//! Standard output, input and error that are closed, or take nothing.

use std::fs;

use crate::test_folder::{Ran, TestFolder};

/// Runs the command by a shell that redirects something.
fn redirected(test_folder: &TestFolder, redirection: &str, arguments: &[&str]) -> Ran {
    let script = format!("exec timeout 60 \"$0\" \"$@\" {redirection}");
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_memobj")])
        .args(arguments)
        .current_dir(test_folder.path());
    Ran(command.output().expect("sh(1) runs"))
}

/// What prints something when all goes well.
const PRINT: [&[&str]; 10] = [
    &["hash", "f"],
    &["read", "f"],
    &["image", "/proc/self/exe"],
    &["image", "--json", "/proc/self/exe"],
    &["segments", "--self"],
    &["segments", "--self", "--format", "json"],
    &["doctor"],
    &["doctor", "--json"],
    &["--help"],
    &["--version"],
];

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let test_folder = TestFolder::new();
    test_folder.file("f", 10_000);
    for arguments in PRINT {
        for (redirection, why) in [(">&-", "bad file descriptor"), (">/dev/full", "no space left on device")]
        {
            let ran = redirected(&test_folder, redirection, arguments);
            let message = format!("memobj: write standard output: {why}\n");
            assert_eq!((ran.code(), ran.err()), (1, &message[..]), "{arguments:?} {redirection}");
        }
    }
    // A descriptor that is there, and not for writing.
    let ran = redirected(&test_folder, "1</dev/null", &["hash", "f"]);
    assert_eq!((ran.code(), ran.err()), (1, "memobj: write standard output: bad file descriptor\n"));
}

#[test]
fn nothing_is_begun_without_a_standard_output() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("f", 10_000);
    for arguments in [&["copy", "f", "new"][..], &["patch", "--at", "0", "f"], &["torture", "--rounds", "1"]]
    {
        let ran = redirected(&test_folder, ">&- </dev/zero", arguments);
        let message = "memobj: write standard output: bad file descriptor\n";
        assert_eq!((ran.code(), ran.err()), (1, message), "{arguments:?}");
    }
    assert!(!test_folder.path().join("new").exists());
    assert!(fs::read(test_folder.path().join("f")).expect("it") == bytes);
}

#[test]
fn a_patch_needs_an_input_even_if_it_is_empty() {
    let test_folder = TestFolder::new();
    test_folder.file("f", 10);
    let ran = redirected(&test_folder, "<&-", &["patch", "--at", "0", "f"]);
    assert_eq!((ran.code(), ran.err()), (1, "memobj: read standard input: bad file descriptor\n"));
    assert_eq!(redirected(&test_folder, "</dev/null", &["patch", "--at", "0", "f"]).code(), 0);
}

#[test]
fn statistics_that_cannot_be_written_are_an_error() {
    let test_folder = TestFolder::new();
    test_folder.file("f", 10);
    for redirection in ["2>&-", "2>/dev/full"] {
        let ran = redirected(&test_folder, redirection, &["hash", "--stats", "json", "f"]);
        assert_eq!((ran.code(), ran.out().len() > 64), (1, true), "{redirection}");
        assert_eq!(redirected(&test_folder, redirection, &["hash", "f"]).code(), 0, "{redirection}");
    }
}
