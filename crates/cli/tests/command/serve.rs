//! `memobj serve`, as people start and end it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use memobj::GuestProt;
use memobj_serve::control::Client;

use crate::test_folder::TestFolder;

/// A server that is killed when it is dropped.
struct Serving {
    child: Child,
    messages: Option<std::process::ChildStderr>,
}

impl Serving {
    /// Starts it, and waits until it listens at `socket`.
    fn start(test_folder: &TestFolder, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memobj"));
        command.args(["serve", "socket"]).args(arguments).current_dir(test_folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("standard output is piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "socket\n");
        let messages = child.stderr.take();
        Self { child, messages }
    }

    /// Sends a signal, and gives the exit status and what was said.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill(1) runs").success());
        let mut text = String::new();
        let mut messages = self.messages.take().expect("standard error is piped");
        messages.read_to_string(&mut text).expect("text");
        (self.child.wait().expect("it ends").code(), text)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_until_a_signal_and_syncs() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("words", 100_000);
    std::fs::create_dir(test_folder.path().join("folder")).unwrap();
    test_folder.file("folder/file", 10);
    let path = test_folder.path().join("socket");
    for (signal, code) in [("-TERM", 0), ("-INT", 130)] {
        let server = Serving::start(
            &test_folder,
            &["--budget", "1M", "--export", "words=words:rw", "--export-dir", "folder", "--retry", "1s"],
        );
        let mut client = Client::connect(&path).unwrap();
        assert_eq!(client.request("open words rw").unwrap().get("policy").as_deref(), Some("retry:1000"));
        client.request("open file").unwrap();
        let (mapping, _) = client.map(1, GuestProt::ReadWrite).unwrap();
        let mut read = vec![0; 1000];
        mapping.read_at(50_000, &mut read).unwrap();
        assert_eq!(read, bytes[50_000..51_000]);
        mapping.write_at(10, signal.as_bytes()).unwrap();
        // A second server is refused, and the first goes on.
        let second = test_folder.run(&["serve", "socket"]);
        assert_eq!((second.code(), second.out()), (1, ""));
        assert_eq!(second.err(), "memobj: listen at socket: another server listens there\n");
        let (status, said) = server.end(signal);
        assert_eq!(status, Some(code), "{said}");
        assert!(!path.exists());
        assert_eq!(
            std::fs::read(test_folder.path().join("words")).unwrap()[10..][..signal.len()],
            *signal.as_bytes()
        );
    }
}

#[test]
fn faults_are_injected_into_exports() {
    let test_folder = TestFolder::new();
    test_folder.file("words", 100_000);
    let inject = "words:error@4k+4k:times=1";
    let arguments = ["--export", "words=words", "--inject", inject, "--quiet"];
    let server = Serving::start(&test_folder, &arguments);
    let mut client = Client::connect(test_folder.path().join("socket")).unwrap();
    client.request("open words").unwrap();
    assert_eq!(client.request("populate 1 4096 4096").unwrap_err().kind(), Some("page"));
    client.request("retry 1").unwrap();
    client.request("populate 1").unwrap();
    let (status, said) = server.end("-TERM");
    assert_eq!((status, said.as_str()), (Some(0), ""));
}

#[test]
fn a_socket_that_is_left_behind_is_replaced() {
    let test_folder = TestFolder::new();
    let first = Serving::start(&test_folder, &[]);
    drop(first);
    assert!(test_folder.path().join("socket").exists());
    let second = Serving::start(&test_folder, &[]);
    Client::connect(test_folder.path().join("socket")).unwrap();
    assert_eq!(second.end("-TERM").0, Some(0));
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let test_folder = TestFolder::new();
    for (arguments, words) in [
        (&["serve"][..], "SOCKET"),
        (&["serve", "x", "--export", "y"], "no NAME=OBJECT"),
        (&["serve", "x", "--inject", "y"], "no PATH: in front"),
        (&["serve", "x", "--allow-uid", "me"], "me"),
    ] {
        let ran = test_folder.run(arguments);
        assert_eq!(ran.code(), 2, "{arguments:?}: {}", ran.err());
        assert!(ran.err().contains(words), "{arguments:?}: {}", ran.err());
    }
    let ran = test_folder.run(&["serve", "x", "--export-dir", "nowhere"]);
    assert_eq!((ran.code(), ran.err()), (1, "memobj: open the folder nowhere: no such file or directory\n"));
}

/// What a silent server does to an object is told to those who have it open.
#[test]
fn clients_hear_of_servers_that_are_silent_and_come_back() {
    use std::time::Duration;
    const PATIENCE: Duration = Duration::from_secs(120);
    let Some(mut web) = memobj_servers::Server::start(memobj_servers::Kind::Nginx) else { return };
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("bytes", 5 << 20);
    let export = format!("far={}", web.file("object", &bytes));
    let server = Serving::start(&test_folder, &["--export", &export, "--timeout", "1s", "--block", "64k"]);
    let mut client = Client::connect(test_folder.path().join("socket")).unwrap();
    client.request("events on").unwrap();
    let opened = client.request("open far policy=wait").unwrap();
    assert_eq!(opened.number("length").unwrap(), 5 << 20);
    client.request("populate 1 0 4096").unwrap();
    let hears = |client: &mut Client, what: &str| loop {
        let event = client.next_event(PATIENCE).unwrap().unwrap_or_else(|| panic!("no {what}"));
        if event.starts_with(what) {
            return event;
        }
    };
    web.kill();
    let waits = client.begin("populate 1").unwrap();
    let silent = hears(&mut client, "not-responding");
    assert!(silent.contains("object=1") && silent.contains("source="), "{silent}");
    web.restart();
    let back = hears(&mut client, "responding");
    assert!(back.contains("object=1") && back.contains("ms="), "{back}");
    assert_eq!(client.answer(&waits).unwrap().number("bytes").unwrap(), 5 << 20);
    let (mapping, _) = client.map(1, GuestProt::ReadOnly).unwrap();
    let mut read = vec![0; bytes.len()];
    mapping.read_at(0, &mut read).unwrap();
    assert!(read == bytes);
    // An object that is replaced is another version: never bytes of both.
    web.file("object", &bytes[1..]);
    client.request("advise 1 0 5242880 dontneed").unwrap();
    let refused = client.request("populate 1").unwrap_err();
    assert_eq!((refused.kind(), refused.get("kind").as_deref()), (Some("page"), Some("stale")), "{refused}");
    hears(&mut client, "stale");
    assert_eq!(server.end("-TERM").0, Some(0));
}

#[test]
fn clients_and_machines_have_one_server() {
    let test_folder = TestFolder::new();
    test_folder.file("words", 2 << 20);
    let machines = ["--firecracker", "monitors", "--memory", "words"];
    let port = crate::servers::free_port().to_string();
    let arguments = [&["--export", "words=words", "--metrics", &port][..], &machines].concat();
    let server = Serving::start(&test_folder, &arguments);
    let mut client = Client::connect(test_folder.path().join("socket")).unwrap();
    client.request("open words").unwrap();
    drop(std::os::unix::net::UnixStream::connect(test_folder.path().join("monitors")).expect("it listens"));
    let get = |path: &str| {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap())).expect("metrics");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    };
    let metrics = get("/metrics");
    let lines = [
        "HTTP/1.1 200 OK",
        "memobj_serve_clients 1",
        "memobj_serve_machines 0",
        "memobj_budget_bytes{cache=\"serve\"}",
    ];
    assert!(lines.iter().all(|line| metrics.contains(line)), "{metrics}");
    assert!(get("/").starts_with("HTTP/1.1 404"));
    let (status, said) = server.end("-TERM");
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("0 machines were served"), "{said}");
    assert!(!test_folder.path().join("monitors").exists());
}

