//! Programs that are stopped over and over and make calls for their tracer must not notice.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use memobj_tracer::Call;

use super::NotDone;
use crate::error::RunError;
use crate::options::Options;
use crate::supervisor::{Outcome, Supervisor};

const GETPID: Call = Call { number: 39, arguments: [0; 6] };

fn program(folder: &Path) -> Option<PathBuf> {
    let source = folder.join("sleepers.c");
    std::fs::write(&source, include_str!("sleepers.c")).expect("a source");
    let program = folder.join("sleepers");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-pthread", "-o"]).args([&program, &source]);
    match compiler.status() {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            println!("skipped: cc: {error}");
            return None;
        }
    }
    Some(program)
}

/// What the stops of a run have come to.
#[derive(Debug, Default)]
struct Tally {
    done: u32,
    late: u32,
}

/// Stops every address space once.
fn stop_all(supervisor: &mut Supervisor, tally: &mut Tally) {
    let spaces: HashMap<u64, _> = supervisor
        .threads
        .values()
        .filter_map(|thread| thread.space.clone())
        .map(|space| (space.number, space))
        .collect();
    for space in spaces.values() {
        let until = Instant::now() + Duration::from_secs(5);
        let answer = supervisor.in_space(space, until, |supervisor, thread, base| {
            let process = supervisor.threads.get(&thread.0).map(|followed| followed.process);
            let answer = space.site.one(thread, base, GETPID)?;
            assert_eq!(Some(answer), process.map(i64::from));
            Ok(space.site.one(thread, base, GETPID)?)
        });
        match answer {
            Ok(_) => tally.done += 1,
            Err(NotDone::Gone) => {}
            Err(NotDone::Late) => tally.late += 1,
            Err(NotDone::Refused(why)) => panic!("refused: {why}"),
        }
    }
}

/// Runs a mode natively, and then with as many stops as there is time for.
fn mode(mode: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(program) = program(folder.path()) else { return };
    let file = std::env::current_exe().expect("a file of some size");
    let words = [program.as_os_str(), mode.as_ref(), file.as_os_str()].map(|word| word.to_owned());
    assert!(Command::new(&words[0]).args(&words[1..]).status().expect("it runs").success());
    let mut supervisor = match Supervisor::new(Options { budget_bytes: 1 << 20, ..Options::default() }) {
        Ok(supervisor) => supervisor,
        Err(error @ RunError::NoFaults { .. }) => return println!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    };
    let jobs = supervisor.jobs.clone();
    let poster = std::thread::spawn(move || {
        let mut total = Tally::default();
        loop {
            let (done, is_done) = mpsc::channel();
            jobs.post(Box::new(move |supervisor| {
                let mut tally = Tally::default();
                stop_all(supervisor, &mut tally);
                let _ = done.send(tally);
            }));
            // One that is never done is dropped with the supervisor.
            let Ok(tally) = is_done.recv() else { return total };
            total.done += tally.done;
            total.late += tally.late;
            // waits: the program is to get on between two stops.
            std::thread::sleep(Duration::from_micros(500));
        }
    });
    let outcome = supervisor.run(&words, &mut |_| {});
    drop(supervisor);
    let total = poster.join().expect("the poster");
    println!("{mode}: {total:?}");
    assert!(matches!(outcome, Ok(Outcome::Exited(0))), "{mode}: {outcome:?}");
    assert!(total.done > 20 && total.late == 0, "{mode}: {total:?}");
}

#[test]
fn sleeps_that_count_time_and_waits_for_words() {
    mode("sleeps");
}

#[test]
fn reads_of_pipes() {
    mode("reads");
}

#[test]
fn masks_that_hold_while_it_sleeps() {
    mode("masks");
}

#[test]
fn waits_for_signals() {
    mode("waits");
}

#[test]
fn programs_that_compute() {
    mode("works");
}

#[test]
fn page_faults() {
    mode("faults");
}

#[test]
fn parents_of_vfork_and_their_children() {
    mode("children");
}

#[test]
fn stopped_processes_and_signals() {
    mode("stops");
}
