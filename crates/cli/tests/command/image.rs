//! `memobj image` and `memobj segments`.

use std::process::Command;

use crate::test_folder::{Ran, TestFolder};

/// Addresses and sizes of the phdrs that are loaded, as readelf tells them; `None` where there is none.
fn readelf(path: &str) -> Option<Vec<(u64, u64)>> {
    let ran = Command::new("readelf").args(["-lW", path]).output().ok()?;
    let text = String::from_utf8(ran.stdout).ok()?;
    let number = |field: &str| u64::from_str_radix(field.trim_start_matches("0x"), 16).ok();
    let load = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some((number(fields.get(2)?)?, number(fields.get(5)?)?))
    };
    let lines = text.lines().filter(|line| line.trim_start().starts_with("LOAD"));
    Some(lines.filter_map(load).collect())
}

#[test]
fn a_program_is_planned_and_mapped_as_readelf_says() {
    let test_folder = TestFolder::new();
    let ran = test_folder.run(&["image", "--json", "/bin/ls"]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    let report: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
    let segments = report["segments"].as_array().expect("a list");
    assert_eq!(segments[0]["kind"], "elf header");
    let base = segments[0]["address"].as_u64().expect("a number");
    let ran = test_folder.run(&["image", "/bin/ls"]);
    assert_eq!((ran.code(), ran.out().lines().count()), (0, segments.len() + 2), "{}", ran.out());
    assert!(ran.out().starts_with("/bin/ls: anywhere, 0x") && ran.out().contains("r-x"), "{}", ran.out());
    let Some(loads) = readelf("/bin/ls") else {
        println!("skipped: no readelf");
        return;
    };
    assert_eq!(loads.len(), segments.len());
    for (load, segment) in loads.iter().zip(segments) {
        let number = |name: &str| segment[name].as_u64().expect("a number");
        let begin = number("address") + number("offset");
        assert_eq!((begin - base, number("memory_bytes") - number("offset")), *load, "{segment}");
    }
}

#[test]
fn padding_is_two_segments_more_and_a_plan_maps_nothing() {
    let test_folder = TestFolder::new();
    let plain = test_folder.run(&["image", "--plan", "/bin/ls"]);
    let padded = test_folder.run(&["image", "--plan", "--padding", "1", "/bin/ls"]);
    assert_eq!((plain.code(), padded.code()), (0, 0));
    assert_eq!(padded.out().lines().count(), plain.out().lines().count() + 2);
    assert!(
        padded
            .out()
            .contains("0x0000000000000000        0x1000           0x0     0x0  ---         padding\n")
    );
    assert!(plain.out().contains("; not mapped\n"), "{}", plain.out());
}

#[test]
fn a_program_of_fixed_addresses_is_mapped_there() {
    let test_folder = TestFolder::new();
    std::fs::write(test_folder.path().join("p.c"), "int main(void) { return 0; }\n").expect("a source");
    let built =
        Command::new("cc").args(["-no-pie", "-o", "p", "p.c"]).current_dir(test_folder.path()).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: no cc that builds programs of fixed addresses");
        return;
    }
    let ran = test_folder.run(&["image", "p"]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    assert!(ran.out().starts_with("p: at fixed addresses\n"), "{}", ran.out());
    assert!(ran.out().contains("\n0x0000000000400000 "), "{}", ran.out());
}

#[test]
fn files_that_are_no_images_are_told_why() {
    let test_folder = TestFolder::new();
    test_folder.file("noise", 5000);
    test_folder.file("empty", 0);
    std::fs::copy("/bin/ls", test_folder.path().join("cut")).expect("a copy");
    std::fs::OpenOptions::new()
        .write(true)
        .open(test_folder.path().join("cut"))
        .and_then(|file| file.set_len(100))
        .expect("cut off");
    let cases = [
        ("noise", "memobj: image noise: not an ELF file\n"),
        ("empty", "memobj: image empty: the file is empty\n"),
        (".", "memobj: image .: not a regular file\n"),
        ("missing", "memobj: open missing: no such file or directory\n"),
    ];
    for (name, message) in cases {
        let ran = test_folder.run(&["image", name]);
        assert_eq!((ran.code(), ran.out(), ran.err()), (1, "", message));
    }
    let ran = test_folder.run(&["image", "cut"]);
    assert!(
        ran.err().starts_with("memobj: image cut: the file ends before its program headers at ["),
        "{}",
        ran.err()
    );
    let ran = test_folder.run(&["image", "--flat", "noise"]);
    assert!(ran.code() == 0 && ran.out().contains("0x1388"), "{}", ran.out());
    let ran = test_folder.run(&["image", "--padding", "16777215T", "/bin/ls"]);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    assert!(ran.err().contains("does not fit the address space"), "{}", ran.err());
}

/// A file system that is mounted noexec, in a name space of its own.
#[test]
fn what_may_not_be_executed_is_refused() {
    let test_folder = TestFolder::new();
    let program = env!("CARGO_BIN_EXE_memobj");
    let script = format!(
        "mount -t tmpfs -o noexec none . && cd \"$PWD\" && cp /bin/ls pie && cp pie fixed &&
         printf '\\002' | dd of=fixed bs=1 seek=16 conv=notrunc status=none && echo mounted &&
         for file in pie fixed; do {program} image $file; echo $?; done"
    );
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script]).current_dir(test_folder.path());
    let told = match command.output() {
        Ok(ran) => (
            String::from_utf8_lossy(&ran.stdout).into_owned(),
            String::from_utf8_lossy(&ran.stderr).into_owned(),
        ),
        Err(error) => (String::new(), error.to_string()),
    };
    if !told.0.starts_with("mounted") {
        println!("skipped: no file system can be mounted noexec: {}", told.1);
        return;
    }
    assert_eq!(told.0, "mounted\n1\n1\n");
    let expected = "memobj: image pie: the file may not be executed\n\
                    memobj: image fixed: an executable of fixed addresses on a file system mounted noexec\n";
    assert_eq!(told.1, expected);
}

