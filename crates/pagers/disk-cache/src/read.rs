//! Reads a block and its footer: from the kernel's page cache if they are there, else around it.
//!
//! What is read is kept in frames, within a budget. A second copy in the page cache would be outside of it, and costs the
//! processor as much as the read.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{ReadWriteFlags, preadv, preadv2};

use crate::format::FOOTER_BYTES;

/// To what reads around the page cache are aligned, on every disk.
const SECTOR_BYTES: usize = 4096;

/// Memory that a disk can write to.
#[repr(align(4096))]
struct Sector([u8; SECTOR_BYTES]);

/// Fills `into` from the beginning of the file, and returns the footer behind it.
pub(crate) fn read_whole(file: &File, into: &mut [u8]) -> io::Result<[u8; FOOTER_BYTES]> {
    let mut sector = Sector([0; SECTOR_BYTES]);
    let mut footer = [0; FOOTER_BYTES];
    if from_page_cache(file, into, &mut sector) || around_page_cache(file, into, &mut sector) {
        footer.copy_from_slice(&sector.0[..FOOTER_BYTES]);
        return Ok(footer);
    }
    file.read_exact_at(into, 0)?;
    file.read_exact_at(&mut footer, into.len() as u64)?;
    Ok(footer)
}

/// Whether all of it was there. Waits for no disk.
fn from_page_cache(file: &File, into: &mut [u8], sector: &mut Sector) -> bool {
    let whole = into.len() + FOOTER_BYTES;
    let mut parts = [IoSliceMut::new(into), IoSliceMut::new(&mut sector.0)];
    preadv2(file, &mut parts, 0, ReadWriteFlags::NOWAIT) == Ok(whole)
}

/// Whether it could be read so: not on every file system, nor to every address.
fn around_page_cache(file: &File, into: &mut [u8], sector: &mut Sector) -> bool {
    let whole = into.len() + FOOTER_BYTES;
    let is_aligned = (into.as_ptr().addr() | into.len()).is_multiple_of(SECTOR_BYTES);
    if !is_aligned || fcntl_setfl(file, OFlags::DIRECT).is_err() {
        return false;
    }
    let read = preadv(file, &mut [IoSliceMut::new(into), IoSliceMut::new(&mut sector.0)], 0);
    // Else what follows would fail, and say so.
    let _ = fcntl_setfl(file, OFlags::empty());
    read == Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Advice, fadvise};

    #[test]
    fn every_way_reads_the_same() {
        let file = tempfile::tempfile().unwrap();
        for length in [0, 1, 4096, 5000, 65_536] {
            let bytes: Vec<u8> = (0..length + FOOTER_BYTES).map(|at| (at * 7 % 251) as u8).collect();
            file.set_len(0).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            file.sync_all().unwrap();
            for is_cold in [false, true] {
                for shift in [0, 1] {
                    if is_cold {
                        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
                    }
                    let mut memory = vec![0xee; length + 2 * SECTOR_BYTES];
                    let start = memory.as_ptr().align_offset(SECTOR_BYTES) + shift;
                    let footer = read_whole(&file, &mut memory[start..start + length]).unwrap();
                    assert!(memory[start..start + length] == bytes[..length], "{length} {is_cold} {shift}");
                    assert_eq!(footer, bytes[length..], "{length} {is_cold} {shift}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 4096 + FOOTER_BYTES - 1], 0).unwrap();
        let error = read_whole(&file, &mut [0; 4096]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
