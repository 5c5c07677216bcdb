//! What programs do to their mappings, and what they find in them afterwards.

use crate::build::{Kind, program};
use crate::test_folder::{PAGE, TestFolder, sample};

/// Runs a mode of memory.c natively and under `memobj run`, and panics unless the file is as it was.
fn mode(mode: &str) {
    let Some(test_folder) = TestFolder::new() else { return };
    let bytes = sample(0, 600 * PAGE + 100);
    let file = test_folder.file("sample", &bytes);
    let Some(program) = program("memory", Kind::Dynamic) else { return };
    let end = test_folder.same(&[program.as_os_str(), mode.as_ref(), file.as_os_str()]).succeeded(mode);
    assert!(end.out.ends_with(&format!("{mode} done\n")), "{end:?}");
    assert!(std::fs::read(&file).expect("the file") == bytes, "{mode} has changed the file");
}

#[test]
fn descriptors_that_are_closed_replaced_and_used_up() {
    mode("descriptors");
}

#[test]
fn parts_are_unmapped_protected_and_mapped_over() {
    mode("parts");
}

#[test]
fn mappings_grow_and_move() {
    mode("remaps");
}

#[test]
fn locked_memory_never_reads_zeros() {
    mode("locks");
}

#[test]
fn populated_mappings() {
    mode("populates");
}

#[test]
fn advice_is_answered_alike() {
    mode("advice");
}

#[test]
fn behind_the_end_of_the_file_the_trap_has_the_right_address() {
    mode("ends");
}

#[test]
fn calls_with_buffers_in_untouched_pages() {
    mode("calls");
}

#[test]
fn a_program_with_a_filter_of_its_own_maps_files() {
    mode("filter");
}
