//! Plan 9's `/proc/n/segment`: name, flags, base, top (exclusive), references; the stack first.

use super::maps::Row;

/// The text. Addresses have 16 digits if one of them needs more than eight, as on that machine.
pub(super) fn format(rows: &[Row]) -> String {
    let digits = if rows.iter().any(|row| row.end > 1 << 32) { 16 } else { 8 };
    let (stacks, others): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.is_stack());
    let line = |row: &Row| {
        let read_only = if row.allows('w') { ' ' } else { 'R' };
        // No profiling, and Linux does not tell how many processes have a segment.
        format!("{:<6} {read_only}  {:0digits$x} {:0digits$x} {:>4}\n", name(row), row.start, row.end, 1)
    };
    stacks.into_iter().chain(others).map(line).collect()
}

/// What Plan 9 would call it.
fn name(row: &Row) -> &'static str {
    match () {
        () if row.is_stack() => "Stack",
        () if row.allows('s') => "Shared",
        () if row.name.starts_with("[v") => "Phys",
        () if !row.has_file() => "Bss",
        () if row.allows('w') => "Data",
        () => "Text",
    }
}
