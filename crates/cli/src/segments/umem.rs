//! The rows of acid's `umem(Current())` for programs of another system: segment, range, and where the bytes are.

use super::maps::Row;

/// The text. All is in segment 1 but the stack, which is in segment 2.
pub(super) fn format(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let segment = if row.is_stack() { 2 } else { 1 };
        let place = if row.has_file() {
            format!("{}@{}", number(row.offset), row.name)
        } else {
            "*ANON*".to_string()
        };
        format!("{segment} {}-{} {place}\n", number(row.start), number(row.end))
    };
    rows.iter().map(line).collect()
}

/// Eight digits if that is enough, else sixteen.
fn number(value: u64) -> String {
    if value >> 32 == 0 { format!("0x{value:08x}") } else { format!("0x{value:016x}") }
}
