//! Whoever connects and is no monitor is refused with a reason, and nobody else notices.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::monitor::{Monitor, run};
use crate::server::{Room, Server};

/// Sends text with descriptors.
fn send(socket: &UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    // It may have hung up already.
    let _ = sendmsg(socket, &[std::io::IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL);
}

fn pipe() -> OwnedFd {
    rustix::pipe::pipe().expect("a pipe").0
}

const REGION: &str = r#"[{"base_host_virt_addr":1048576,"size":4096,"offset":0,"page_size":4096}]"#;

fn refuses(server: &Server, count: &mut usize, why: &str, connect: &dyn Fn(UnixStream)) {
    connect(UnixStream::connect(server.socket()).expect("a connection"));
    *count += 1;
    let line = server.says("refused", *count);
    assert!(line.contains(why), "{why}: {line}");
}

#[test]
fn what_is_no_monitor_is_refused_with_a_reason() {
    let room = Room::new(32);
    let Some(server) = room.serve(&[]) else { return };
    let options = ["threads=4", "rounds=100", "pause=100"];
    let Some(mut witness) = Monitor::start(server.socket(), &room.memory(), &options) else { return };
    server.says(": served, ", 1);
    let count_descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", server.id())).expect("its descriptors").count();
    let before = count_descriptors();
    let mut count = 0;
    refuses(&server, &mut count, "hung up before", &drop);
    refuses(&server, &mut count, "no list of regions", &|mut socket| drop(socket.write_all(b"hello\n")));
    refuses(&server, &mut count, "hung up before", &|mut socket| {
        drop(socket.write_all(&REGION.as_bytes()[..20]))
    });
    refuses(&server, &mut count, "0 descriptors", &|mut socket| drop(socket.write_all(REGION.as_bytes())));
    let (one, two) = (pipe(), pipe());
    refuses(&server, &mut count, "no userfaultfd", &|socket| {
        send(&socket, REGION.as_bytes(), &[one.as_fd()])
    });
    refuses(&server, &mut count, "2 descriptors", &|socket| {
        send(&socket, REGION.as_bytes(), &[one.as_fd(), two.as_fd()]);
    });
    refuses(&server, &mut count, "descriptors", &|socket| {
        send(&socket, REGION.as_bytes(), &[one.as_fd(); 16]);
    });
    refuses(&server, &mut count, "longer than", &|mut socket| {
        let _ = socket.write_all(format!("[{}", " ".repeat(1 << 20)).as_bytes());
    });
    refuses(&server, &mut count, "not in the object", &|mut socket| {
        let _ = socket.write_all(REGION.replace(":0,", ":1073741824,").as_bytes());
    });
    // What was sent along is closed, whoever sent it.
    let until = std::time::Instant::now() + crate::server::LIMIT;
    while count_descriptors() > before && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(count_descriptors(), before);
    assert!(!witness.has_ended());
    witness.kill();
    assert_eq!(witness.wait().said(), "");
    let Some(end) = run(server.socket(), &room.memory(), &[]) else { return };
    end.was_right();
}

#[test]
fn silent_connections_hold_up_nobody_and_end() {
    let room = Room::new(8);
    let Some(server) = room.serve(&[]) else { return };
    let connect = || UnixStream::connect(server.socket()).expect("a connection");
    let mut silent: Vec<_> = (0..40).map(|_| connect()).collect();
    let half = silent.last_mut().expect("one of them");
    half.write_all(b"[{").expect("it is read");
    let Some(end) = run(server.socket(), &room.memory(), &[]) else { return };
    end.was_right();
    server.says("it has not said where its memory is within 5 s", 40);
}

#[test]
fn more_machines_than_allowed_are_refused() {
    let room = Room::new(8);
    let Some(server) = room.serve(&["--machines", "2"]) else { return };
    let options = ["rounds=1000", "pause=1000"];
    let start = || Monitor::start(server.socket(), &room.memory(), &options);
    let Some(mut monitors) = (0..2).map(|_| start()).collect::<Option<Vec<_>>>() else { return };
    server.says(": served, ", 2);
    let Some(mut third) = start() else { return };
    server.says("2 machines are served already", 1);
    third.kill();
    third.wait();
    monitors.iter_mut().for_each(Monitor::kill);
    monitors.into_iter().for_each(|monitor| assert_eq!(monitor.wait().said(), ""));
    server.says("has left", 2);
    run(server.socket(), &room.memory(), &[]).into_iter().for_each(|end| end.was_right());
}

#[test]
fn monitors_of_other_users_are_refused_unless_they_are_allowed() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can become another user");
    }
    let room = Room::new(2);
    let connect = |server: &Server| {
        let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'hello'); s.recv(1)";
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=12345", "--regid=12345", "--clear-groups", "python3", "-c", script])
            .arg(server.socket())
            .output();
        output.is_ok_and(|output| output.status.success() || output.stderr.contains(&b'R'))
    };
    let Some(server) = room.serve(&[]) else { return };
    let open = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777));
    };
    open(&room.path(""));
    open(server.socket());
    if !connect(&server) {
        return println!("skipped: no setpriv(1), no python3, or the folder cannot be reached by others");
    }
    server.says("user 12345 may not be served", 1);
    server.end();
    for allowed in ["--allow-uid", "--allow-gid"] {
        let Some(server) = room.serve(&[allowed, "12345"]) else { return };
        assert!(connect(&server));
        server.says("no list of regions", 1);
    }
}
