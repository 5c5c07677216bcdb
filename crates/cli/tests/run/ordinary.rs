//! `memobj run` for a user without any privilege: it works, or says in one line what would let it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::ends::{End, run};
use crate::test_folder::{TestFolder, has};

pub const NOBODY: [&str; 7] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--",
];

/// A folder for everybody, with the command in it, and what the command is to run.
pub fn open_folder() -> Option<(TestFolder, PathBuf)> {
    if !rustix::process::geteuid().is_root() || !has("setpriv") {
        println!("skipped: only root can become another user, by setpriv(1)");
        return None;
    }
    let test_folder = TestFolder::new()?;
    let binary = test_folder.path("memobj");
    std::fs::copy(env!("CARGO_BIN_EXE_memobj"), &binary).expect("a copy");
    for path in [test_folder.path(""), binary.clone()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    Some((test_folder, binary))
}

/// Says which of the processes behind the run let a program of the same user at their descriptors and memory.
const LOOKS: &str = "guard=$(grep -lw PPid:.$PPID $(grep -l memobj-guard /proc/[0-9]*/status 2> /dev/null) 2> /dev/null); \
    guard=${guard#/proc/}; guard=${guard%/status}; test -n \"$guard\" || echo no guard; \
    for process in $PPID $guard; do \
    ls /proc/$process/fd 2> /dev/null | grep -q . && echo descriptors of $process; \
    head -c 1 /proc/$process/mem 2>&1 | grep -q denied || echo memory of $process; done; exit 0";

/// Whether user 65534 may run what is in the room.
pub fn may_be_run(test_folder: &TestFolder, binary: &std::path::Path) -> bool {
    let mut command = test_folder.native(&NOBODY);
    command.arg(binary).arg("--version");
    let may = run(command).status.success();
    if !may {
        println!("skipped: other users cannot reach the folder of the build, or setpriv(1) fails");
    }
    may
}

const SCRIPT: &str = "echo $(seq 1 3 | tail -1); (exit 3) || /bin/echo still; exit 9";

fn works(end: &End) -> bool {
    end.code() == 9 && end.out == "3\nstill\n" && end.err.is_empty()
}

#[test]
fn it_works_or_one_line_says_what_to_enable() {
    let Some((test_folder, binary)) = open_folder() else { return };
    if !may_be_run(&test_folder, &binary) {
        return;
    }
    let mut command: Command = test_folder.native(&NOBODY);
    command.arg(&binary).args(["run", "--", "bash", "-c", SCRIPT]);
    let end = run(command);
    let says = end.code() == 1 && end.out.is_empty() && end.err.lines().count() == 1;
    let names_the_cure =
        end.err.contains("vm.unprivileged_userfaultfd") && end.err.contains("/dev/userfaultfd");
    assert!(works(&end) || (says && names_the_cure), "{end:?}");
}

#[test]
fn with_the_right_to_the_device_it_works() {
    let Some((test_folder, binary)) = open_folder() else { return };
    if !may_be_run(&test_folder, &binary) || !has("unshare") {
        return;
    }
    // A device of the same number with other rights, seen by this program only.
    let arrange = "n=$(stat -c '%Hr %Lr' /dev/userfaultfd) && mknod device c $n && chmod 666 device && \
        mount --bind device /dev/userfaultfd";
    let inside = |rest: &str| {
        let script = format!("{arrange} || exit 77; exec {rest}");
        run(test_folder.native(&["unshare", "-m", "sh", "-c", &script]))
    };
    if inside("true").code() != 0 {
        println!("skipped: no mount namespace in which /dev/userfaultfd has other rights");
        return;
    }
    std::fs::remove_file(test_folder.path("device")).expect("the device");
    let end = inside(&format!("{} {} run -- bash -c '{SCRIPT}'", NOBODY.join(" "), binary.display()));
    assert!(works(&end), "{end:?}");
    std::fs::remove_file(test_folder.path("device")).expect("the device");
    let end = inside(&format!("{} {} run -- bash -c '{LOOKS}'", NOBODY.join(" "), binary.display()));
    assert_eq!(
        (end.code(), end.out.as_str(), end.err.as_str()),
        (0, "", ""),
        "the supervisor is open to programs"
    );
}

#[test]
fn the_doctor_says_what_run_does() {
    let Some((test_folder, binary)) = open_folder() else { return };
    if !may_be_run(&test_folder, &binary) {
        return;
    }
    let as_nobody = |words: &[&str]| {
        let mut command: Command = test_folder.native(&NOBODY);
        command.arg(&binary).args(words);
        run(command)
    };
    let report: serde_json::Value =
        serde_json::from_str(&as_nobody(&["doctor", "--json"]).out).expect("JSON");
    let facilities = report["facilities"].as_array().expect("a list");
    let programs = facilities.iter().find(|facility| facility["name"] == "running programs").expect("it");
    let end = as_nobody(&["run", "--", "true"]);
    match programs["status"].as_str() {
        Some("available") => assert_eq!((end.code(), &end.err[..]), (0, "")),
        Some("degraded") => {
            assert_eq!(end.code(), 1, "{end:?}");
            let instead = programs["used_instead"].as_str().expect("text");
            assert!(instead.contains("refuses") && instead.contains("status 1"), "{instead}");
            assert!(end.err.contains("vm.unprivileged_userfaultfd=1"), "{end:?}");
            assert!(
                programs["fix"].as_str().is_some_and(|fix| fix.contains("vm.unprivileged_userfaultfd=1"))
            );
        }
        other => panic!("{other:?}"),
    }
}

/// A child that may make a userfaultfd, as every child may where the system says so, but not open what the supervisor
/// has open: it is handed what it needs.
#[test]
fn a_child_that_gives_up_its_rights_and_runs_a_program_goes_on() {
    let Some((test_folder, _)) = open_folder() else { return };
    let rights = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+sys_ptrace \
        --ambient-caps=+sys_ptrace --";
    if run(test_folder.native(&["sh", "-c", &format!("{rights} true")])).code() != 0 {
        return println!("skipped: setpriv(1) cannot leave a right to another user");
    }
    let script = format!("{rights} sh -c 'echo still; /bin/echo here; exit 3'; echo $?");
    let end = run(test_folder.memobj(&[], &["sh", "-c", &script]));
    assert_eq!((end.code(), &end.out[..]), (0, "still\nhere\n3\n"), "{end:?}");
    let is_unserved = end.err.lines().count() == 1 && end.err.contains("runs without memobj");
    assert!(end.err.is_empty() || is_unserved, "{end:?}");
}
