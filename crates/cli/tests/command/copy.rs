//! `memobj copy`: the same bytes, length and holes; or an error, and the truth about how far it came.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use crate::test_folder::{Ran, TestFolder};

const MIB: usize = 1 << 20;

#[test]
fn files_of_any_length_are_copied() {
    let test_folder = TestFolder::new();
    for commit in [&[][..], &["--commit"]] {
        for length in [0, 1, 4095, 4096, 4097, 3 * MIB + 77] {
            let bytes = test_folder.file("src", length);
            for budget in ["64k", "1M"] {
                let _ = fs::remove_file(test_folder.path().join("dst"));
                let ran = test_folder.run(&[&["copy", "--budget", budget], commit, &["src", "dst"]].concat());
                assert_eq!((ran.code(), ran.out(), ran.err()), (0, "", ""), "{length} {budget} {commit:?}");
                let copied = fs::read(test_folder.path().join("dst")).expect("the copy");
                assert!(copied == bytes, "{length} {budget} {commit:?}: other bytes");
            }
        }
    }
    assert_eq!(fs::read_dir(test_folder.path()).expect("the room").count(), 2, "nothing else is left");
}

#[test]
fn holes_stay_holes_and_old_bytes_do_not_shine_through() {
    let test_folder = TestFolder::new();
    for commit in [&[][..], &["--commit"]] {
        let source = File::create(test_folder.path().join("src")).expect("a file");
        source.set_len(64 * MIB as u64 + 5).expect("a length");
        source.write_all_at(b"in the middle", 20 * MIB as u64 + 123).expect("bytes");
        source.write_all_at(b"end", 64 * MIB as u64 + 2).expect("bytes");
        let blocks = source.metadata().expect("metadata").blocks();
        // An old one that is longer, and has bytes where the new one has none.
        test_folder.file("old", 3 * MIB);
        test_folder.file("longer", 70 * MIB);
        for target in ["new", "old", "longer"] {
            let ran = test_folder
                .run(&[&["copy", "--budget", "1M", "--stats", "json"], commit, &["src", target]].concat());
            assert_eq!(ran.code(), 0, "{target} {commit:?}: {}", ran.err());
            let stats: serde_json::Value = serde_json::from_str(ran.err()).expect("JSON");
            assert!(stats["peak_frame_bytes"].as_u64() <= Some(MIB as u64), "{stats}");
            let same = Command::new("cmp").args(["src", target]).current_dir(test_folder.path()).status();
            assert!(same.expect("cmp(1) runs").success(), "{target} {commit:?}");
            let metadata = fs::metadata(test_folder.path().join(target)).expect("metadata");
            // In blocks of 512 bytes; some file systems keep more than was asked for.
            assert!(
                target == "longer" || metadata.blocks() <= blocks + 8 * 2048,
                "{target} {commit:?}: {} blocks for {blocks}",
                metadata.blocks()
            );
        }
        fs::remove_file(test_folder.path().join("new")).expect("it was made");
    }
}

#[test]
fn the_permission_bits_are_the_source_s() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("src", 10_000);
    let set = |name: &str, mode| {
        fs::set_permissions(test_folder.path().join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    for mode in [0o700, 0o444, 0o400] {
        set("src", mode);
        let ran = test_folder.run(&["copy", "src", "dst"]);
        assert_eq!((ran.code(), ran.err()), (0, ""), "{mode:o}");
        let metadata = fs::metadata(test_folder.path().join("dst")).expect("metadata");
        assert_eq!(metadata.mode() & 0o700, mode & 0o700, "{mode:o}");
        assert!(metadata.mode() & 0o777 & !mode == 0, "{mode:o}: {:o}", metadata.mode());
        assert!(fs::read(test_folder.path().join("dst")).expect("the copy") == bytes);
        fs::remove_file(test_folder.path().join("dst")).expect("it was made");
    }
}

#[test]
fn one_file_and_a_directory_are_refused() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("src", 5000);
    fs::hard_link(test_folder.path().join("src"), test_folder.path().join("link")).expect("a link");
    for target in ["src", "link", "./src"] {
        let ran = test_folder.run(&["copy", "src", target]);
        assert_eq!((ran.code(), ran.out()), (1, ""));
        assert!(ran.err().ends_with("they are the same file\n"), "{}", ran.err());
    }
    assert!(fs::read(test_folder.path().join("src")).expect("it is there") == bytes);
    let ran = test_folder.run(&["copy", "src", "."]);
    assert_eq!((ran.code(), ran.out()), (2, ""));
    assert_eq!(ran.err(), "memobj: . is a directory: name the file to write, in it or elsewhere\n");
    let ran = test_folder.run(&["copy", "missing", "dst"]);
    assert_eq!((ran.code(), ran.err()), (1, "memobj: open missing: no such file or directory\n"));
    assert!(!test_folder.path().join("dst").exists());
}

