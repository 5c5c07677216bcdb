//! The rows of acid's `umem(Current())` for programs of another system: segment, range, and where the bytes are.

use std::io::{self, Write};

use super::maps::{Row, write_name};

/// Prints the row. All is in segment 1 but the stack, which is in segment 2.
pub(super) fn write(to: &mut impl Write, row: &Row) -> io::Result<()> {
    let segment = if row.is_stack() { 2 } else { 1 };
    write!(to, "{segment} {}-{} ", number(row.start), number(row.end))?;
    if !row.has_file() {
        return writeln!(to, "*ANON*");
    }
    write!(to, "{}@", number(row.offset))?;
    write_name(to, &row.name)
}

/// Eight digits if that is enough, else sixteen.
fn number(value: u64) -> String {
    if value >> 32 == 0 { format!("0x{value:08x}") } else { format!("0x{value:016x}") }
}
