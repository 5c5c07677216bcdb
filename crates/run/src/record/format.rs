//! Records as bytes: `docs/run-record.md`.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use twox_hash::XxHash3_64;

use super::{MOST_PAGES, PageRun, Record, RecordError, RecordedFile};
use crate::history::FileHistory;

const MAGIC: &[u8; 8] = b"memobjRR";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
/// Before the path.
const FILE_BYTES: usize = 28;
const RUN_BYTES: usize = 16;
const SUM_BYTES: usize = 8;
/// No record is longer: 16 million runs, and their files. Bounds what is read from something that never ends.
const MOST_BYTES: u64 = 256 << 20;
/// As the kernel's PATH_MAX.
const MOST_PATH_BYTES: usize = 4096;
const NANOSECONDS: i64 = 1_000_000_000;
/// A page that a record names is below this, as in the commit log.
const PAGE_LIMIT: u64 = 1 << 52;

/// The file, if a record can name it: no path that is empty, too long, or has a zero byte, and a time that is one.
pub(super) fn storable(file: &FileHistory) -> Option<RecordedFile> {
    let path = file.path.as_os_str().as_bytes();
    let is_time = (0..NANOSECONDS).contains(&file.modified.1);
    (is_path(path) && is_time && file.length_bytes <= i64::MAX as u64).then(|| file.into())
}

fn is_path(path: &[u8]) -> bool {
    !path.is_empty() && path.len() <= MOST_PATH_BYTES && !path.contains(&0)
}

