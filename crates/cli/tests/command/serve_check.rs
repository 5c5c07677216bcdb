//! `memobj serve --check`: what is right, what is wrong, and that nothing is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::test_folder::TestFolder;

/// Names and lengths of all that lies in the folder.
fn listing(test_folder: &TestFolder) -> Vec<(String, u64)> {
    let entries = fs::read_dir(test_folder.path()).unwrap().map(Result::unwrap);
    let mut listing: Vec<_> = entries
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), entry.path().symlink_metadata().unwrap().len())
        })
        .collect();
    listing.sort();
    listing
}

/// Runs the check, and gives its lines. It has changed nothing.
#[track_caller]
fn check(test_folder: &TestFolder, arguments: &[&str], problems: usize) -> Vec<String> {
    let before = listing(test_folder);
    let ran = test_folder.run(&[&["serve", "--check"], arguments].concat());
    assert_eq!(listing(test_folder), before);
    let lines: Vec<String> = ran.out().lines().map(str::to_owned).collect();
    let wrong = lines.iter().filter(|line| line.starts_with("wrong  ")).count();
    assert!(lines.iter().all(|line| line.starts_with("ok     ") || line.starts_with("wrong  ")), "{lines:?}");
    assert_eq!(wrong, problems, "{lines:#?}");
    let said = match problems {
        0 => String::new(),
        1 => "memobj: serve: 1 problem was found\n".into(),
        count => format!("memobj: serve: {count} problems were found\n"),
    };
    assert_eq!((ran.code(), ran.err()), (i32::from(problems > 0), said.as_str()), "{lines:#?}");
    lines
}

#[track_caller]
fn has(lines: &[String], status: &str, words: &[&str]) {
    let is_it = |line: &&String| line.starts_with(status) && words.iter().all(|words| line.contains(words));
    assert!(lines.iter().any(|line| is_it(&line)), "no {status} line with {words:?} in {lines:#?}");
}

#[test]
fn a_configuration_that_serves_has_a_line_for_each_thing() {
    let test_folder = TestFolder::new();
    test_folder.file("words", 100_000);
    test_folder.file("memory", 8192);
    fs::create_dir(test_folder.path().join("folder")).unwrap();
    let arguments = [
        "socket",
        "--export",
        "words=words:rw",
        "--export",
        "model=memory",
        "--export-dir",
        "folder",
        "--firecracker",
        "monitors",
        "--memory",
        "memory",
        "--record",
        "record",
        "--clients",
        "10",
        "--machines",
        "10",
        "--metrics",
        "0",
        "--disk-cache",
        "cache:1G",
        "--inject",
        "words:error@0+4k",
    ];
    let lines = check(&test_folder, &arguments, 0);
    for words in [
        &["userfaultfd: permitted"][..],
        &["budget: 256 MiB of"],
        &["descriptors: 10 clients with a mapping each and 10 machines take"],
        &["socket socket:", "nobody listens"],
        &["socket monitors:", "nobody listens"],
        &["metrics 127.0.0.1:0:"],
        &["disk cache cache:", "made"],
        &["export words=words: 100000 bytes, to be written"],
        &["export model=memory: 8192 bytes, to be read"],
        &["export-dir folder:"],
        &["memory memory: 8192 bytes"],
        &["record record:"],
    ] {
        has(&lines, "ok", words);
    }
    // A socket that a dead server has left is replaced, so it is no problem.
    drop(UnixListener::bind(test_folder.path().join("socket")).unwrap());
    has(&check(&test_folder, &["socket"], 0), "ok", &["socket socket: a dead server"]);
}

#[test]
fn sockets_have_a_place() {
    let test_folder = TestFolder::new();
    test_folder.file("file", 10);
    let listener = UnixListener::bind(test_folder.path().join("taken")).unwrap();
    has(&check(&test_folder, &["taken"], 1), "wrong", &["another server listens there; end it"]);
    // Also if as many wait there as may wait.
    listener.set_nonblocking(true).unwrap();
    let waiting: Vec<UnixStream> = (0..5000).map_while(|_| connect_at_once(&test_folder)).collect();
    println!("{} wait", waiting.len());
    has(&check(&test_folder, &["taken"], 1), "wrong", &["another server listens there; end it"]);
    has(&check(&test_folder, &["file"], 1), "wrong", &["something else than a socket"]);
    has(&check(&test_folder, &["no/socket"], 1), "wrong", &["folder no: no such file", "; make it"]);
    has(&check(&test_folder, &["file/socket"], 1), "wrong", &["file is no folder"]);
    has(&check(&test_folder, &[&"x".repeat(200)], 1), "wrong", &["name another socket"]);
    let twice = ["s", "--firecracker", "s", "--memory", "file"];
    has(&check(&test_folder, &twice, 1), "wrong", &["socket s: it is named twice"]);
}

