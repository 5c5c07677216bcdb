//! Files that do not tell their length, and files that are none: read to their end, or refused by name.

use std::fs;
use std::process::Command;

use crate::test_folder::{Ran, TestFolder};

/// Files of the kernel whose bytes stay the same.
const FILES: [&str; 16] = [
    "/proc/version",
    "/proc/filesystems",
    "/proc/devices",
    "/proc/cmdline",
    "/proc/partitions",
    "/proc/kallsyms",
    "/proc/config.gz",
    "/proc/sys/kernel/ostype",
    "/proc/sys/kernel/random/boot_id",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/devices/system/cpu/online",
    "/sys/class/net/lo/address",
    "/sys/class/net/lo/mtu",
    "/sys/block/loop0/size",
    "/sys/kernel/notes",
    "/sys/kernel/profiling",
];

fn cat(path: &str) -> Option<Vec<u8>> {
    let output = Command::new("cat").arg(path).output().expect("cat(1) runs");
    output.status.success().then_some(output.stdout)
}

#[test]
fn files_of_the_kernel_are_read_to_their_end() {
    let test_folder = TestFolder::new();
    let mut seen = 0;
    for path in FILES {
        let Some(bytes) = cat(path) else {
            println!("skipped: no {path}");
            continue;
        };
        seen += 1;
        for access in ["touch", "pin", "copy"] {
            let ran = test_folder.run(&["read", "--budget", "64k", "--access", access, path]);
            assert_eq!((ran.code(), ran.err()), (0, ""), "{path}");
            assert!(ran.0.stdout == bytes, "{path}: {} bytes of {}", ran.0.stdout.len(), bytes.len());
        }
        let part = test_folder.run(&["read", "--offset", "1", "--length", "2", path]);
        assert!(part.0.stdout == bytes[1..3.min(bytes.len())], "{path}");
        let ran = test_folder.run(&["hash", path]);
        fs::write(test_folder.path().join("same"), &bytes).expect("a file");
        let same = test_folder.run(&["hash", "same"]);
        assert_eq!((ran.code(), ran.out().split(' ').next()), (0, same.out().split(' ').next()), "{path}");
        for commit in [&[][..], &["--commit"]] {
            let ran = test_folder.run(&[&["copy", "--budget", "64k"], commit, &[path, "dst"]].concat());
            assert_eq!((ran.code(), ran.out(), ran.err()), (0, "", ""), "{path}");
            assert!(fs::read(test_folder.path().join("dst")).expect("the copy") == bytes, "{path}");
        }
    }
    assert!(seen >= 5 || !fs::exists("/proc/version").unwrap_or(false), "{seen} files");
}

#[test]
fn the_budget_bounds_what_is_kept_of_them_and_injected_faults_are_met() {
    let test_folder = TestFolder::new();
    let Some(bytes) = cat("/proc/kallsyms").filter(|bytes| bytes.len() > 1 << 20) else {
        return println!("skipped: /proc/kallsyms is short, or not to be read");
    };
    let ran = test_folder.run(&["hash", "--budget", "64k", "--stats", "json", "/proc/kallsyms"]);
    let stats: serde_json::Value = serde_json::from_str(ran.err()).expect("JSON");
    assert_eq!((ran.code(), stats["peak_frame_bytes"].as_u64() <= Some(64 << 10)), (0, true), "{stats}");
    // From a temporary file, not from memory.
    assert!(stats["read_bytes"].as_u64() >= Some(bytes.len() as u64), "{stats}");
    let ran = test_folder.run(&["read", "--inject", "error@4k+4k", "/proc/kallsyms"]);
    let message = "memobj: supply [4096, 8192) of /proc/kallsyms: input/output error\n";
    assert_eq!((ran.code(), ran.err()), (1, message));
}

#[test]
fn what_cannot_be_read_so_is_refused_by_name() {
    let test_folder = TestFolder::new();
    test_folder.file("f", 5000);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        test_folder.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a FIFO");
    let refused = |ran: Ran, name: &str| {
        assert_eq!((ran.code(), ran.out()), (1, ""), "{}", ran.err());
        assert!(ran.err().starts_with("memobj: ") && ran.err().contains(name), "{}", ran.err());
        assert_eq!(ran.err().lines().count(), 1, "{}", ran.err());
    };
    for name in ["fifo", "/dev/zero", "/proc/self/mem"] {
        refused(test_folder.run(&["hash", name]), name);
        refused(test_folder.run(&["read", name]), name);
        refused(test_folder.run(&["copy", name, "dst"]), name);
        refused(test_folder.run(&["image", "--flat", name]), name);
    }
    for name in ["fifo", "/dev/null", "/proc/self/comm"] {
        refused(test_folder.run(&["copy", "f", name]), name);
        refused(test_folder.run(&["patch", "--at", "0", name]), name);
    }
    assert!(!test_folder.path().join("dst").exists());
}
