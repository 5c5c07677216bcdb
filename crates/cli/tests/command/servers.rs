//! Objects of servers, by URL, where a command takes a file.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::test_folder::TestFolder;
use crate::web_server::WebServer;

const MIB: usize = 1 << 20;

fn member(json: &str, name: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {json}"))
}

#[test]
fn an_object_of_a_server_has_the_digest_of_its_bytes() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("local", 5 * MIB + 123);
    let (digest, server) = (blake3::hash(&bytes), WebServer::new(bytes));
    let url = server.url("object?key=secret");
    for options in [&["--budget", "1M"][..], &["--budget", "32M", "--block", "64k", "--access", "pin"]] {
        let ran = test_folder.run(&[&["hash", &url], options].concat());
        assert_eq!((ran.code(), ran.err()), (0, ""), "{options:?}");
        assert_eq!(ran.out(), format!("{digest}  {url}\n"));
    }
    let ran = test_folder.run(&["copy", &url, "copy"]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    assert_eq!(blake3::hash(&std::fs::read(test_folder.path().join("copy")).unwrap()), digest);
}

#[test]
fn a_small_part_moves_few_bytes() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("local", 64 * MIB);
    let server = WebServer::new(bytes.clone());
    let ran = test_folder.run(&["read", "--offset", "40M", "--length", "100", &server.url("object")]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    assert_eq!(ran.0.stdout, bytes[40 * MIB..40 * MIB + 100]);
    // The block, what is read ahead, and a byte to open it.
    assert!(server.sent() <= 4 * MIB, "{} bytes were sent", server.sent());
}

#[test]
fn what_is_in_the_disk_cache_is_not_asked_for() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("local", 5 * MIB + 123);
    let (digest, server) = (blake3::hash(&bytes), WebServer::new(bytes));
    let url = server.url("object");
    let arguments = ["hash", "--disk-cache", "cache:64M", "--stats", "json", &url];
    for (round, moves) in [(1, 5 * MIB + 123), (2, 0)] {
        let before = server.sent();
        let ran = test_folder.run(&arguments);
        assert_eq!((ran.code(), ran.out()), (0, format!("{digest}  {url}\n").as_str()), "{}", ran.err());
        // And one byte to open it.
        assert_eq!(server.sent() - before, moves + 1, "round {round}");
        assert_eq!(member(ran.err(), "disk_cache_hits"), if round == 1 { 0 } else { 6 });
    }
    // Another version is another object.
    server.change_after(0);
    let ran = test_folder.run(&arguments);
    assert_eq!((ran.code(), member(ran.err(), "disk_cache_hits")), (0, 0));
}

#[test]
fn a_byte_that_is_wrong_is_found_by_its_digest() {
    let test_folder = TestFolder::new();
    let server = WebServer::new(test_folder.file("local", 3 * MIB));
    let made = test_folder.run(&["digest", "local"]);
    std::fs::write(test_folder.path().join("manifest"), &made.0.stdout).unwrap();
    let url = server.url("object");
    let arguments = ["hash", "--manifest", "manifest", &url];
    assert_eq!(test_folder.run(&arguments).code(), 0);
    server.damage(2 * MIB + 5);
    let ran = test_folder.run(&arguments);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    let expected =
        format!("memobj: supply [2097152, 2101248) of {url}: wrong answer from the pager: block 2 ");
    assert!(ran.err().starts_with(&expected), "{}", ran.err());
}

#[test]
fn an_object_that_is_replaced_meanwhile_is_stale() {
    let test_folder = TestFolder::new();
    let server = WebServer::new(test_folder.file("local", 8 * MIB));
    server.change_after(3);
    let ran = test_folder.run(&["hash", "--budget", "1M", &server.url("object")]);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    assert!(ran.err().contains("the object changed since it was opened"), "{}", ran.err());
}

/// A program reads and maps an object of a server as a file, and moves what it touches.
#[test]
fn a_program_has_an_object_of_a_server_as_a_file() {
    let test_folder = TestFolder::new();
    let why = test_folder.run(&["run", "--", "true"]);
    if why.code() != 0 {
        return println!("skipped: programs cannot be run here: {}", why.err());
    }
    let bytes = test_folder.file("local", 64 * MIB);
    let server = WebServer::new(bytes.clone());
    let map = format!("/served/file={}", server.url("object"));
    let part = ["dd", "if=/served/file", "bs=1000", "skip=50000", "count=10", "status=none"];
    let ran = test_folder.run(&[&["run", "--map", &map, "--"], &part[..]].concat());
    assert_eq!(ran.code(), 0, "{}", ran.err());
    assert!(ran.0.stdout == bytes[50_000_000..50_010_000]);
    // Else all of it was copied before, as is right where there is no FUSE.
    let is_on_demand = ran.err().is_empty();
    assert!(!is_on_demand || server.sent() <= 4 * MIB, "{} bytes were sent", server.sent());
    let all = ["sh", "-c", "cat /served/file | cmp - local && test $(wc -c </served/file) = 67108864"];
    let ran = test_folder.run(&[&["run", "--map", &map, "--"], &all[..]].concat());
    assert_eq!(ran.code(), 0, "{}", ran.err());
    if is_on_demand {
        let inject = ["run", "--inject", "file:error@1M+4k", "--map", &map, "--", "cat", "/served/file"];
        let ran = test_folder.run(&inject);
        assert_eq!(ran.code(), 1);
        assert!(ran.err().contains("supply [1048576, "), "{}", ran.err());
        assert!(ran.0.stdout == bytes[..ran.0.stdout.len()] && ran.0.stdout.len() <= MIB);
    }
}