fn connect_at_once(test_folder: &TestFolder) -> Option<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let address = SocketAddrUnix::new(test_folder.path().join("taken")).unwrap();
    connect(&socket, &address).ok().map(|()| socket.into())
}

#[test]
fn objects_are_opened() {
    let test_folder = TestFolder::new();
    test_folder.file("words", 100);
    fs::write(test_folder.path().join("empty"), "").unwrap();
    fs::write(test_folder.path().join("noise"), "noise").unwrap();
    let held = fs::File::options().write(true).open(test_folder.path().join("words")).unwrap();
    held.lock().unwrap();
    let url = format!("far=http://127.0.0.1:{}/x", crate::servers::free_port());
    let exports = [
        "socket",
        "--export",
        "none=nowhere",
        "--export",
        "folder=.",
        "--export",
        "locked=words:rw",
        "--export",
        "locked=empty",
        "--export",
        &url,
        "--export-dir",
        "nowhere",
        "--inject",
        "other:error@0+4k",
        "--timeout",
        "1s",
        "--manifest",
        "noise",
    ];
    let lines = check(&test_folder, &exports, 8);
    has(&lines, "wrong", &["export none=nowhere: open nowhere: no such file", "name a regular file"]);
    has(&lines, "wrong", &["export folder=.: open .: a directory"]);
    has(&lines, "wrong", &["export locked=words: another process has it open", "end that process"]);
    has(&lines, "wrong", &["export locked=empty: the name is exported twice"]);
    has(&lines, "wrong", &["manifest:"]);
    has(&lines, "wrong", &["export far=http"]);
    has(&lines, "wrong", &["export-dir nowhere: no such file"]);
    has(&lines, "wrong", &["inject other: no export has this name"]);
    // A server that nobody is at, with nothing else wrong.
    let lines = check(&test_folder, &["socket", "--export", &url, "--timeout", "1s"], 1);
    has(&lines, "wrong", &["export far=http", "`memobj doctor URL` says more"]);
    drop(held);
    check(&test_folder, &["socket", "--export", "words=words:rw"], 0);
    let machines = ["--firecracker", "monitors", "--memory"];
    has(&check(&test_folder, &[&machines[..], &["empty"]].concat(), 1), "wrong", &["it has no bytes"]);
    let replayed = [&machines[..], &["words", "--replay", "noise"]].concat();
    has(&check(&test_folder, &replayed, 1), "wrong", &["replay noise:"]);
    let recorded = [&machines[..], &["words", "--record", "no/record"]].concat();
    has(&check(&test_folder, &recorded, 1), "wrong", &["record no/record: folder no"]);
}

/// A server that takes connections, and says nothing.
#[test]
fn a_server_that_is_silent_is_not_waited_for_for_ever() {
    let test_folder = TestFolder::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("far=http://{}/x", silent.local_addr().unwrap());
    let lines = check(&test_folder, &["socket", "--export", &url, "--timeout", "1s"], 1);
    has(&lines, "wrong", &["export far=http", "`memobj doctor URL` says more"]);
}

#[test]
fn limits_of_the_system_are_looked_at() {
    let test_folder = TestFolder::new();
    let lines = check(&test_folder, &["socket", "--budget", "1000000G"], 1);
    has(&lines, "wrong", &["budget:", "memory of this process", "give a smaller --budget"]);
    // The limit of descriptors is that of the shell that starts it.
    let script = "ulimit -n 200; exec \"$0\" serve --check socket --clients 100";
    let ran = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_memobj")])
        .current_dir(test_folder.path())
        .output()
        .unwrap();
    let lines: Vec<String> = String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(ran.status.code(), Some(1), "{lines:?}");
    has(
        &lines,
        "wrong",
        &["descriptors: 100 clients with a mapping each take 928, and the limit is 200", "ulimit -n 928"],
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let lines = check(&test_folder, &["socket", "--metrics", &port], 1);
    has(&lines, "wrong", &["metrics 127.0.0.1:", "name another port"]);
}

#[test]
fn what_this_user_may_not_do_is_found() {
    if rustix::process::geteuid().is_root() {
        return println!("skipped: root may do everything");
    }
    let test_folder = TestFolder::new();
    test_folder.file("words", 100);
    let place = test_folder.path().join("closed");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(test_folder.path().join("words"), fs::Permissions::from_mode(0o400)).unwrap();
    let lines = check(&test_folder, &["closed/socket", "--export", "words=words:rw"], 2);
    has(&lines, "wrong", &["socket closed/socket: folder closed: permission denied"]);
    has(&lines, "wrong", &["export words=words: permission denied", "leave :rw out"]);
}
