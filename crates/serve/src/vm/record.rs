//! Which pages of the object machines touch first, in order: recorded in one run, copied before they are touched in the next.
//!
//! ```text
//!   memobj touches 1 length=1073741824        the first line: the version of the form, bytes of the object
//!   40960+8192                                offset and bytes, in the order of the touches
//!   12288+4096
//! ```
//!
//! A record is a hint: whatever it says, machines get the bytes of the object.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::machine::SMALL;
use super::places::Bits;

const HEAD: &str = "memobj touches 1 length=";
/// The longest line: two numbers.
const MOST_LINE_BYTES: u64 = 64;
/// The most ranges: those of single pages of 64 GiB.
const MOST_RANGES: usize = 16 << 20;

/// Ranges of an object that machines have touched, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touches {
    length: u64,
    ranges: Vec<Range<u64>>,
}

/// Why a record cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecordError {
    /// The file cannot be read.
    System(io::Error),
    /// It is no record of this version.
    NotARecord,
    /// A line says no range of the object.
    Line {
        /// Which, from 1 on.
        number: usize,
        /// What it says.
        text: String,
    },
    /// There are too many lines.
    TooLong,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => write!(f, "{error}"),
            Self::NotARecord => write!(f, "it does not begin with `{HEAD}`"),
            Self::Line { number, text } => {
                write!(f, "line {number} is no range of pages of the object: {text:?}")
            }
            Self::TooLong => write!(f, "it has more than {MOST_RANGES} lines"),
        }
    }
}

impl std::error::Error for RecordError {}

impl Touches {
    /// Reads a record.
    ///
    /// # Errors
    ///
    /// What cannot be read, and the first line that is none of a record.
    pub fn read_from(from: impl Read) -> Result<Self, RecordError> {
        let mut from = io::BufReader::new(from);
        let head = line(&mut from)?.ok_or(RecordError::NotARecord)?;
        let length = head.strip_prefix(HEAD).and_then(|length| length.parse().ok());
        let mut touches = Self { length: length.ok_or(RecordError::NotARecord)?, ranges: Vec::new() };
        while let Some(text) = line(&mut from)? {
            let Some(range) = range_of(&text, touches.length) else {
                return Err(RecordError::Line { number: touches.ranges.len() + 2, text });
            };
            if touches.ranges.len() == MOST_RANGES {
                return Err(RecordError::TooLong);
            }
            touches.ranges.push(range);
        }
        Ok(touches)
    }

    /// Writes the record.
    ///
    /// # Errors
    ///
    /// What `to` says.
    pub fn write_to(&self, to: impl Write) -> io::Result<()> {
        let mut to = io::BufWriter::new(to);
        writeln!(to, "{HEAD}{}", self.length)?;
        for range in &self.ranges {
            writeln!(to, "{}+{}", range.start, range.end - range.start)?;
        }
        to.flush()
    }

    /// Bytes of the object that it is of.
    pub fn object_length(&self) -> u64 {
        self.length
    }

    /// What was touched, in order.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn push(&mut self, range: Range<u64>) {
        let has_room = self.ranges.len() < MOST_RANGES;
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if has_room => self.ranges.push(range),
            _ => {}
        }
    }
}

fn line(from: &mut impl BufRead) -> Result<Option<String>, RecordError> {
    let mut bytes = Vec::new();
    from.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', &mut bytes).map_err(RecordError::System)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn range_of(text: &str, length: u64) -> Option<Range<u64>> {
    let (start, count) = text.split_once('+')?;
    let (start, count): (u64, u64) = (start.parse().ok()?, count.parse().ok()?);
    let end = start.checked_add(count)?;
    let is_pages = start.is_multiple_of(SMALL) && count.is_multiple_of(SMALL) && count > 0;
    (is_pages && end <= length).then_some(start..end)
}

/// Notes first touches of all machines.
#[derive(Debug)]
pub(super) struct Recorder {
    seen: Bits,
    touches: Mutex<Touches>,
}

impl Recorder {
    /// For an object of so many bytes.
    pub(super) fn new(length: u64) -> Self {
        let touches = Touches { length, ranges: Vec::new() };
        Self { seen: Bits::new((length / SMALL) as usize), touches: Mutex::new(touches) }
    }

    /// The page at `offset` was touched.
    pub(super) fn touched(&self, offset: u64, page: u64) {
        if self.seen.put((offset / SMALL) as usize) {
            self.touches.lock().unwrap_or_else(PoisonError::into_inner).push(offset..offset + page);
        }
    }

    pub(super) fn touches(&self) -> Touches {
        self.touches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let recorder = Recorder::new(1 << 20);
        for page in [5, 6, 2, 5, 3, 9] {
            recorder.touched(page * SMALL, SMALL);
        }
        let touches = recorder.touches();
        let pages: Vec<_> =
            touches.ranges().iter().map(|range| (range.start / SMALL, range.end / SMALL)).collect();
        assert_eq!(pages, [(5, 7), (2, 4), (9, 10)]);
        let mut bytes = Vec::new();
        touches.write_to(&mut bytes).unwrap();
        assert_eq!(Touches::read_from(&bytes[..]).unwrap(), touches);
    }

    #[test]
    fn other_files_are_no_records() {
        let read = |text: &str| Touches::read_from(text.as_bytes()).unwrap_err().to_string();
        assert!(read("").contains("does not begin") && read("\0\0").contains("does not begin"));
        assert!(read("memobj touches 2 length=8192\n").contains("does not begin"));
        let lines = ["4096+8192", "0+0", "1+4096", "0+1", "-1+2", "x", "0+18446744073709547520", ""];
        for line in lines {
            let said = read(&format!("memobj touches 1 length=8192\n0+4096\n{line}\n"));
            assert!(said.contains("line 3"), "{line}: {said}");
        }
        let long = format!("memobj touches 1 length=8192\n{}", "1".repeat(100_000));
        assert!(read(&long).contains("line 2"));
    }
}
