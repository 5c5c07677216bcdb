//! Lists of pages, shorter.

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
pub(super) fn failed_runs(failed: &[(u64, String)]) -> Vec<(u64, u64, &str)> {
    let mut runs: Vec<(u64, u64, &str)> = Vec::new();
    for (page, reason) in failed {
        match runs.last_mut() {
            Some((first, count, said)) if first.checked_add(*count) == Some(*page) && said == reason => {
                *count += 1;
            }
            _ => runs.push((*page, 1, reason)),
        }
    }
    runs
}