#[test]
fn an_image_of_a_server_is_that_of_the_file() {
    let test_folder = TestFolder::new();
    let program = std::env::current_exe().expect("this test has a name");
    let server = WebServer::new(std::fs::read(&program).expect("it can be read"));
    let url = server.url("program");
    let image = |file: &str| {
        let ran = test_folder.run(&["image", "--plan", "--json", file]);
        assert_eq!((ran.code(), ran.err()), (0, ""));
        let mut value: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
        (value["file"].take(), value)
    };
    let (of_file, of_server) = (image(program.to_str().expect("UTF-8")), image(&url));
    assert_eq!(of_file.1, of_server.1);
    assert_eq!(of_server.0, url.as_str());
    let ran = test_folder.run(&["image", &format!("http://127.0.0.1:{}/x", free_port())]);
    assert!(ran.code() == 1 && ran.err().starts_with("memobj: open http://127.0.0.1:"), "{}", ran.err());
}

/// A port at which nobody listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    listener.local_addr().expect("it listens").port()
}

#[test]
fn a_server_that_is_away_is_an_error_or_waited_for() {
    let test_folder = TestFolder::new();
    let url = format!("http://127.0.0.1:{}/object", free_port());
    let ran = test_folder.run(&["hash", &url]);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    assert!(ran.err().starts_with(&format!("memobj: open {url}: ")), "{}", ran.err());
    assert_eq!(ran.err().lines().count(), 1, "{}", ran.err());
    let ran = test_folder.run(&["hash", "--retry", "300ms", &url]);
    assert_eq!(ran.code(), 1);
    assert!(ran.err().lines().next().is_some_and(|line| line.ends_with("; still trying")), "{}", ran.err());
}

#[test]
fn what_is_no_url_of_a_server_is_refused_with_what_is_known() {
    let test_folder = TestFolder::new();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["hash", "file://elsewhere/x"], 1, "files are of this machine"),
        (&["doctor", "local"], 2, "is no URL of a server"),
        (&["hash", "--block", "3M", "x"], 2, "no power of two"),
        (&["hash", "--disk-cache", "x:1k", "x"], 2, "the least is 16M"),
    ];
    for (arguments, code, words) in cases {
        let ran = test_folder.run(arguments);
        assert_eq!(ran.code(), code, "{arguments:?}: {}", ran.err());
        assert!(ran.err().contains(words), "{arguments:?}: {}", ran.err());
    }
}

#[test]
fn the_doctor_says_how_a_server_is() {
    let test_folder = TestFolder::new();
    let server = WebServer::new(test_folder.file("local", 2 * MIB));
    let ran = test_folder.run(&["doctor", "--json", &server.url("object")]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
    let report: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
    assert_eq!((&report["length"], &report["version"]), (&(2 * MIB).into(), &"\"v1\"".into()));
    let expected = serde_json::json!({
        "ranges": true, "compared_by": "entity tag", "refuses_other_versions": false
    });
    assert_eq!(report["conditions"], expected, "this server honours no If-Match");
    assert!(report["bytes_per_second"].as_f64().is_some_and(|speed| speed > 0.0), "{}", ran.out());
}

/// A process that is killed at the end.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn wait_for_port(port: u16) {
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    memobj_sim::fixture::wait_until("somebody listens at the port", listens);
}

/// diod, which serves `folder`. `None`: it is missing, and that was said.
pub fn diod(folder: &std::path::Path, port: u16) -> Option<Server> {
    let program =
        ["/usr/sbin/diod", "/usr/bin/diod"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let Some(program) = program else {
        println!("skipped: diod is not installed");
        return None;
    };
    let listen = format!("127.0.0.1:{port}");
    let mut command = Command::new(program);
    command.args(["-f", "-n", "-l", &listen, "-e"]).arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(command.spawn().expect("diod starts"));
    wait_for_port(port);
    Some(server)
}

#[test]
fn files_of_9p_servers_are_read_and_written_also_through_the_proxy_and_restarts() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("file", 20 * MIB);
    let (port, proxy_port) = (free_port(), free_port());
    let Some(server) = diod(test_folder.path(), port) else { return };
    let tree = test_folder.path().display();
    let listen = format!("127.0.0.1:{proxy_port}");
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_memobj"));
    proxy.args(["9p-proxy", "--quiet", &listen, &format!("127.0.0.1:{port}")]);
    let _proxy = Server(proxy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    wait_for_port(proxy_port);
    let url = |port| format!("9p://127.0.0.1:{port}/file?aname={tree}");
    for port in [port, proxy_port] {
        let ran = test_folder.run(&["hash", "--budget", "2M", &url(port)]);
        assert_eq!((ran.code(), ran.err()), (0, ""));
        assert!(ran.out().starts_with(&blake3::hash(&bytes).to_string()));
    }
    // The server is away when the command begins, and comes back.
    drop(server);
    let mut command = test_folder.command(&["hash", "--retry", "forever", &url(port)]);
    let waiting = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let _server = diod(test_folder.path(), port).expect("it was there before");
    let output = waiting.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let new = test_folder.file("new", 3 * MIB);
    let ran = test_folder.run(&["copy", "new", &url(proxy_port)]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    assert!(std::fs::read(test_folder.path().join("file")).unwrap() == new);
}
