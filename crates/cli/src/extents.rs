//! Which parts of a file have bytes, and which are holes.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Pages are copied whole.
const PAGE_BYTES: u64 = 4096;

/// The first part of `range` that is not all hole, by whole pages, or `None` if all of it is a hole.
///
/// `range` begins at a page. What is left out reads as zeros. A file system that cannot tell has no holes.
pub(crate) fn next_data(file: &File, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
    if range.is_empty() {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(range.start)) {
        Ok(start) if start >= range.end => return Ok(None),
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(range)),
        Err(error) => return Err(error.into()),
    };
    let end = match seek(file, SeekFrom::Hole(start)) {
        Ok(end) => end,
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => range.end,
        Err(error) => return Err(error.into()),
    };
    let start = (start / PAGE_BYTES * PAGE_BYTES).max(range.start);
    let end = end.max(start + 1).checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
    Ok(Some(start..end.min(range.end)))
}

#[cfg(test)]
mod tests {
    use super::next_data;
    use std::os::unix::fs::FileExt;

    #[test]
    fn parts_are_whole_pages_and_hold_all_bytes() {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(1 << 20).expect("a length");
        file.write_all_at(b"x", 300_000).expect("a byte");
        file.write_all_at(b"y", (1 << 20) - 1).expect("a byte");
        let (mut parts, mut from) = (Vec::new(), 0);
        while let Some(part) = next_data(&file, from..1 << 20).expect("an answer") {
            assert!(part.start.is_multiple_of(4096) && part.start >= from && part.end > part.start);
            from = part.end;
            parts.push(part);
        }
        for byte in [300_000, (1 << 20) - 1] {
            assert!(parts.iter().any(|part| part.contains(&byte)), "{byte}: {parts:?}");
        }
        assert!(next_data(&file, 5..5).expect("an answer").is_none());
    }
}
