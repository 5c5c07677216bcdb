//! Who may connect, and what is below the exported folder.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use memobj_serve::control::{Allowed, Client, Exports, Server, ServerOptions};

use crate::fixture::Fixture;

const STRANGER: u32 = 12345;
/// A group that it has besides its own one.
const FURTHER: u32 = 23456;

/// What python says as another user: the first line that the server sends. `None`: it cannot be tried here.
fn greeting_as_stranger(fixture: &Fixture) -> Option<String> {
    told_to_stranger(fixture, &[])
}

/// And the answers to these requests.
fn told_to_stranger(fixture: &Fixture, requests: &[&str]) -> Option<String> {
    const PROGRAM: &str = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nf=s.makefile()\n\
        print(f.readline(),end='')\nfor line in sys.argv[2:]:\n s.sendall(line.encode()+b'\\n')\n print(f.readline(),end='')";
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be another user");
        return None;
    }
    let run = |program: &str, arguments: &[&str]| -> Option<Output> {
        let mut command = Command::new("setpriv");
        let user = STRANGER.to_string();
        command
            .args(["--reuid", &user, "--regid", &user, "--groups", &FURTHER.to_string()])
            .arg(program)
            .args(arguments);
        command.output().ok().filter(|output| output.status.success())
    };
    if run("/usr/bin/env", &["python3", "-c", "pass"]).is_none() {
        println!("skipped: setpriv(1) or python3(1) does not run as another user here");
        return None;
    }
    // For whom the folders above are closed.
    let path = format!("/tmp/memobj-serve-test-{}", std::process::id());
    let _ = std::fs::remove_file(&path);
    link_socket(fixture, &path);
    let output = run("/usr/bin/env", &[&["python3", "-c", PROGRAM, &path], requests].concat());
    let _ = std::fs::remove_file(&path);
    Some(output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default())
}

/// The socket by another name: a hard link, as the folders of the first may be closed to others.
fn link_socket(fixture: &Fixture, path: &str) {
    std::fs::hard_link(fixture.path("socket"), path).expect("a link to the socket");
}

#[test]
fn others_are_refused_unless_they_are_allowed() {
    let refused = Fixture::new();
    // With mode 600 it would not get as far.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(refused.path("socket"), mode).unwrap();
    let Some(greeting) = greeting_as_stranger(&refused) else { return };
    assert_eq!(greeting, "memobj 1 refused why=not-allowed\n");
    refused.wait_for_log("of user 12345 and group 12345) is refused: not-allowed");
    let by_user = Fixture::with(ServerOptions::new().allowed(Allowed::new().users([STRANGER])));
    assert_eq!(greeting_as_stranger(&by_user).unwrap(), "memobj 1 session=1\n");
    let by_group = Fixture::with(ServerOptions::new().allowed(Allowed::new().groups([STRANGER])));
    assert_eq!(greeting_as_stranger(&by_group).unwrap(), "memobj 1 session=1\n");
    let by_further = Fixture::with(ServerOptions::new().allowed(Allowed::new().groups([FURTHER])));
    assert_eq!(greeting_as_stranger(&by_further).unwrap(), "memobj 1 session=1\n");
}

/// What one client has is not for another user.
#[test]
fn lists_are_for_the_user_of_the_server() {
    let fixture = Fixture::with(ServerOptions::new().allowed(Allowed::new().users([STRANGER])));
    let Some(told) = told_to_stranger(&fixture, &["1 clients", "2 objects", "3 stats"]) else { return };
    let lines: Vec<&str> = told.lines().collect();
    let begins = ["memobj 1 session=", "1 error denied ", "2 error denied ", "3 ok "];
    assert!(
        lines.len() == 4 && lines.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)),
        "{told}"
    );
}

#[test]
fn nothing_outside_of_the_folder_is_opened() {
    let fixture = Fixture::new();
    let inside = |name: &str| fixture.path("folder").join(name);
    std::fs::create_dir(inside("sub")).unwrap();
    std::fs::write(inside("sub/file"), b"inside").unwrap();
    symlink("/etc/hostname", inside("link")).unwrap();
    symlink("file", inside("near")).unwrap();
    symlink("sub", inside("folder-link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        inside("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(inside("socket")).unwrap();
    let mut client = fixture.client();
    let outside = [
        "..",
        "../sample",
        "sub/../../words",
        "/etc/hostname",
        "link",
        "near",
        "folder-link/file",
        "fifo",
        "socket",
        "sub",
        ".",
        "%00",
        "file%00",
    ];
    for name in outside {
        let error = client.request(&format!("open {name}")).expect_err(name);
        assert!(matches!(error.kind(), Some("denied" | "not-found")), "{name}: {error}");
    }
    // A way through a folder that stays inside is one.
    client.request("open sub/../file").unwrap();
    client.request("open sub/file").unwrap();
}

#[test]
fn a_live_socket_is_left_alone_and_a_stale_one_replaced() {
    let mut fixture = Fixture::new();
    let path = fixture.path("socket");
    let bind = || Server::bind(&path, fixture.cache.clone(), Exports::new(), ServerOptions::new());
    assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert!(Client::connect(&path).is_ok());
    // A name that somebody has left behind.
    let stale = fixture.path("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let server = Server::bind(&stale, fixture.cache.clone(), Exports::new(), ServerOptions::new()).unwrap();
    drop(server);
    assert!(!stale.exists());
    // Anything else is not touched.
    let other = fixture.path("words");
    let refused = Server::bind(&other, fixture.cache.clone(), Exports::new(), ServerOptions::new());
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert!(other.exists());
    fixture.stop();
    assert!(!path.exists());
}
