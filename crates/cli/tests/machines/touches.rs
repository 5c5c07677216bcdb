//! Records of first touches, and what is copied before it is touched.

use crate::monitor::run;
use crate::server::Room;

#[test]
fn what_was_recorded_is_in_place_before_it_is_touched() {
    let room = Room::new(64);
    let record = room.path("record").display().to_string();
    let Some(server) = room.serve(&["--record", &record]) else { return };
    let touched = ["part=10", "threads=1"];
    let Some(end) = run(server.socket(), &room.memory(), &touched) else { return };
    end.was_right();
    server.says("has left", 1);
    server.end();
    let text = std::fs::read_to_string(&record).expect("a record");
    let bytes: u64 =
        text.lines().skip(1).map(|line| line.split_once('+').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(
        (text.lines().next(), bytes),
        (Some("memobj touches 1 length=67108864"), (64 << 20) / 4096 / 10 * 4096)
    );

    let Some(server) = room.serve(&["--replay", &record]) else { return };
    // It waits until all is in place, and then finds it there.
    let shape = ["part=10", "threads=1"];
    let Some(end) = run(server.socket(), &room.memory(), &shape) else { return };
    end.was_right();
    server.says("has left", 1);
    let Some(end) = run(server.socket(), &room.memory(), &["threads=4", "remove=50", "rounds=2"]) else {
        return;
    };
    end.was_right();
}

#[test]
fn all_is_copied_in_the_background() {
    let room = Room::new(32);
    let Some(server) = room.serve(&["--complete", "--budget", "8M"]) else { return };
    let shape = ["part=1", "threads=1", "pause=100000"];
    let Some(mut monitor) = crate::monitor::Monitor::start(server.socket(), &room.memory(), &shape) else {
        return;
    };
    server.says("everything is in place", 1);
    monitor.kill();
    monitor.wait();
    let line = server.says("has left", 1);
    assert!(line.contains("33554432 bytes were copied"), "{line}");
}

#[test]
fn a_record_that_is_none_is_refused_and_one_of_another_object_is_a_hint() {
    let room = Room::new(2);
    let record = room.path("record");
    std::fs::write(&record, "something else").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_memobj"))
        .args(["serve", "--firecracker"])
        .arg(room.path("socket"))
        .arg("--memory")
        .arg(room.memory())
        .arg("--replay")
        .arg(&record)
        .output()
        .expect("the command");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("does not begin with"), "{said}");
    std::fs::write(&record, "memobj touches 1 length=1099511627776\n1048576+1048576\n549755813888+4096\n")
        .unwrap();
    let Some(server) = room.serve(&["--replay", &record.display().to_string()]) else { return };
    run(server.socket(), &room.memory(), &[]).into_iter().for_each(|end| end.was_right());
    server.says("the record is of an object of 1099511627776 bytes", 1);
}
