//! The test file: every word of it is a hash of its own index, so that every load can be checked.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memobj_linux::peer::FileView;
use rustix::fs::{Advice, fadvise};

use crate::job::Failure;

/// Bytes of a page, in all patterns.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a word, the unit of a load.
pub const WORD_BYTES: u64 = 8;
/// Bytes of one read call of a scan, and of populating.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// Words of a page.
pub const PAGE_WORDS: u64 = PAGE_BYTES / WORD_BYTES;

/// Mixes 64 bits (the finalizer of SplitMix64).
#[inline]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What the word with this index holds.
#[inline]
pub fn expected_word(word_index: u64) -> u64 {
    mix(word_index.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// Compares a loaded word with what it must be.
#[inline]
pub fn check_word(word_index: u64, found: u64) -> Result<(), Failure> {
    if found == expected_word(word_index) { Ok(()) } else { Err(wrong_word(word_index, found)) }
}

/// The complaint about a word that is not what it must be.
#[cold]
pub fn wrong_word(word_index: u64, found: u64) -> Failure {
    let offset = word_index * WORD_BYTES;
    let expected = expected_word(word_index);
    Failure::WrongData(format!("at byte {offset:#x}: {found:#018x} instead of {expected:#018x}"))
}

/// The wrapping sum of every `step_words`-th word of `[first, end)`.
pub fn expected_sum(words: Range<u64>, step_words: u64) -> u64 {
    words.step_by(step_words as usize).fold(0, |sum, index| sum.wrapping_add(expected_word(index)))
}

/// The first `len_bytes` of the test data, in memory.
#[cfg(feature = "ours")]
pub fn bytes(len_bytes: u64) -> Vec<u8> {
    (0..len_bytes / WORD_BYTES).flat_map(|index| expected_word(index).to_ne_bytes()).collect()
}

/// Finds or makes the test file of `len_bytes` in `directory`.
pub fn test_file(directory: &Path, len_bytes: u64) -> io::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("memobj-bench-{}M.dat", len_bytes >> 20));
    if !is_complete(&path, len_bytes) {
        eprintln!("writing {} ({} MiB)", path.display(), len_bytes >> 20);
        write_test_file(&path, len_bytes)?;
    }
    path.canonicalize()
}

/// Makes the test file of `len_bytes` at `path`, durable before it has its name.
pub fn write_test_file(path: &Path, len_bytes: u64) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
    for word_index in 0..len_bytes / WORD_BYTES {
        file.write_all(&expected_word(word_index).to_ne_bytes())?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(partial, path)
}

fn is_complete(path: &Path, len_bytes: u64) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let length_fits = file.metadata().is_ok_and(|metadata| metadata.len() == len_bytes);
    let holds = |word_index: u64| {
        let mut word = [0; WORD_BYTES as usize];
        file.read_exact_at(&mut word, word_index * WORD_BYTES).is_ok()
            && u64::from_ne_bytes(word) == expected_word(word_index)
    };
    length_fits && [0, len_bytes / 16, len_bytes / WORD_BYTES - 1].into_iter().all(holds)
}

/// Drops the file's pages from the kernel's page cache and returns how many are left.
pub fn drop_page_cache(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).open(path)?;
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    FileView::map(&file)?.resident_pages()
}

/// Fills the page cache by large reads, which is the fastest way to have data resident.
pub fn read_through(file: &File, range: Range<u64>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES as usize];
    for offset in range.clone().step_by(CHUNK_BYTES as usize) {
        let wanted = CHUNK_BYTES.min(range.end - offset) as usize;
        file.read_exact_at(&mut chunk[..wanted], offset)?;
    }
    Ok(())
}
