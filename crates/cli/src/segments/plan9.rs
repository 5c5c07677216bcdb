//! Plan 9's `/proc/n/segment`: name, flags, base, top (exclusive), references; the stack first.

use std::io::{self, Write};

use super::maps::Row;

/// What decides about all rows: known when all were seen once.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Survey {
    is_wide: bool,
}

impl Survey {
    /// Addresses have 16 digits if one of them needs more than eight, as on that machine.
    pub(super) fn see(&mut self, row: &Row) {
        self.is_wide |= row.end > 1 << 32;
    }

    /// Prints the row.
    pub(super) fn write(&self, to: &mut impl Write, row: &Row) -> io::Result<()> {
        let digits = if self.is_wide { 16 } else { 8 };
        let read_only = if row.allows('w') { ' ' } else { 'R' };
        // No profiling, and Linux does not tell how many processes have a segment.
        writeln!(to, "{:<6} {read_only}  {:0digits$x} {:0digits$x} {:>4}", name(row), row.start, row.end, 1)
    }
}

/// What Plan 9 would call it.
fn name(row: &Row) -> &'static str {
    match () {
        () if row.is_stack() => "Stack",
        () if row.allows('s') => "Shared",
        () if row.name.starts_with(b"[v") => "Phys",
        () if !row.has_file() => "Bss",
        () if row.allows('w') => "Data",
        () => "Text",
    }
}
