//! The record of a run: which pages of which files were touched first, in which order. A later run prefetches them in
//! that order, with large reads.
//!
//! [`Record::from_history`] makes one, [`Record::write`] and [`Record::read`] bring it to a file and back
//! (`docs/run-record.md` is the format), and [`Record::plan`] says what to read.

mod format;
mod from_history;
mod plan;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use plan::{FilePlan, LeftOut, Plan, Prefetch};

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Pages of a run in a record, and of a read in a plan, at most: 2 MiB.
pub const MOST_PAGES: u64 = 512;

/// The pages that a run touched, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    files: Vec<RecordedFile>,
    touches: Vec<PageRun>,
}

/// A file as it was when the run was recorded. If it differs now, the record says nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedFile {
    /// Where it was.
    pub path: PathBuf,
    /// Bytes.
    pub length_bytes: u64,
    /// Seconds and nanoseconds of the last change of its contents.
    pub modified: (i64, i64),
}

impl RecordedFile {
    /// The file at `path` as it is now.
    pub fn now(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            length_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Pages of one file that were touched one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// The index in [`Record::files`].
    pub file: u32,
    /// The first page.
    pub first: u64,
    /// How many, 1 to [`MOST_PAGES`].
    pub pages: u64,
}

/// Why something could not be read as a record, or is none.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecordError {
    /// Reading failed.
    Io(io::Error),
    /// It does not begin as a record does.
    NoRecord,
    /// It is a record of a version that this library does not know.
    Version(u32),
    /// It ends before its end, or goes on behind it.
    Length {
        /// How many bytes its beginning speaks of.
        expected_bytes: u64,
        /// How many there are, or more than are ever read.
        found_bytes: u64,
    },
    /// It was changed since it was written: the checksum is another one.
    Checksum,
    /// A field has a value that no record has.
    Malformed {
        /// Where, in bytes from the beginning.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordError::Io(error) => write!(f, "reading the record: {error}"),
            RecordError::NoRecord => f.write_str("not a record of a run"),
            RecordError::Version(version) => write!(f, "a record of version {version}, which is not known"),
            RecordError::Length { expected_bytes, found_bytes } => {
                write!(f, "a record of {expected_bytes} bytes, of which {found_bytes} are there")
            }
            RecordError::Checksum => f.write_str("the record is damaged: its checksum is another one"),
            RecordError::Malformed { offset, what } => {
                write!(f, "the record is wrong at byte {offset}: {what}")
            }
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecordError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl Record {
    /// The files, in the order of their first mapping.
    pub fn files(&self) -> &[RecordedFile] {
        &self.files
    }

    /// The touches, in order over all files.
    pub fn touches(&self) -> &[PageRun] {
        &self.touches
    }
}

impl RecordedFile {
    /// Its pages; the last one may be cut short.
    pub fn pages(&self) -> u64 {
        self.length_bytes.div_ceil(PAGE_BYTES)
    }
}
