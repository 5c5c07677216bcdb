//! Servers that are killed while machines run.

use crate::monitor::{Monitor, run};
use crate::server::{Room, signal};

/// Kills the server of a keeper, and waits until another one serves `machines` again.
fn kill_and_wait(server: &crate::server::Server, kills: usize, machines: usize) {
    let kept = server.kept_id().expect("a server");
    signal(kept, "KILL");
    server.says("another one is started", kills);
    server.says("served again", kills * machines);
}

#[test]
fn each_page_is_right_while_the_server_is_killed_ten_times() {
    let room = Room::new(32);
    let Some(server) = room.serve(&["--keep", "--budget", "16M"]) else { return };
    // They go on until all kills are done: what they touch again was given up meanwhile.
    let shapes: [&[&str]; 3] = [
        &["regions=2", "threads=4", "kernel=1", "remove=4000", "rounds=1000", "pause=200"],
        &["threads=8", "remove=4000", "rounds=1000", "pause=200", "seed=7"],
        &["threads=2", "store=1", "rounds=1000", "pause=500", "seed=9"],
    ];
    let start = |shape: &&[&str]| Monitor::start(server.socket(), &room.memory(), shape);
    let mut monitors: Vec<_> = shapes.iter().filter_map(start).collect();
    if monitors.len() < shapes.len() {
        return;
    }
    server.says(": served, ", shapes.len());
    for kills in 1..=10 {
        kill_and_wait(&server, kills, shapes.len());
        assert!(monitors.iter_mut().all(|monitor| !monitor.has_ended()), "{:#?}", server.lines());
    }
    monitors.iter_mut().for_each(Monitor::kill);
    monitors.into_iter().for_each(|monitor| {
        let end = monitor.wait();
        assert_eq!(end.said(), "", "{end:?}");
    });
    server.says("has left", shapes.len());
}

#[test]
fn machines_that_are_filled_beforehand_are_right_while_the_server_is_killed() {
    let room = Room::new(64);
    let record = room.path("record").display().to_string();
    let Some(server) = room.serve(&["--record", &record]) else { return };
    let Some(end) = run(server.socket(), &room.memory(), &["part=50"]) else { return };
    end.was_right();
    server.says("has left", 1);
    server.end();
    let options = ["--keep", "--replay", &record, "--complete", "--budget", "16M"];
    let Some(server) = room.serve(&options) else { return };
    for round in 0..5 {
        let seed = format!("seed={round}");
        let shape = ["threads=4", "remove=200", "rounds=3", "pause=20", &seed];
        let Some(monitor) = Monitor::start(server.socket(), &room.memory(), &shape) else { return };
        server.says(": served, ", round + 1);
        signal(server.kept_id().expect("a server"), "KILL");
        server.says("another one is started", round + 1);
        monitor.wait().was_right();
    }
}

#[test]
fn a_monitor_that_connects_while_there_is_no_server_waits_for_the_next() {
    let room = Room::new(8);
    let Some(server) = room.serve(&["--keep"]) else { return };
    for kills in 1..=3 {
        signal(server.kept_id().expect("a server"), "KILL");
        let Some(end) = run(server.socket(), &room.memory(), &[]) else { return };
        end.was_right();
        server.says("another one is started", kills);
    }
    let kept = server.kept_id().expect("a server");
    signal(server.id(), "HUP");
    server.says("another one is started", 4);
    let Some(end) = run(server.socket(), &room.memory(), &[]) else { return };
    end.was_right();
    assert_ne!(server.kept_id(), Some(kept));
    let (status, lines) = server.end();
    assert!(status.success(), "{lines:#?}");
    assert!(!room.path("socket").exists(), "the socket was left");
}

#[test]
fn a_server_that_cannot_begin_is_not_started_again() {
    let room = Room::new(2);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_memobj"))
        .args(["serve", "--keep", "--firecracker"])
        .arg(room.path("socket"))
        .args(["--memory", "/there/is/none"])
        .output()
        .expect("the command");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/there/is/none") && said.lines().count() == 1, "{said}");
    assert!(!room.path("socket").exists());
}

#[test]
fn without_a_keeper_machines_of_a_dead_server_sleep_and_read_nothing_else() {
    let room = Room::new(32);
    let Some(server) = room.serve(&[]) else { return };
    let shape = ["threads=4", "pause=1000", "rounds=1"];
    let Some(mut monitor) = Monitor::start(server.socket(), &room.memory(), &shape) else { return };
    server.says(": served, ", 1);
    signal(server.id(), "KILL");
    drop(server);
    // All of its threads come to a missing page: there they sleep in the kernel.
    let tasks = format!("/proc/{}/task", monitor.id());
    let sleeps = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("wchan"))
            .is_ok_and(|place| place.contains("handle_userfault"))
    };
    let until = std::time::Instant::now() + crate::server::LIMIT;
    loop {
        let tasks = std::fs::read_dir(&tasks).expect("its threads").filter_map(Result::ok);
        let asleep = tasks.filter(sleeps).count();
        if asleep == 4 {
            break;
        }
        if std::time::Instant::now() > until {
            return println!("skipped: this kernel does not say where threads sleep");
        }
        std::thread::yield_now();
    }
    assert!(!monitor.has_ended());
    monitor.kill();
    assert_eq!(monitor.wait().said(), "");
}
