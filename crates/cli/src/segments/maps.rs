//! Rows of `/proc/PID/maps`.

use serde::Serialize;

/// Where the name begins, if what is before it is not longer: 25 columns and six for each byte of a pointer.
const NAME_COLUMN: usize = 73;

/// One segment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Four letters, as `r-xp`.
    pub(super) protection: String,
    /// Of the byte at `start`, in the file.
    pub(super) offset: u64,
    /// Major and minor number, as `fe:00`.
    pub(super) device: String,
    /// Zero if there is no file.
    pub(super) inode: u64,
    /// The file, or a name in brackets, or empty.
    pub(super) name: String,
}

impl Row {
    pub(super) fn has_file(&self) -> bool {
        self.inode != 0
    }

    pub(super) fn is_stack(&self) -> bool {
        self.name == "[stack]"
    }

    pub(super) fn allows(&self, letter: char) -> bool {
        self.protection.contains(letter)
    }
}

/// Reads a line; `None` if it has another form.
pub(super) fn parse(line: &str) -> Option<Row> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let protection = fields.next()?.to_string();
    let offset = hex(fields.next()?)?;
    let device = fields.next()?.to_string();
    let inode = fields.next()?.parse().ok()?;
    let name = fields.next().unwrap_or("").trim_start_matches(' ').to_string();
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end && protection.len() == 4).then_some(Row {
        start,
        end,
        protection,
        offset,
        device,
        inode,
        name,
    })
}

/// The text as the kernel prints it.
pub(super) fn format(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let Row { start, end, protection, offset, device, inode, name } = row;
        let begin = format!("{start:08x}-{end:08x} {protection} {offset:08x} {device} {inode} ");
        if name.is_empty() { format!("{begin}\n") } else { format!("{begin:NAME_COLUMN$}{name}\n") }
    };
    rows.iter().map(line).collect()
}