#[test]
fn segments_come_in_four_forms() {
    let test_folder = TestFolder::new();
    for (format, word) in
        [("linux", "[stack]"), ("plan9", "Stack "), ("umem", "*ANON*"), ("json", "\"protection\"")]
    {
        let ran = test_folder.run(&["segments", "--format", format, "--self"]);
        assert_eq!((ran.code(), ran.err()), (0, ""), "{format}");
        assert!(ran.out().contains(word), "{format}: {}", ran.out());
    }
    let own = std::process::id().to_string();
    let ran = test_folder.run(&["segments", "--format", "umem", &own]);
    assert!(ran.code() == 0 && ran.out().contains("command-"), "{}{}", ran.out(), ran.err());
    let ran = test_folder.run(&["segments", "4294967295"]);
    assert_eq!((ran.code(), ran.err()), (1, "memobj: segments of process 4294967295: no such process\n"));
    for arguments in
        [&["segments"][..], &["segments", "--self", "1"], &["segments", "--format", "x", "--self"]]
    {
        let ran = test_folder.run(arguments);
        assert_eq!((ran.code(), ran.out()), (2, ""), "{arguments:?}");
    }
}

/// A table with more rows than the kernel allows.
fn many_rows(count: u64) -> String {
    let row = |index: u64| {
        let start = 0x1_0000_0000 + index * 0x2000;
        let name = if index.is_multiple_of(3) {
            ""
        } else {
            "      /memfd:memobj:/usr/lib/some/library.so.1 (deleted)"
        };
        let inode = if index.is_multiple_of(3) { 0 } else { 7 };
        format!("{start:x}-{:x} r--p {:08x} 00:01 {inode} {name}\n", start + 0x1000, index * 0x1000)
    };
    (0..count).map(row).collect()
}

/// The command under a limit of 24 MiB of addresses.
fn within_24_mebibytes(test_folder: &TestFolder, format: &str, file: &str) -> Ran {
    let script = "ulimit -d 24576 && exec timeout 600 \"$0\" segments --format \"$1\" --from \"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_memobj"), format, file]).current_dir(test_folder.path());
    Ran(command.output().expect("a shell"))
}

