//! Where the rows come from: a table of the kernel's, or a file in its form. Read row by row, more than once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use super::maps::{self, Row};
use crate::failure::{Failure, reason};

/// No line of the kernel is longer: a path has at most 4096 bytes, each of which may be written as four.
const MOST_LINE_BYTES: u64 = 32 << 10;

/// A table to be read.
pub(super) struct TableSource {
    /// For messages.
    name: String,
    text: Text,
}

enum Text {
    /// In memory: what would be different when it is read again, or cannot be.
    Read(Vec<u8>),
    /// Of any length.
    File(File),
}

impl TableSource {
    /// The table of a process, as it is now. Linux limits how many rows it has.
    pub(super) fn process(pid: Option<u32>) -> Result<TableSource, Failure> {
        let (path, name) = match pid {
            Some(pid) => (format!("/proc/{pid}/maps"), format!("process {pid}")),
            None => ("/proc/self/maps".to_string(), "this process".to_string()),
        };
        let text = std::fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failed(&name, "no such process"),
            _ => failed(&name, &reason(&error)),
        })?;
        Ok(TableSource { name, text: Text::Read(text) })
    }

    /// A file that holds such a table. What cannot be read twice, as a pipe, is read into memory.
    pub(super) fn file(path: &Path) -> Result<TableSource, Failure> {
        let name = path.display().to_string();
        let open = || -> io::Result<Text> {
            let mut file = File::open(path)?;
            if file.stream_position().is_ok() {
                return Ok(Text::File(file));
            }
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(Text::Read(text))
        };
        let text = open().map_err(|error| failed(&name, &reason(&error)))?;
        Ok(TableSource { name, text })
    }

    /// Gives each row to `see`, from the first on. Holds one at a time.
    pub(super) fn each(&mut self, see: impl FnMut(&Row) -> Result<(), Failure>) -> Result<(), Failure> {
        let TableSource { name, text } = self;
        match text {
            Text::Read(text) => each_line(name, &text[..], see),
            Text::File(file) => {
                file.rewind().map_err(|error| failed(name, &reason(&error)))?;
                each_line(name, BufReader::new(file), see)
            }
        }
    }
}

fn each_line(
    name: &str,
    mut text: impl BufRead,
    mut see: impl FnMut(&Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = text.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(|error| failed(name, &reason(&error)))? == 0 {
            break;
        }
        // File names may be anything but a newline.
        let Some(row) = maps::parse(line.strip_suffix(b"\n").unwrap_or(&line)) else {
            return Err(failed(name, &format!("line {number} does not have the form of /proc/PID/maps")));
        };
        see(&row)?;
    }
    Ok(())
}

fn failed(name: &str, why: &str) -> Failure {
    Failure::Message(format!("segments of {name}: {why}"))
}
