//! What the objects hold: computed words, or a sparse file with some thousand written pages in a sea of zeros.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use crate::data::{PAGE_BYTES, PAGE_WORDS, WORD_BYTES, expected_word};

/// Pages of a sparse file that are written, evenly spread: 16 MiB on the disk.
const WRITTEN_PAGES: u64 = 4096;

/// Where the bytes of an object come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bytes {
    /// Each word is computed from its index; no file has it.
    #[cfg(feature = "ours")]
    Computed,
    /// So are those of every so manyth page; the others are holes.
    Sparse {
        /// From one written page to the next.
        stride_pages: u64,
    },
}

impl Bytes {
    /// Those of a sparse file of this length, at least 16 MiB.
    pub fn sparse(object_bytes: u64) -> Self {
        Self::Sparse { stride_pages: stride_pages(object_bytes) }
    }

    /// What the word with this index holds.
    #[inline]
    pub fn word(self, index: u64) -> u64 {
        let page = index / PAGE_WORDS;
        match self {
            Self::Sparse { stride_pages } if !page.is_multiple_of(stride_pages) => 0,
            _ => expected_word(index),
        }
    }

    /// A page with bytes near `page`, which may be a hole.
    pub fn written_near(self, page: u64) -> u64 {
        match self {
            #[cfg(feature = "ours")]
            Self::Computed => page,
            Self::Sparse { stride_pages } => page - page % stride_pages,
        }
    }
}

/// From one written page of a sparse file to the next.
fn stride_pages(object_bytes: u64) -> u64 {
    object_bytes / PAGE_BYTES / WRITTEN_PAGES
}

/// Finds or makes the sparse file of `object_bytes` in `directory`.
pub fn sparse_file(directory: &Path, object_bytes: u64) -> io::Result<PathBuf> {
    let path = directory.join(format!("memobj-bench-sparse-{}M.dat", object_bytes >> 20));
    if !is_complete(&path, object_bytes) {
        let partial = path.with_extension("partial");
        write_sparse(&File::create(&partial)?, object_bytes)?;
        std::fs::rename(partial, &path)?;
    }
    path.canonicalize()
}

fn write_sparse(file: &File, object_bytes: u64) -> io::Result<()> {
    file.set_len(object_bytes)?;
    for page in (0..object_bytes / PAGE_BYTES).step_by(stride_pages(object_bytes) as usize) {
        let words = page * PAGE_WORDS..(page + 1) * PAGE_WORDS;
        let bytes: Vec<u8> = words.flat_map(|word| expected_word(word).to_ne_bytes()).collect();
        file.write_all_at(&bytes, page * PAGE_BYTES)?;
    }
    file.sync_all()
}

/// Whether the file has its length, and its first and last written pages.
fn is_complete(path: &Path, object_bytes: u64) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let bytes = Bytes::sparse(object_bytes);
    let holds = |page: u64| {
        let mut word = [0; WORD_BYTES as usize];
        let index = bytes.written_near(page) * PAGE_WORDS;
        file.read_exact_at(&mut word, index * WORD_BYTES).is_ok()
            && u64::from_ne_bytes(word) == bytes.word(index)
    };
    file.metadata().is_ok_and(|metadata| metadata.len() == object_bytes)
        && holds(0)
        && holds(object_bytes / PAGE_BYTES - 1)
}

/// Drops the file's pages from the kernel's page cache. How many are left is not asked: that takes a byte for each page
/// of the file.
pub fn drop_page_cache(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).open(path)?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}
