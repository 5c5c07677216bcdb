//! Rows of `/proc/PID/maps`.

use std::io::{self, Write};

use serde::Serialize;

/// Where the name begins, if what is before it is not longer: 25 columns and six for each byte of a pointer.
const NAME_COLUMN: usize = 73;
/// What the kernel calls the memory file that holds the frames of an object: this, the object's name,
const OBJECT: &str = "/memfd:memobj:";
/// and this, since such a file is in no folder.
const DELETED: &str = " (deleted)";

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
    /// The file, or a name in brackets, or empty. Of an object that was named for a file, that file.
    pub(super) name: String,
    /// Whether a memory object is behind it, not the file itself.
    pub(super) object: bool,
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
    let name = fields.next().unwrap_or("").trim_start_matches(' ');
    let of_object = object_of(name);
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end && protection.len() == 4).then(|| Row {
        start,
        end,
        protection,
        offset,
        device,
        inode,
        name: of_object.unwrap_or(name).to_string(),
        object: of_object.is_some(),
    })
}

/// The file that an object is named for, if `name` is that of its memory file. Page i of the object is page i of both.
fn object_of(name: &str) -> Option<&str> {
    let path = name.strip_prefix(OBJECT)?;
    // Objects may have any names; those of files are paths from the root.
    path.starts_with('/').then(|| path.strip_suffix(DELETED).unwrap_or(path))
}

/// Prints the row as the kernel does.
pub(super) fn write(to: &mut impl Write, row: &Row) -> io::Result<()> {
    let Row { start, end, protection, offset, device, inode, name, object: _ } = row;
    let begin = format!("{start:08x}-{end:08x} {protection} {offset:08x} {device} {inode} ");
    if name.is_empty() { writeln!(to, "{begin}") } else { writeln!(to, "{begin:NAME_COLUMN$}{name}") }
}
