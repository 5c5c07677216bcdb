//! `memobj top`: what it shows of a server.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use memobj::GuestProt;
use memobj_serve::control::Client;

use crate::test_folder::TestFolder;

/// A process that is killed when it is dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn server(test_folder: &TestFolder) -> Started {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memobj"));
    command
        .args(["serve", "socket", "--export", "words=words", "--budget", "4M"])
        .current_dir(test_folder.path());
    let mut child = Started(command.stdout(Stdio::piped()).spawn().expect("it runs"));
    let mut line = String::new();
    let output = child.0.stdout.as_mut().expect("standard output is piped");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line, "socket\n");
    child
}

#[test]
fn one_interval_is_shown_in_each_form() {
    let test_folder = TestFolder::new();
    test_folder.file("words", 1 << 20);
    let _server = server(&test_folder);
    let mut client = Client::connect(test_folder.path().join("socket")).unwrap();
    client.request("open words").unwrap();
    let (mapping, _) = client.map(1, GuestProt::ReadOnly).unwrap();
    client.request("populate 1").unwrap();
    let top = |arguments: &[&str]| {
        let ran = test_folder.run(&[&["top", "socket", "--once", "--interval", "100ms"], arguments].concat());
        assert_eq!((ran.code(), ran.err()), (0, ""), "{}", ran.out());
        ran.out().to_owned()
    };
    let value: serde_json::Value = serde_json::from_str(&top(&["--json"])).expect("it is JSON");
    // This client, and `top` itself.
    assert_eq!((&value["clients"], &value["objects"], &value["machines"]), (&2.into(), &1.into(), &0.into()));
    assert_eq!((&value["budget_bytes"], &value["frame_bytes"]), (&(4 << 20).into(), &(1 << 20).into()));
    let first = &value["client_list"][0];
    assert_eq!((&first["mappings"], &first["process"]), (&1.into(), &std::process::id().into()), "{value}");
    assert_eq!(value["object_list"][0]["name"], "words");
    let text = top(&[]);
    for words in ["clients   2", "objects   1", "budget    4.0 MiB", "frames    1.0 MiB", "CLIENT", "words"] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    drop(mapping);
}

/// Lines come as long as there is a server. Faults in between are seen.
#[test]
fn a_line_each_interval_until_the_server_ends() {
    let test_folder = TestFolder::new();
    test_folder.file("words", 1 << 20);
    let server = server(&test_folder);
    let mut client = Client::connect(test_folder.path().join("socket")).unwrap();
    client.request("open words").unwrap();
    let mut command = test_folder.command(&["top", "socket", "--interval", "50ms", "--json"]);
    let mut top = Started(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(top.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.next().expect("a first line");
    client.request("populate 1").unwrap();
    let (mapping, _) = client.map(1, GuestProt::ReadOnly).unwrap();
    mapping.read_at(0, &mut vec![0; 1 << 20]).unwrap();
    let is_seen = lines.by_ref().take(1000).any(|line| {
        let value: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
        let faults = value["faults_per_second"].as_f64().unwrap();
        faults > 0.0 && value["p50_us"].as_f64().unwrap() > 0.0 && value["hit_rate"].as_f64().unwrap() > 0.0
    });
    assert!(is_seen, "no line with faults");
    drop(server);
    lines.for_each(drop);
    assert_eq!(top.0.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    top.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("memobj: top: socket: talk to the server: "), "{said}");
}

#[test]
fn without_a_server_there_is_nothing_to_show() {
    let test_folder = TestFolder::new();
    let ran = test_folder.run(&["top", "socket"]);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    assert!(ran.err().starts_with("memobj: top: socket: talk to the server: "), "{}", ran.err());
    let ran = test_folder.run(&["top", "--interval", "1ms", "socket"]);
    assert_eq!(ran.code(), 2, "{}", ran.err());
}

/// A server that accepts and says nothing does not keep it from being ended; the terminal is as before.
#[test]
fn the_terminal_is_restored() {
    let test_folder = TestFolder::new();
    test_folder.file("words", 1 << 20);
    let _server = server(&test_folder);
    let has_script =
        Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_script {
        return println!("skipped: there is no script(1), which makes terminals");
    }
    let program = format!("{} top socket --interval 50ms", env!("CARGO_BIN_EXE_memobj"));
    let mut command = Command::new("script");
    command.args(["-qec", &program, "/dev/null"]).current_dir(test_folder.path());
    let mut terminal = Started(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script(1) runs"),
    );
    let mut output = terminal.0.stdout.take().unwrap();
    let mut seen = String::new();
    let mut piece = [0; 4096];
    while seen.matches("budget").count() < 3 {
        let count = output.read(&mut piece).unwrap();
        assert!(count > 0, "it has ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    assert!(seen.contains("\x1b[?1049h\x1b[?25l") && seen.contains("\x1b[H"), "{seen:?}");
    assert!(!seen.contains("\x1b[?1049l"));
    // Ctrl-C, as a person types it.
    std::io::Write::write_all(terminal.0.stdin.as_mut().unwrap(), b"\x03").unwrap();
    let mut rest = Vec::new();
    let _ = output.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("\x1b[?25h\x1b[?1049l"), "{rest:?}");
    assert_eq!(terminal.0.wait().unwrap().code(), Some(130), "{rest:?}");
}
