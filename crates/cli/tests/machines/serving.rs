//! Each page is right, whatever the monitor is like.

use std::process::Command;

use crate::monitor::{Monitor, run};
use crate::server::Room;

#[test]
fn each_page_is_right_in_every_shape_of_memory() {
    let room = Room::new(32);
    let Some(server) = room.serve(&[]) else { return };
    let mut runs = 0;
    for regions in ["regions=1", "regions=2", "regions=8"] {
        for threads in ["threads=4", "threads=64"] {
            for kernel in ["kernel=0", "kernel=1"] {
                for removes in ["remove=0", "remove=40"] {
                    let options = [regions, threads, kernel, removes, "rounds=2", "store=1"];
                    let Some(end) = run(server.socket(), &room.memory(), &options) else { return };
                    end.was_right();
                    runs += 1;
                }
            }
        }
    }
    server.says("has left", runs);
    let (status, lines) = server.end();
    assert!(status.success(), "{lines:#?}");
    assert!(!room.path("socket").exists(), "the socket was left");
}

#[test]
fn each_large_page_is_right() {
    let pool = "/proc/sys/vm/nr_hugepages";
    let before = std::fs::read_to_string(pool).unwrap_or_default();
    let has_pages = std::fs::write(pool, "24").is_ok()
        && std::fs::read_to_string(pool).is_ok_and(|count| count.trim() == "24");
    if has_pages {
        let room = Room::new(32);
        if let Some(server) = room.serve(&["--complete"]) {
            for removes in ["remove=0", "remove=10"] {
                let options = ["huge=1", "threads=4", "kernel=1", "rounds=2", removes];
                if let Some(end) = run(server.socket(), &room.memory(), &options) {
                    end.was_right();
                }
            }
        }
    } else {
        println!("skipped: there are no huge pages");
    }
    let _ = std::fs::write(pool, before.trim());
}

#[test]
fn a_budget_that_is_too_small_for_the_memory_is_kept() {
    let room = Room::new(64);
    let Some(server) = room.serve(&["--budget", "8M"]) else { return };
    let monitors: Vec<_> = (0..4)
        .filter_map(|seed| {
            let seed = format!("seed={seed}");
            Monitor::start(server.socket(), &room.memory(), &["threads=4", "rounds=2", &seed])
        })
        .collect();
    monitors.into_iter().for_each(|monitor| monitor.wait().was_right());
}

#[test]
fn twenty_machines_read_the_object_once() {
    let room = Room::new(32);
    let Some(server) = room.serve(&["--budget", "64M"]) else { return };
    let start = |seed: u32| {
        let seed = format!("seed={seed}");
        Monitor::start(server.socket(), &room.memory(), &["threads=4", "rounds=1", "remove=5", &seed])
    };
    let monitors: Vec<_> = (0..20).filter_map(start).collect();
    let count = monitors.len();
    monitors.into_iter().for_each(|monitor| monitor.wait().was_right());
    server.says("has left", count);
    let read = std::fs::read_to_string(format!("/proc/{}/io", server.id())).unwrap_or_default();
    let read = read.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
    // Its libraries are read, too. Reads by io_uring are not counted by all kernels.
    assert!(read.is_none_or(|bytes| bytes < 48 << 20), "{read:?} bytes were read for {count} machines");
}

#[test]
fn a_machine_that_is_killed_is_forgotten() {
    let room = Room::new(32);
    let Some(server) = room.serve(&[]) else { return };
    for count in 1..=5 {
        let options = ["pause=1000", "rounds=1000"];
        let Some(mut monitor) = Monitor::start(server.socket(), &room.memory(), &options) else { return };
        server.says("served", count);
        monitor.kill();
        monitor.wait();
        server.says("has left", count);
    }
    let count = || std::fs::read_dir(format!("/proc/{}/fd", server.id())).expect("its descriptors").count();
    let before = count();
    let Some(end) = run(server.socket(), &room.memory(), &[]) else { return };
    end.was_right();
    server.says("has left", 6);
    // Descriptors of a client are closed by the loop after it has said so.
    let until = std::time::Instant::now() + crate::server::LIMIT;
    while count() > before && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(count(), before);
}

#[test]
fn a_machine_whose_page_cannot_be_read_ends_and_never_reads_zeros() {
    use std::os::unix::process::ExitStatusExt;
    let room = Room::new(32);
    let object = room.memory();
    let Some(server) = room.serve(&[]) else { return };
    // What is not in the file any more cannot be supplied.
    let copy = room.path("copy");
    std::fs::copy(&object, &copy).expect("a copy");
    std::fs::File::options().write(true).open(&object).unwrap().set_len(16 << 20).unwrap();
    let Some(end) = run(server.socket(), &copy, &["threads=1"]) else { return };
    assert_eq!(end.0.status.signal(), Some(9), "{end:?}");
    assert!(!end.said().contains("wrong"), "{end:?}");
    let line = server.says("ended, since it touched", 1);
    assert!(line.contains(&object.display().to_string()), "{line}");
    // The server goes on.
    std::fs::copy(&copy, &object).expect("the bytes");
    let (status, lines) = server.end();
    assert!(status.success(), "{lines:#?}");
}

#[test]
fn a_machine_can_wait_for_a_page_instead() {
    let room = Room::new(8);
    let web = web_server(&room.memory());
    let Some((mut web, url)) = web else { return };
    let Some(server) = room.serve_object(&url, &["--on-failure", "wait", "--timeout", "1s"]) else { return };
    web.kill();
    let Some(mut monitor) = Monitor::start(server.socket(), &room.memory(), &["threads=2"]) else { return };
    server.says("waits", 1);
    assert!(!monitor.has_ended());
    web.restart();
    monitor.wait().was_right();
}

fn web_server(memory: &std::path::Path) -> Option<(memobj_servers::Server, String)> {
    let server = memobj_servers::Server::start(memobj_servers::Kind::Nginx)?;
    let url = server.file("memory", &std::fs::read(memory).expect("the memory"));
    Some((server, url))
}

#[test]
fn the_socket_of_a_live_server_is_not_taken() {
    let room = Room::new(2);
    let Some(server) = room.serve(&[]) else { return };
    let memobj = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memobj"));
        command.args(["serve", "--firecracker"]).arg(server.socket()).arg("--memory").arg(room.memory());
        command.output().expect("the command")
    };
    let second = memobj();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server listens there"), "{second:?}");
    // One that has died leaves its socket; the next one takes it.
    crate::server::signal(server.id(), "KILL");
    drop(server);
    assert!(room.path("socket").exists());
    let Some(next) = room.serve(&[]) else { return };
    run(next.socket(), &room.memory(), &[]).into_iter().for_each(|end| end.was_right());
}
