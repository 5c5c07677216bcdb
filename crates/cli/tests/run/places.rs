//! Where reports and records go, and where records come from: nothing that has to be waited for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::build::{Kind, program};
use crate::ends::run;
use crate::test_folder::TestFolder;

fn fifo(test_folder: &TestFolder) -> PathBuf {
    let path = test_folder.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    path
}

#[test]
fn a_record_is_a_regular_file() {
    let Some(test_folder) = TestFolder::new() else { return };
    let fifo = fifo(&test_folder);
    for option in ["--replay", "--record"] {
        for path in [fifo.to_str().expect("text"), "/dev/null"] {
            let end = run(test_folder.memobj(&[option, path], &["echo", "ran"]));
            let says = format!("{} {path}: it is not a regular file\n", &option[2..]);
            assert_eq!((end.code(), &end.out[..]), (1, ""), "{end:?}");
            assert!(end.err.ends_with(&says) && end.err.lines().count() == 1, "{end:?}");
        }
    }
    // What lies in the way of a new record is not written to.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        test_folder.path("start.rec.new"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a FIFO");
    let end = run(test_folder.memobj(&["--record", "start.rec"], &["true"]));
    assert_eq!((end.code(), &end.err[..]), (0, ""));
    assert!(!test_folder.path("start.rec.new").exists());
    assert_eq!(run(test_folder.memobj(&["--replay", "start.rec"], &["true"])).code(), 0);
}

#[test]
fn a_report_does_not_wait_for_a_reader() {
    let Some(test_folder) = TestFolder::new() else { return };
    let fifo = fifo(&test_folder);
    let end = run(test_folder.memobj(&["--report", "json", "--report-file", "fifo"], &["true"]));
    assert!(end.code() == 1 && end.err.contains("write fifo: "), "{end:?}");
    // A slow one has all of it.
    let mut command = test_folder.native(&["sh", "-c", "exec <fifo; cat"]);
    let reader = command.stdout(std::process::Stdio::piped()).spawn().expect("sh(1) runs");
    // That the reader has the FIFO open is told by opening it; it reads on as long as this is open, too.
    let writer = loop {
        match rustix::fs::open(&fifo, WRITE_AT_ONCE, rustix::fs::Mode::empty()) {
            Ok(writer) => break writer,
            Err(_) => std::thread::yield_now(),
        }
    };
    let end =
        run(test_folder.memobj(&["--report", "json", "--report-file", "fifo"], &["bash", "-c", "ls | cat"]));
    assert_eq!((end.code(), &end.err[..]), (0, ""));
    drop(writer);
    let text = reader.wait_with_output().expect("its end").stdout;
    assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "{} bytes", text.len());
}

const WRITE_AT_ONCE: rustix::fs::OFlags = rustix::fs::OFlags::WRONLY.union(rustix::fs::OFlags::NONBLOCK);

#[test]
fn names_that_are_not_utf_8_are_in_the_report_as_bytes() {
    let Some(test_folder) = TestFolder::new() else { return };
    let name = OsStr::from_bytes(b"caf\xe9");
    std::fs::copy("/bin/sleep", test_folder.path("").join(name)).expect("a program");
    let words = [OsStr::new("sh"), OsStr::new("-c"), OsStr::new("./\"$0\" 0"), name];
    let end = run(test_folder.memobj(&["--report", "json", "--report-file", "report"], &words));
    assert_eq!((end.code(), &end.err[..]), (0, ""));
    let text = std::fs::read(test_folder.path("report")).expect("the report");
    let report: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(report["command_hex"][3], "636166e9");
    let processes = report["processes"].as_array().expect("processes");
    assert!(processes.iter().any(|process| process["command_hex"][0] == "2e2f636166e9"), "{processes:?}");
    let files = report["files"].as_array().expect("files");
    let ends =
        |file: &serde_json::Value| file["path_hex"].as_str().is_some_and(|hex| hex.ends_with("2f636166e9"));
    assert!(files.iter().any(ends), "{files:?}");
}

#[test]
fn segments_tell_of_a_served_file_whatever_its_name_is() {
    let Some(test_folder) = TestFolder::new() else { return };
    let name = OsStr::from_bytes(b"caf\xe9 \\x41");
    std::fs::copy("/bin/bash", test_folder.path("").join(name)).expect("a program");
    let script = format!("exec {} segments --format json $$", env!("CARGO_BIN_EXE_memobj"));
    let words = [test_folder.path("").join(name).into_os_string(), "-c".into(), script.into()];
    let script = format!("{} segments --format json $$; true", env!("CARGO_BIN_EXE_memobj"));
    let end = run(test_folder.memobj(&[], &[&words[0], &words[1], OsStr::new(&script)]));
    assert_eq!((end.code(), &end.err[..]), (0, ""));
    let rows: serde_json::Value = serde_json::from_str(&end.out).expect("JSON");
    let is_it = |row: &&serde_json::Value| {
        row["object"] == true
            && row["name_hex"].as_str().is_some_and(|hex| hex.ends_with("2f636166e9205c783431"))
    };
    // A name of an object is cut off behind 100 characters.
    if words[0].len() < 90 {
        assert!(rows.as_array().expect("rows").iter().any(|row| is_it(&row)), "{rows}");
    }
}

#[test]
fn a_descriptor_that_is_closed_is_closed_for_the_program() {
    let Some(test_folder) = TestFolder::new() else { return };
    let script = "for fd in 0 1 2; do [ -e /proc/self/fd/$fd ] && echo $fd >>\"$1\"; done; exit 0";
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let redirected = format!("exec \"$@\" {closed}");
        let words = |file: &str| {
            ["sh", "-c", &redirected, "sh", "env", "sh", "-c", script, "sh", file].map(str::to_string)
        };
        run(test_folder.native(&words("native")));
        let mut memobj = words("mapped").to_vec();
        let front = [env!("CARGO_BIN_EXE_memobj"), "run", "--"].map(str::to_string);
        memobj.splice(4..4, front);
        assert_eq!(run(test_folder.native(&memobj)).code(), 0);
        let read = |name: &str| std::fs::read_to_string(test_folder.path(name)).unwrap_or_default();
        assert_eq!(read("mapped"), read("native"), "{closed}");
        for name in ["native", "mapped"] {
            let _ = std::fs::remove_file(test_folder.path(name));
        }
    }
}

#[test]
fn lines_that_nobody_takes_end_nobody() {
    let Some(test_folder) = TestFolder::new() else { return };
    let Some(program) = program("failures", Kind::Dynamic) else { return };
    let file = test_folder.sample("sample", 256);
    let mut words: Vec<&OsStr> = ["sh", "-c", "", env!("CARGO_BIN_EXE_memobj")].map(OsStr::new).to_vec();
    words.extend(["run", "--inject", "sample:error@400k+4k", "--"].map(OsStr::new));
    words.extend([program.as_os_str(), OsStr::new("errors"), file.as_os_str()]);
    words[2] = OsStr::new("exec \"$0\" \"$@\" 2>/dev/full");
    let end = run(test_folder.native(&words));
    let expected = "before: status 3\nbad: signal 7\nbehind: status 3\nwrite: -1\nerrors done\n";
    assert_eq!((end.code(), end.out.as_str()), (0, expected), "{end:?}");
}