#[test]
fn a_long_table_takes_no_more_memory_than_a_short_one() {
    let test_folder = TestFolder::new();
    let rows = 400_000;
    let text = many_rows(rows);
    assert!(text.len() > 28 << 20, "the table alone is too long: {}", text.len());
    std::fs::write(test_folder.path().join("maps"), text).expect("a file");
    for (format, lines) in [("linux", rows), ("plan9", rows), ("umem", rows), ("json", 10 * rows + 2)] {
        let ran = within_24_mebibytes(&test_folder, format, "maps");
        assert_eq!((ran.code(), ran.err()), (0, ""), "{format}");
        assert_eq!(ran.out().lines().count() as u64, lines, "{format}");
    }
    // Nor does a line that does not end: here all of a file with a hole only.
    let hole = std::fs::File::create(test_folder.path().join("hole")).expect("a file");
    hole.set_len(64 << 20).expect("a hole");
    let ran = within_24_mebibytes(&test_folder, "linux", "hole");
    let message = "memobj: segments of hole: line 1 does not have the form of /proc/PID/maps\n";
    assert_eq!((ran.code(), ran.err()), (1, message));
}

#[test]
fn a_table_from_elsewhere_is_read_as_the_kernels() {
    let test_folder = TestFolder::new();
    std::fs::copy("/proc/self/maps", test_folder.path().join("maps")).expect("a copy");
    let text = std::fs::read_to_string(test_folder.path().join("maps")).expect("text");
    assert_eq!(test_folder.run(&["segments", "--from", "maps"]).out(), text);
    // A pipe cannot be read twice, and Plan 9's table has its stack first.
    let piped = |format: &str| {
        let script = "cat maps | timeout 600 \"$0\" segments --format \"$1\" --from /dev/stdin";
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_memobj"), format]).current_dir(test_folder.path());
        Ran(command.output().expect("a shell"))
    };
    for format in ["linux", "plan9", "umem", "json"] {
        assert_eq!(
            piped(format).out(),
            test_folder.run(&["segments", "--format", format, "--from", "maps"]).out()
        );
    }
    let fails = |text: &[u8], message: &str| {
        std::fs::write(test_folder.path().join("wrong"), text).expect("a file");
        let ran = test_folder.run(&["segments", "--from", "wrong"]);
        assert_eq!((ran.code(), ran.err()), (1, message));
    };
    fails(
        b"1000-2000 r--p 0 0:0 0 \nmore\n",
        "memobj: segments of wrong: line 2 does not have the form of /proc/PID/maps\n",
    );
    fails(&[b'a'; 100_000], "memobj: segments of wrong: line 1 does not have the form of /proc/PID/maps\n");
    let ran = test_folder.run(&["segments", "--from", "nothing"]);
    let message = "memobj: segments of nothing: no such file or directory\n";
    assert_eq!((ran.code(), ran.err()), (1, message));
    assert_eq!(test_folder.run(&["segments", "--from", "maps", "--self"]).code(), 2);
    assert_eq!(test_folder.run(&["segments", "--from", "maps", "1"]).code(), 2);
}

#[test]
fn help_of_images_teaches() {
    let test_folder = TestFolder::new();
    for (command, word) in [("image", "readelf -lW"), ("segments", "/proc/n/segment")] {
        let ran = test_folder.run(&[command, "--help"]);
        assert!(
            ran.code() == 0 && ran.out().contains(word) && ran.out().contains("Examples:"),
            "{}",
            ran.out()
        );
    }
}

#[test]
fn names_that_are_not_utf_8_are_there_as_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let test_folder = TestFolder::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9 \xff");
    std::fs::copy("/proc/self/exe", test_folder.path().join(name)).expect("a copy");
    let ran = Ran(test_folder.command(&["image", "--json"]).arg(name).output().expect("timeout(1) runs"));
    let report: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
    assert_eq!((ran.code(), &report["file_hex"]), (0, &"636166e920ff".into()));
    assert_eq!(report["file"], "caf\u{fffd} \u{fffd}");
    let ran = Ran(test_folder.command(&["hash"]).arg(name).output().expect("timeout(1) runs"));
    assert!(ran.0.stdout.ends_with(b"  caf\xe9 \xff\n"), "{:?}", ran.0);
    let ran = test_folder.run(&["image", "--json", "/proc/self/exe"]);
    let report: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
    assert!(report.get("file_hex").is_none(), "{report}");
}
