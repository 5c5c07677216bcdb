//! What an area keeps of its pages beyond the life of the process: words and marks, in a memory file beside the frames.
//!
//! ```text
//!   tables   [ page words, 8 bytes each | unsynced | syncing | lost: one bit for each page ]
//!   frames   the frame file
//! ```
//!
//! Whoever has both descriptors can take the pages over: see `memobj_core::pages::Legacy`. Nobody else may be given the
//! tables: their words are believed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::page_word::PageWord;
use memobj_core::pages::Legacy;

use super::Home;
use crate::region::SMALL;
use crate::zeroed_table::{KeptTables, ZeroedTable};

/// Bits of a word of marks.
const BITS: u64 = 64;
const WORD_BYTES: u64 = 8;

/// What is noted of a page beside its word, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Mark {
    /// The pager has accepted it, and has not made it durable.
    Unsynced = 0,
    /// The pager is asked to make it durable.
    Syncing = 1,
    /// Changes of it are lost.
    Lost = 2,
}

const MARKS: u64 = 3;

/// The tables of one area in their file. Clones are of the same file.
#[derive(Clone, Debug)]
pub struct Kept {
    file: Arc<KeptTables>,
    pages: u64,
}

fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(SMALL as u64)
}

/// Bytes of one kind of marks.
fn mark_bytes(pages: u64) -> u64 {
    aligned(pages.div_ceil(BITS) * WORD_BYTES)
}

fn file_bytes(pages: u64) -> io::Result<u64> {
    let words = pages.checked_mul(WORD_BYTES).filter(|bytes| *bytes < 1 << 62 && pages > 0);
    let words = words.ok_or(io::ErrorKind::OutOfMemory)?;
    Ok(aligned(words) + MARKS * mark_bytes(pages))
}

impl Kept {
    /// New tables for `pages` small pages.
    pub fn new(pages: u64) -> io::Result<Self> {
        Ok(Self { file: Arc::new(KeptTables::new(file_bytes(pages)?)?), pages })
    }

    /// The tables for `pages` pages that another process has made. InvalidData: they are none.
    pub fn open(file: OwnedFd, pages: u64) -> io::Result<Self> {
        Ok(Self { file: Arc::new(KeptTables::open(file, file_bytes(pages)?)?), pages })
    }

    /// The page words.
    pub(super) fn words(&self) -> io::Result<ZeroedTable<PageWord>> {
        let len = usize::try_from(self.pages).map_err(|_| io::ErrorKind::OutOfMemory)?;
        ZeroedTable::kept(&self.file, 0, len)
    }

    /// One kind of marks: bit `page % 64` of word `page / 64` is that of `page`.
    pub fn marks(&self, mark: Mark) -> io::Result<ZeroedTable<AtomicU64>> {
        let len = usize::try_from(self.pages.div_ceil(BITS)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        ZeroedTable::kept(&self.file, self.start_of(mark), len)
    }

    fn start_of(&self, mark: Mark) -> u64 {
        aligned(self.pages * WORD_BYTES) + mark as u64 * mark_bytes(self.pages)
    }

    /// Pages whose words may not be zero, ascending.
    pub(super) fn used_pages(&self) -> io::Result<Vec<PageRange>> {
        let parts = self.file.used_parts(0..self.pages * WORD_BYTES)?;
        let pages = |part: std::ops::Range<u64>| PageRange {
            start: part.start / WORD_BYTES,
            end: (part.end / WORD_BYTES).min(self.pages),
        };
        Ok(parts.into_iter().map(pages).collect())
    }

    /// Pages that have a mark, ascending.
    pub fn marked(&self, mark: Mark) -> io::Result<Vec<PageRange>> {
        let (table, start) = (self.marks(mark)?, self.start_of(mark));
        let mut runs: Vec<PageRange> = Vec::new();
        for part in self.file.used_parts(start..start + mark_bytes(self.pages))? {
            let words = (part.start - start) / WORD_BYTES..(part.end - start) / WORD_BYTES;
            for index in words.start..words.end.min(table.len() as u64) {
                let mut bits = table[index as usize].load(Ordering::Acquire);
                while bits != 0 {
                    let page = index * BITS + u64::from(bits.trailing_zeros());
                    bits &= bits - 1;
                    match runs.last_mut() {
                        Some(run) if run.end == page => run.end += 1,
                        _ => runs.push(PageRange { start: page, end: page + 1 }),
                    }
                }
            }
        }
        Ok(runs)
    }

    /// How many pages there are tables for.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }
}

/// What the marks of a dead owner say.
pub(super) struct Marks {
    unsynced: [ZeroedTable<AtomicU64>; 2],
    lost: ZeroedTable<AtomicU64>,
}

impl Marks {
    pub(super) fn of(kept: &Kept) -> io::Result<Self> {
        let unsynced = [kept.marks(Mark::Unsynced)?, kept.marks(Mark::Syncing)?];
        Ok(Self { unsynced, lost: kept.marks(Mark::Lost)? })
    }
}

fn has(table: &[AtomicU64], page: PageIndex) -> bool {
    table[(page.0 / BITS) as usize].load(Ordering::Acquire) & (1 << (page.0 % BITS)) != 0
}

impl Legacy for Marks {
    fn is_unsynced(&self, page: PageIndex) -> bool {
        self.unsynced.iter().any(|table| has(table, page))
    }

    fn is_lost(&self, page: PageIndex) -> bool {
        has(&self.lost, page)
    }
}

/// Where an area has words and frames.
#[derive(Clone, Debug, Default)]
pub enum Storage {
    /// In memory of this process.
    #[default]
    Own,
    /// In files that can be kept. Takes small shared frames of pages that can be written.
    Kept(Kept),
    /// Likewise, in the files of an owner that has ended.
    Inherited {
        /// Its tables.
        tables: Kept,
        /// Its frame file.
        frames: Arc<OwnedFd>,
    },
}

impl Storage {
    pub(super) fn tables(&self) -> Option<&Kept> {
        match self {
            Self::Own => None,
            Self::Kept(tables) | Self::Inherited { tables, .. } => Some(tables),
        }
    }
}

impl Home {
    /// The files of an area that can be kept: of its frames, and of its tables.
    pub fn kept_files(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        match (&self.frame_file, &self.kept) {
            (Some(frames), Some(tables)) => Ok((frames.for_writing()?, tables.descriptor()?)),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Its tables, if they can be kept.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }
}
