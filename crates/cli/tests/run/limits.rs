//! Programs that need what their supervisor needs as well, or hide from it.

use std::process::Command;

use crate::build::{Kind, program};
use crate::ends::{End, run};
use crate::test_folder::{PAGE, TestFolder, sample};

/// The same, under a limit that `ulimit` sets.
fn limited(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("ulimit {limit} && exec \"$@\"")).arg("bash");
    shell.arg(command.get_program()).args(command.get_args());
    command.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(shell.env(name, value)),
        None => drop(shell.env_remove(name)),
    });
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

/// Runs both under the limit; what they say on standard output and how they end must be the same. Returns ours.
fn same_under(limit: &str, test_folder: &TestFolder, words: &[&str]) -> End {
    let native = run(limited(limit, &test_folder.native(words)));
    let end = run(limited(limit, &test_folder.memobj(&[], words)));
    assert!(
        (native.status, &native.out) == (end.status, &end.out),
        "{limit}: {words:?}\nnative {native:#?}\nmemobj {end:#?}"
    );
    let ours = end.err.lines().filter(|line| line.starts_with("memobj: ")).count();
    assert!(ours <= 2 && end.err.lines().count() == native.err.lines().count() + ours, "{end:?}");
    end
}

fn limits() -> String {
    program("limits", Kind::Dynamic).expect("a C compiler").to_str().expect("text").to_string()
}

#[test]
fn few_descriptors_for_many_children() {
    let Some(test_folder) = TestFolder::new() else { return };
    test_folder.sample("sample", 4);
    let script = "for i in $(seq 20); do sleep 0.3 & done; wait; echo ok";
    same_under("-n 64", &test_folder, &["bash", "-c", script]);
    same_under("-n 1024", &test_folder, &[&limits(), "crowd", "600", "sample"]);
}

#[test]
fn a_program_that_maps_more_files_than_there_are_descriptors() {
    let Some(test_folder) = TestFolder::new() else { return };
    std::fs::create_dir(test_folder.path("files")).expect("a folder");
    for at in 0..900 {
        std::fs::write(test_folder.path(&format!("files/{at}")), sample(0, 4 * PAGE)).expect("a file");
    }
    let end = same_under("-n 256", &test_folder, &[&limits(), "files", "900", "files"]);
    assert!(end.err.contains("descriptors"), "{end:?}");
}

#[test]
fn a_limit_of_file_lengths_is_the_programs() {
    let Some(test_folder) = TestFolder::new() else { return };
    test_folder.sample("sample", 64);
    same_under("-f 8", &test_folder, &[&limits(), "untraced", "sample"]);
    same_under(
        "-f 8",
        &test_folder,
        &["sh", "-c", "head -c 100000 /dev/zero > long; echo $?; ls -l long | cut -c 1-10"],
    );
}

#[test]
fn children_that_ask_not_to_be_traced() {
    let Some(test_folder) = TestFolder::new() else { return };
    test_folder.sample("sample", 4);
    let end = test_folder.same(&[&limits(), "untraced", "sample"]).succeeded("untraced");
    assert_eq!(end.out, "status 900\nstatus 900\n");
}

#[test]
fn programs_that_do_without_their_vdso() {
    let Some(test_folder) = TestFolder::new() else { return };
    test_folder.sample("sample", 16);
    let places = program("places", Kind::Dynamic).expect("a C compiler");
    for how in ["unmapped", "moved", "protected", "closed", "replaced"] {
        let end = test_folder.same(&[places.as_os_str(), how.as_ref(), "sample".as_ref()]).succeeded(how);
        assert!(end.out.ends_with("status 400\nlast: right\n"), "{how}: {end:?}");
    }
}

#[test]
fn a_file_system_that_is_served_by_the_run_itself() {
    let Some(test_folder) = TestFolder::new() else { return };
    let served = program("served", Kind::Dynamic).expect("a C compiler");
    std::fs::create_dir(test_folder.path("folder")).expect("a folder");
    let words = [served.as_os_str(), "folder".as_ref()];
    let native = run(test_folder.native(&words));
    if native.code() == 77 {
        print!("{}", native.out);
        return;
    }
    assert_eq!(native.out, "open 1, wrong 0\n");
    test_folder.same(&words);
    let end = run(test_folder.memobj(&[], &[served.as_os_str(), "folder".as_ref(), "silent".as_ref()]));
    assert_eq!((end.code(), end.out.as_str()), (0, "open 1, wrong 0\n"), "{end:?}");
    assert!(end.err.contains("does not answer") && end.err.lines().count() == 1, "{end:?}");
}