/// Runs `script` where `full` is a file system of 4 MiB, and the command is `$M`.
fn on_a_small_disk(test_folder: &TestFolder, script: &str) -> Option<std::process::Output> {
    fs::create_dir(test_folder.path().join("full")).expect("a directory");
    let script = format!("mount -t tmpfs -o size=4m tmpfs full && echo mounted && {{ {script}; }}");
    let mut command = Command::new("unshare");
    command.args(["-rm", "timeout", "600", "sh", "-c", &script]).current_dir(test_folder.path());
    let ran = command.env("M", env!("CARGO_BIN_EXE_memobj")).output().ok()?;
    ran.stdout.starts_with(b"mounted").then_some(ran)
}

#[test]
fn a_full_disk_is_an_error_and_the_message_is_true() {
    let test_folder = TestFolder::new();
    test_folder.file("src", 12 * MIB);
    let script = "$M copy --budget 1M src full/dst; echo $?; cp full/dst seen;
                  rm full/dst; $M copy --commit --budget 1M src full/all; echo $?; ls full";
    let Some(ran) = on_a_small_disk(&test_folder, script) else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(out, "mounted\n1\n1\n", "{err}");
    assert!(err.contains(" of dst: no room") && err.contains("nothing of the copy is in full/all"), "{err}");
    let durable = err.split("memobj: [0, ").nth(1).and_then(|rest| rest.split(')').next());
    let durable: usize = durable.and_then(|number| number.parse().ok()).expect("a number");
    assert!(durable <= 4 * MIB, "{err}");
    let (source, seen) =
        (fs::read(test_folder.path().join("src")), fs::read(test_folder.path().join("seen")));
    assert!(source.expect("it")[..durable] == seen.expect("it")[..durable], "{err}");
}

#[test]
fn an_interrupted_copy_says_how_far_it_is() {
    let test_folder = TestFolder::new();
    test_folder.file("src", 64 * MIB);
    for (commit, told) in
        [(&[][..], ") of 67108864 bytes is in dst and durable"), (&["--commit"], "nothing of")]
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_memobj"))
            .args([&["copy", "--budget", "256k"], commit, &["src", "dst"]].concat())
            .current_dir(test_folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        // Once the target is there, the handler has long been, too.
        while !test_folder.path().join("dst").exists() {
            std::thread::yield_now();
        }
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(sent.expect("kill(1) runs").success());
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let lines: Vec<String> = errors.lines().map(|line| line.expect("text")).collect();
        let code = child.wait().expect("it ends").code();
        if code == Some(0) {
            println!("skipped: it was done before the interrupt");
            fs::remove_file(test_folder.path().join("dst")).expect("it was made");
            continue;
        }
        assert_eq!(code, Some(130), "{lines:?}");
        // It may not have come to the first byte.
        let told = if lines[1].contains("nothing of") { "nothing of" } else { told };
        assert!(lines[0] == "memobj: interrupted" && lines[1].contains(told), "{lines:?}");
        assert_eq!(test_folder.path().join("dst").exists(), told != "nothing of");
        let _ = fs::remove_file(test_folder.path().join("dst"));
    }
}

/// The signal of a file that is too large would end the command without a word.
#[test]
fn a_limit_of_file_sizes_is_an_error_with_a_message() {
    let test_folder = TestFolder::new();
    test_folder.file("a", 3 << 20);
    std::fs::write(test_folder.path().join("old"), [7; 4096]).expect("a file");
    let limited = |arguments: &str| {
        // In units of 512 or 1024 bytes, as the shell likes.
        let script = format!("ulimit -f 500 && exec timeout 60 \"$0\" {arguments}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_memobj")]).current_dir(test_folder.path());
        Ran(command.output().expect("a shell"))
    };
    for arguments in ["copy a new", "copy --commit a new", "copy --commit a old", "read a >out"] {
        let ran = limited(arguments);
        assert_eq!(ran.code(), 1, "{arguments}: {}", ran.err());
        let told = ran.err().contains("no room") || ran.err().contains("file too large");
        assert!(told, "{arguments}: {}", ran.err());
        assert!(!test_folder.path().join("new").exists(), "{arguments}: a file that looks like a copy");
    }
    assert_eq!(std::fs::read(test_folder.path().join("old")).expect("the old file"), [7; 4096]);
    assert_eq!(limited("hash a").code(), 0);
}
