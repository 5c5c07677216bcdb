//! Runs the quick version of benchmarks, in which every byte is checked: that they work, not how fast anything is.

use std::path::Path;
use std::process::Command;

/// Runs `memobj-bench COMMAND --quick`, which must succeed, and returns what it printed.
fn quick(command: &str) -> String {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(command);
    let output = Command::new(env!("CARGO_BIN_EXE_memobj-bench"))
        .args([command, "--quick", "--dir"])
        .arg(&directory)
        .output()
        .expect("memobj-bench");
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {}\n{printed}\n{said}", output.status);
    // What the machine lacks is told, as in every test.
    for line in printed.lines().filter(|line| line.contains("skipped: ")) {
        println!("skipped: {command}: {line}");
    }
    printed.into_owned()
}

/// Whether `table` has a row of this contestant.
fn has_row(table: &str, contestant: &str) -> bool {
    table.lines().any(|line| {
        line.strip_prefix("| ")
            .and_then(|rest| rest.strip_prefix(contestant))
            .is_some_and(|rest| rest.starts_with(' '))
    })
}

#[test]
fn scale_has_all_its_rows() {
    let printed = quick("scale");
    for part in ["### access", "### objects"] {
        assert!(printed.contains(part), "{printed}");
    }
    let ours =
        ["ours-pin", "ours-touch", "ours-pin-computed", "ours-touch-computed", "ours-file", "ours-computed"];
    for contestant in ["mmap"].iter().chain(ours.iter().filter(|_| cfg!(feature = "ours"))) {
        assert!(has_row(&printed, contestant), "{contestant}: {printed}");
    }
}

#[test]
fn index_has_all_its_rows() {
    let printed = quick("index");
    for part in ["### resident", "### quarter", "### pin"] {
        assert!(printed.contains(part), "{printed}");
    }
    for contestant in ["mmap", "vmcache", "atomic"] {
        assert!(has_row(&printed, contestant), "{contestant}: {printed}");
    }
    let ours = [
        "ours-pin",
        "ours-pin-large",
        "ours-pin-auto",
        "ours-try_words",
        "ours-try_words-large",
        "ours-try_words-auto",
        "ours-read_at",
    ];
    for contestant in ours.iter().filter(|_| cfg!(feature = "ours")) {
        assert!(has_row(&printed, contestant), "{contestant}: {printed}");
    }
}

/// Of servers that are installed; others are skipped, in each row.
#[cfg(feature = "network")]
#[test]
fn network_has_all_its_rows() {
    let printed = quick("network");
    for part in ["### sequential", "### scattered", "### second hash", "### second read", "### first read"] {
        assert!(printed.contains(part), "{printed}");
    }
    for contestant in ["object_store", "ours-pin", "ours-read", "download", "s3fs", "rclone", "cached-2m"] {
        assert!(has_row(&printed, contestant), "{contestant}: {printed}");
    }
}