impl Record {
    /// Writes the record, in the format of `docs/run-record.md`, by one call. Blocks as `to` does.
    ///
    /// Whoever writes to a file should write to a new one and rename it: half a record is none.
    ///
    /// # Errors
    ///
    /// Those of `to`; and [`io::ErrorKind::InvalidInput`] for a record that is longer than 256 MiB.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let bytes = self.bytes();
        if bytes.len() as u64 > MOST_BYTES {
            let why = format!("a record of {} bytes is too long", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        to.write_all(&bytes)
    }

    fn bytes(&self) -> Vec<u8> {
        let paths: usize = self.files.iter().map(|file| FILE_BYTES + file.path.as_os_str().len()).sum();
        let length = HEADER_BYTES + paths + self.touches.len() * RUN_BYTES + SUM_BYTES;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        // As many as fit: `from_history` numbers files by 32 bits, and so does `read`.
        bytes.extend((self.files.len() as u32).to_le_bytes());
        bytes.extend((self.touches.len() as u64).to_le_bytes());
        bytes.extend((length as u64).to_le_bytes());
        for RecordedFile { path, length_bytes, modified: (seconds, nanoseconds) } in &self.files {
            bytes.extend(length_bytes.to_le_bytes());
            bytes.extend(seconds.to_le_bytes());
            bytes.extend(nanoseconds.to_le_bytes());
            bytes.extend((path.as_os_str().len() as u32).to_le_bytes());
            bytes.extend(path.as_os_str().as_bytes());
        }
        for PageRun { file, first, pages } in &self.touches {
            bytes.extend(file.to_le_bytes());
            // At most MOST_PAGES.
            bytes.extend((*pages as u32).to_le_bytes());
            bytes.extend(first.to_le_bytes());
        }
        let sum = XxHash3_64::oneshot(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// Reads a record to the end of `from`, at most 256 MiB. Blocks as `from` does.
    ///
    /// Whatever the bytes are, this takes memory in proportion to how many there are, and gives a record only if every
    /// field is one that [`write`](Record::write) could have written.
    ///
    /// # Errors
    ///
    /// See [`RecordError`].
    pub fn read(mut from: impl Read) -> Result<Record, RecordError> {
        let mut bytes = Vec::new();
        // The beginning first, so that of something else not more than that is read.
        from.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(RecordError::Io)?;
        let header = Header::of(&bytes)?;
        from.take(MOST_BYTES - HEADER_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(RecordError::Io)?;
        let found_bytes = bytes.len() as u64;
        if header.length_bytes != found_bytes || found_bytes > MOST_BYTES {
            return Err(RecordError::Length { expected_bytes: header.length_bytes, found_bytes });
        }
        // There are at least as many as the header has.
        let (body, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(RecordError::NoRecord)?;
        if XxHash3_64::oneshot(body) != u64::from_le_bytes(*sum) {
            return Err(RecordError::Checksum);
        }
        Reader { bytes: body, at: HEADER_BYTES.min(body.len()) }.record(&header)
    }
}

struct Header {
    files: u32,
    runs: u64,
    length_bytes: u64,
}

impl Header {
    fn of(bytes: &[u8]) -> Result<Header, RecordError> {
        let begins = bytes.len().min(MAGIC.len());
        if bytes[..begins] != MAGIC[..begins] || bytes.is_empty() {
            return Err(RecordError::NoRecord);
        }
        let mut reader = Reader { bytes, at: begins };
        let cut =
            |_| RecordError::Length { expected_bytes: HEADER_BYTES as u64, found_bytes: bytes.len() as u64 };
        let version = reader.u32().map_err(cut)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let files = reader.u32().map_err(cut)?;
        let runs = reader.u64().map_err(cut)?;
        let length_bytes = reader.u64().map_err(cut)?;
        let least = (HEADER_BYTES + SUM_BYTES) as u64;
        if length_bytes < least {
            return Err(RecordError::Malformed {
                offset: 24,
                what: "the length is less than that of an empty record",
            });
        }
        Ok(Header { files, runs, length_bytes })
    }
}

/// Takes fields from the front. Nothing is allocated for what is not there.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn record(mut self, header: &Header) -> Result<Record, RecordError> {
        let mut record = Record::default();
        for _ in 0..header.files {
            record.files.push(self.file()?);
        }
        for _ in 0..header.runs {
            record.touches.push(self.run(&record.files)?);
        }
        if self.at != self.bytes.len() {
            return Err(self.wrong(self.at, "there is more than files and runs"));
        }
        Ok(record)
    }

    fn file(&mut self) -> Result<RecordedFile, RecordError> {
        let at = self.at;
        let length_bytes = self.u64()?;
        if length_bytes > i64::MAX as u64 {
            return Err(self.wrong(at, "a file is longer than files can be"));
        }
        let seconds = self.u64()?.cast_signed();
        let nanoseconds = self.u64()?.cast_signed();
        if !(0..NANOSECONDS).contains(&nanoseconds) {
            return Err(self.wrong(at + 16, "a second has less nanoseconds"));
        }
        let path_bytes = self.u32()? as usize;
        let path = self.take(path_bytes)?;
        if !is_path(path) {
            return Err(self.wrong(at + FILE_BYTES, "this is no path"));
        }
        let path = OsString::from_vec(path.to_vec()).into();
        Ok(RecordedFile { path, length_bytes, modified: (seconds, nanoseconds) })
    }

    fn run(&mut self, files: &[RecordedFile]) -> Result<PageRun, RecordError> {
        let at = self.at;
        let (file, pages, first) = (self.u32()?, u64::from(self.u32()?), self.u64()?);
        let Some(known) = files.get(file as usize) else {
            return Err(self.wrong(at, "there is no such file"));
        };
        if !(1..=MOST_PAGES).contains(&pages) {
            return Err(self.wrong(at + 4, "a run has 1 to 512 pages"));
        }
        if first >= PAGE_LIMIT || first + pages > known.pages() {
            return Err(self.wrong(at + 8, "the file has no such pages"));
        }
        Ok(PageRun { file, first, pages })
    }

    fn wrong(&self, at: usize, what: &'static str) -> RecordError {
        RecordError::Malformed { offset: at as u64, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..count) else {
            return Err(self.wrong(self.at, "files and runs go on behind the end"));
        };
        self.at += count;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        let mut field = [0; 4];
        field.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(field))
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        let mut field = [0; 8];
        field.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(field))
    }
}
