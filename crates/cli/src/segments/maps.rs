//! Rows of `/proc/PID/maps`.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::hex::hex_unless_utf8;

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
    /// The file, or a name in brackets, or empty. Of an object that was named for a file, that file. Any bytes but a
    /// newline and zero.
    #[serde(flatten, serialize_with = "name_in_json")]
    pub(super) name: Vec<u8>,
    /// Whether a memory object is behind it, not the file itself.
    pub(super) object: bool,
}

impl Row {
    pub(super) fn has_file(&self) -> bool {
        self.inode != 0
    }

    pub(super) fn is_stack(&self) -> bool {
        self.name == b"[stack]"
    }

    pub(super) fn allows(&self, letter: char) -> bool {
        self.protection.contains(letter)
    }
}

/// As text, and as bytes too if it is none.
fn name_in_json<S: Serializer>(name: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut members = serializer.serialize_map(None)?;
    members.serialize_entry("name", &String::from_utf8_lossy(name))?;
    if let Some(hex) = hex_unless_utf8(name) {
        members.serialize_entry("name_hex", &hex)?;
    }
    members.end()
}

/// Reads a line; `None` if it has another form.
pub(super) fn parse(line: &[u8]) -> Option<Row> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut parts = line.splitn(6, |byte| *byte == b' ');
    let mut fields = parts.by_ref().take(5).map_while(|field| std::str::from_utf8(field).ok());
    let (start, end) = fields.next()?.split_once('-')?;
    let protection = fields.next()?.to_string();
    let offset = hex(fields.next()?)?;
    let device = fields.next()?.to_string();
    let inode = fields.next()?.parse().ok()?;
    let name = parts.next().unwrap_or_default();
    let name = &name[name.iter().take_while(|byte| **byte == b' ').count()..];
    let of_object = object_of(name);
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end && protection.len() == 4).then(|| Row {
        start,
        end,
        protection,
        offset,
        device,
        inode,
        object: of_object.is_some(),
        name: of_object.unwrap_or_else(|| name.to_vec()),
    })
}

/// The file that an object is named for, if `name` is that of its memory file. Page i of the object is page i of both.
fn object_of(name: &[u8]) -> Option<Vec<u8>> {
    let path = name.strip_prefix(OBJECT.as_bytes())?;
    // Objects may have any names; those of files are paths from the root.
    path.starts_with(b"/").then(|| unescaped(path.strip_suffix(DELETED.as_bytes()).unwrap_or(path)))
}

/// The path of which `name` is made: a backslash stands there twice, and a byte that is not UTF-8 as `\xff`. The end of a
/// long name is cut off, maybe within such a byte.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let (mut path, mut rest) = (Vec::new(), name);
    while let Some((first, behind)) = rest.split_first() {
        let digits = rest.strip_prefix(b"\\x").and_then(|digits| std::str::from_utf8(digits.get(..2)?).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (byte, length) = match byte {
            Some(byte) => (byte, 4),
            None if rest.starts_with(b"\\\\") => (b'\\', 2),
            None => (*first, 1),
        };
        path.push(byte);
        rest = if length == 1 { behind } else { &rest[length..] };
    }
    path
}

/// Prints the row as the kernel does.
pub(super) fn write(to: &mut impl Write, row: &Row) -> io::Result<()> {
    let Row { start, end, protection, offset, device, inode, name, object: _ } = row;
    let begin = format!("{start:08x}-{end:08x} {protection} {offset:08x} {device} {inode} ");
    if name.is_empty() {
        return writeln!(to, "{begin}");
    }
    write!(to, "{begin:NAME_COLUMN$}")?;
    write_name(to, name)
}

/// Prints the name and ends the line.
pub(super) fn write_name(to: &mut impl Write, name: &[u8]) -> io::Result<()> {
    to.write_all(name)?;
    to.write_all(b"\n")
}
