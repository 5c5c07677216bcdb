//! Lists of pages, shorter.

use memobj_serve::control::object_name;

use crate::history::FileHistory;

/// The pages as runs of pages that follow each other in the list: the first, and how many.
pub(super) fn runs(pages: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((first, count)) if first.checked_add(*count) == Some(page) => *count += 1,
            _ => runs.push((page, 1)),
        }
    }
    runs
}

/// Failed pages with what was said of them, as runs of pages of which the same was said.
pub(super) fn failed_runs(file: &FileHistory) -> Vec<(u64, u64, &str)> {
    let of_file = format!(" of {}: ", object_name(&file.path));
    let mut runs: Vec<(u64, u64, &str)> = Vec::new();
    for (page, reason) in &file.failed {
        let reason = bare(reason, &of_file);
        match runs.last_mut() {
            Some((first, count, said)) if first.checked_add(*count) == Some(*page) && *said == reason => {
                *count += 1;
            }
            _ => runs.push((*page, 1, reason)),
        }
    }
    runs
}

/// The reason without the range and the name of the file, with which errors of pages begin: they are told beside it,
/// and would make the reasons of neighbours differ.
fn bare<'a>(reason: &'a str, of_file: &str) -> &'a str {
    match reason.split_once(of_file) {
        Some((range, rest)) if range.starts_with("supply [") => rest,
        _ => reason,
    }
}
