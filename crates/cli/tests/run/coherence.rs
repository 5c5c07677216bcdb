//! Stores, files that change, and many readers under a small budget.

use crate::build::{Kind, program};
use crate::ends::run;
use crate::test_folder::{PAGE, TestFolder, sample, sample_byte};

/// Runs a mode of coherence.c natively and under `memobj run`, each on a file of its own, and returns what they leave.
fn mode(mode: &str) -> Option<Vec<u8>> {
    let test_folder = TestFolder::new()?;
    let program = program("coherence", Kind::Dynamic)?;
    let files = ["native", "memobj"].map(|name| test_folder.sample(name, 300));
    let words = |at: usize| [program.as_os_str(), mode.as_ref(), files[at].as_os_str()];
    let native = run(test_folder.native(&words(0)));
    let end = run(test_folder.memobj(&[], &words(1)));
    assert_eq!((&end, end.code()), (&native, 0), "{mode}");
    let left = files.map(|file| std::fs::read(file).expect("the file"));
    assert!(left[0] == left[1], "{mode} leaves other bytes than in a native run");
    left.into_iter().next()
}

#[test]
fn private_stores_reach_neither_the_file_nor_other_processes() {
    let Some(left) = mode("stores") else { return };
    assert!(left == sample(0, 300 * PAGE));
}

#[test]
fn a_shared_writable_mapping_is_the_file() {
    mode("shared");
}

#[test]
fn a_shared_mapping_follows_who_had_the_file_open_for_writing() {
    mode("readers");
}

#[test]
fn private_mappings_have_what_shared_ones_stored_before() {
    mode("mixed");
}

#[test]
fn new_mappings_have_the_bytes_that_were_written_just_now() {
    mode("rewrites");
}

#[test]
fn files_are_replaced_grow_and_shrink() {
    mode("replaces");
}

#[test]
fn a_later_program_of_the_same_run_finds_new_bytes() {
    let Some(test_folder) = TestFolder::new() else { return };
    let Some(reader) = program("hello", Kind::Dynamic) else { return };
    std::fs::copy(&reader, test_folder.path("hello")).expect("a copy");
    // The program itself is replaced, too.
    let script = "cp hello program; ./program one; cp /bin/echo other; mv other program; ./program two; \
        ./program three; cp /bin/false other; mv other program; ./program; echo $?";
    let end = test_folder.same_script(script);
    assert!(end.out.starts_with("one\n") && end.out.ends_with("two\nthree\n1\n"), "{end:?}");
}

/// A seed that is another one each time, and is printed.
fn seed() -> String {
    let seed = std::env::var("MEMOBJ_SEED").unwrap_or_else(|_| std::process::id().to_string());
    println!("MEMOBJ_SEED={seed}");
    seed
}

/// Runs a mode of crowd.c on a file that is 128 times the budget.
fn crowd(mode: &str) {
    let (Some(test_folder), Some(program)) = (TestFolder::new(), program("crowd", Kind::Dynamic)) else {
        return;
    };
    let file = test_folder.sample("sample", 2048);
    let seed = seed();
    let words = [program.as_os_str(), mode.as_ref(), file.as_os_str(), seed.as_ref()];
    let end = run(test_folder.memobj(&["--tight", "--budget", "64k"], &words));
    let is_told = |line: &str| line.contains("the budget of 64 KiB is too small");
    assert!(end.status.success() && end.err.lines().all(is_told), "{mode}, seed {seed}: {end:#?}");
}

#[test]
fn bytes_are_right_under_a_budget_of_16_pages() {
    assert_eq!(sample_byte(9), sample(9, 1)[0]);
    crowd("threads");
}

#[test]
fn nobody_sees_a_mapping_that_is_not_ready() {
    crowd("race");
}
