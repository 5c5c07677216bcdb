//! Objects that do not answer.

use crate::command::{command, find, run, sleeps_in, until, wait};

/// Requests for one object that hang, as many as there are threads, leave the others alone.
#[test]
fn an_object_that_hangs_holds_up_no_other() {
    // waits: until all sleep, which nobody tells of.
    let script = "for i in $(seq 80); do dd if=/hangs skip=1 bs=4k count=1 status=none & done; \
        until test $(cat /proc/[0-9]*/stat 2> /dev/null | grep -c '(dd) S') -ge 80; do sleep 0.1; done; \
        cksum < /other | wc -l; kill -KILL $(jobs -p); wait 2> /dev/null; echo end";
    let maps = ["--forever", "--map", "/hangs=1000000,hang=4096-8192", "--map", "/other=3000000,seed=2"];
    let Some(end) = run(&maps, &["bash", "-c", script]) else { return };
    assert_eq!((end.code, &end.out[..]), (Some(0), "1\nend\n"), "{end:#?}");
}

/// While an object is opened, which takes as long as the test does, others are opened and read.
#[test]
fn an_object_that_is_slow_to_open_holds_up_no_other() {
    let script = "cat /d/slow > /dev/null & cat /d/quick | wc -c; stat -c %s /d/slow; kill -KILL $!; wait 2> /dev/null; echo end";
    let maps = ["--map", "/d=dir:slow=1000,opens=30000;quick=5000"];
    let Some(end) = run(&maps, &["bash", "-c", script]) else { return };
    assert_eq!((end.code, &end.out[..]), (Some(0), "5000\n1000\nend\n"), "{end:#?}");
}

/// A signal that ends a program ends its read; one that the program handles does not, as of a local file.
#[test]
fn a_program_that_waits_can_be_killed() {
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("INT", 2)] {
        let maps = ["--map", "/hangs=1000000,hang=4096-8192"];
        // Whoever runs the tests in the background of a script has them ignore SIGINT.
        let words = ["env", "--default-signal=INT", "cat", "/hangs"];
        let Some(mut started) = command(&maps, &words) else { return };
        let child = started.spawn().expect("the example starts");
        let mut cat = None;
        until("cat waits", || {
            cat = find(child.id(), "cat");
            cat.is_some_and(|cat| sleeps_in(cat) == "request_wait_answer")
        });
        let kill =
            std::process::Command::new("kill").args(["-s", signal, &cat.unwrap_or(0).to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()));
        let end = wait(child);
        assert_eq!(end.signal, Some(number), "{signal}: {end:#?}");
    }
}

/// A folder that is never listed: who looks into it waits, can be killed, and holds up nobody, not even the end of the run.
#[test]
fn a_folder_that_hangs_holds_up_no_other() {
    let script = "for i in $(seq 20); do stat /d/hangs/x > /dev/null & done; ls /d/hangs & cat /d/quick | wc -c; \
        cat /d/sub/quick | wc -c; kill -KILL $(jobs -p); wait 2> /dev/null; echo end";
    let maps = ["--map", "/d=dir:hangs/x=1;quick=5000;sub/quick=6"];
    let Some(end) = run(&maps, &["bash", "-c", script]) else { return };
    assert_eq!((end.code, &end.out[..]), (Some(0), "5000\n6\nend\n"), "{end:#?}");
}