/// A client that does what clients do not do.
fn send_too_long_a_line(test_folder: &TestFolder) {
    use std::io::Write;
    let mut stream = std::os::unix::net::UnixStream::connect(test_folder.path().join("socket")).unwrap();
    // The server may hang up before it has all.
    let _ = stream.write_all("x".repeat(10_000).as_bytes());
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn the_log_is_lines_for_people_or_objects() {
    let test_folder = TestFolder::new();
    test_folder.file("words", 100_000);
    let own = rustix::process::geteuid().as_raw();
    let said = |arguments: &[&str]| {
        let all = [&["--export", "words=words", "--inject", "words:error@4k+4k"], arguments].concat();
        let server = Serving::start(&test_folder, &all);
        send_too_long_a_line(&test_folder);
        let mut client = Client::connect(test_folder.path().join("socket")).unwrap();
        client.request("open words").unwrap();
        client.request("populate 1 4096 4096").unwrap_err();
        server.end("-TERM").1
    };
    let text = said(&[]);
    let process = std::process::id();
    assert!(text.starts_with(&format!("memobj: client 1 (process {process} of user {own} ")), "{text}");
    assert!(text.ends_with(" is dropped: a line is too long\n") && text.lines().count() == 1, "{text}");
    assert_eq!(said(&["--log-level", "error"]), "");
    assert_eq!(said(&["--quiet", "--log", "json"]), "");
    let objects = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    let one = objects(&said(&["--log", "json"]));
    assert_eq!(one.len(), 1, "{one:?}");
    let (object, member) = (&one[0], |name: &str| one[0][name].clone());
    assert_eq!((member("level"), member("why")), ("warn".into(), "a line is too long".into()), "{object}");
    assert_eq!((member("client"), member("process"), member("user")), (1.into(), process.into(), own.into()));
    assert_eq!(member("message"), text.trim_start_matches("memobj: ").trim_end());
    assert!(member("time").as_str().is_some_and(|time| time.ends_with('Z')), "{object}");
    let all = objects(&said(&["--log", "json", "--log-level", "debug"]));
    let failed = all.iter().find(|object| object["kind"] == "io").expect("the page that failed");
    let place = (&failed["object"], &failed["start"], &failed["end"], &failed["level"]);
    assert_eq!(place, (&"words".into(), &4096.into(), &8192.into(), &"debug".into()), "{failed}");
    let messages: Vec<_> = all.iter().map(|object| object["message"].as_str().unwrap_or("")).collect();
    for words in ["client 1 has left", "client 2 has left", ") has connected"] {
        assert!(messages.iter().any(|message| message.contains(words)), "{words} in {messages:?}");
    }
    // What ends the command is said in the same form.
    let ran = test_folder.run(&["serve", "no/socket", "--log", "json"]);
    let ended = objects(ran.err());
    assert_eq!((ran.code(), ended.len(), &ended[0]["level"]), (1, 1, &"error".into()), "{ended:?}");
}
