//! The bytes of the log: header slots and record headers, encoded and decoded. `docs/commit-log.md` has the tables.

use alloc::vec::Vec;

use twox_hash::XxHash3_64;

/// Size of a block of the log and of a page, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// Pages that one record holds at most.
pub const RECORD_PAGES: usize = (BLOCK_BYTES - ENTRIES) / ENTRY_BYTES;
/// Version of the format that this code reads and writes.
pub const VERSION: u32 = 1;
/// "No cut": a length beyond all pages.
pub(super) const NO_CUT: u64 = u64::MAX;
/// The first page index whose bytes would not fit 64 bits.
pub(super) const PAGE_LIMIT: u64 = 1 << 52;

/// The fewest and the most blocks of a chunk.
pub(super) const CHUNK_BLOCKS: core::ops::RangeInclusive<u32> = 4..=1 << 16;

const HEADER_MAGIC: [u8; 8] = *b"memobjCL";
const RECORD_MAGIC: [u8; 8] = *b"memobjCR";
const HEADER_SUM: usize = 88;
const RECORD_SUM: usize = 56;
const ENTRIES: usize = 64;
const ENTRY_BYTES: usize = 16;
const COMMITS: u32 = 1;
const ABANDONS: u32 = 2;

/// One of the two header slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogHeader {
    /// Blocks of a chunk.
    pub(super) chunk_blocks: u32,
    /// The data storage that the log belongs to.
    pub(super) identity: [u8; 16],
    /// Counts headers written; the larger of two valid ones counts, and its parity is its slot.
    pub(super) number: u64,
    /// What every record of the chain carries.
    pub(super) salt: u64,
    /// Segment of the first record, 0 or 1.
    pub(super) segment: u32,
    /// Block of the first record, inside its segment.
    pub(super) block: u64,
    /// Sequence number of the first record.
    pub(super) sequence: u64,
    /// Length of the data storage when the header was written.
    pub(super) length: u64,
    /// Cuts of records before this number are in place already, and so may be pages written after them.
    pub(super) settled: u64,
}

/// Why a block is no header slot of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderProblem {
    /// Not a header, or damaged.
    Invalid,
    /// A header of a version that this code does not know.
    Version(u32),
}

/// What a record does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    /// Its pages stay uncommitted.
    Spill,
    /// Everything pending becomes committed; the object is `length` bytes long.
    Commit {
        /// Length of the object, in bytes.
        length: u64,
    },
}

/// A page in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Index of the page.
    pub(super) page: u64,
    /// XXH3 of its image.
    pub(super) sum: u64,
}

/// The header block of a record; the images follow in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RecordHeader {
    pub(super) salt: u64,
    pub(super) sequence: u64,
    pub(super) mark: Mark,
    /// What was pending before this record is dropped first.
    pub(super) abandons: bool,
    /// Pending images of pages at or beyond this length are dropped next.
    pub(super) pending_cut: u64,
    /// Committed bytes at or beyond this length are gone once the pending images are committed.
    pub(super) committed_cut: u64,
    /// The pages, ascending.
    pub(super) entries: Vec<Entry>,
}

/// The checksum of one page image.
pub(super) fn image_sum(image: &[u8]) -> u64 {
    XxHash3_64::oneshot(image)
}

/// Another salt that no earlier record carries, but for one chance in 2^64.
pub(super) fn next_salt(salt: u64, other: u64) -> u64 {
    let mut bytes = [0; 16];
    put(&mut bytes, 0, salt);
    put(&mut bytes, 8, other);
    XxHash3_64::oneshot(&bytes)
}

fn put(block: &mut [u8], at: usize, value: u64) {
    block[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn put32(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().unwrap_or_default())
}

fn get32(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().unwrap_or_default())
}

impl LogHeader {
    /// Writes the header over `block`, which is one block long.
    pub(super) fn encode(&self, block: &mut [u8]) {
        block.fill(0);
        block[..8].copy_from_slice(&HEADER_MAGIC);
        put32(block, 8, VERSION);
        put32(block, 12, self.chunk_blocks);
        block[16..32].copy_from_slice(&self.identity);
        put(block, 32, self.number);
        put(block, 40, self.salt);
        put32(block, 48, self.segment);
        put(block, 56, self.block);
        put(block, 64, self.sequence);
        put(block, 72, self.length);
        put(block, 80, self.settled);
        let sum = XxHash3_64::oneshot(&block[..HEADER_SUM]);
        put(block, HEADER_SUM, sum);
    }

    /// Reads a header from a whole block.
    pub(super) fn decode(block: &[u8]) -> Result<Self, HeaderProblem> {
        if block.len() < BLOCK_BYTES || block[..8] != HEADER_MAGIC {
            return Err(HeaderProblem::Invalid);
        }
        match get32(block, 8) {
            VERSION => {}
            0 => return Err(HeaderProblem::Invalid),
            other => return Err(HeaderProblem::Version(other)),
        }
        let header = Self {
            chunk_blocks: get32(block, 12),
            identity: block[16..32].try_into().unwrap_or_default(),
            number: get(block, 32),
            salt: get(block, 40),
            segment: get32(block, 48),
            block: get(block, 56),
            sequence: get(block, 64),
            length: get(block, 72),
            settled: get(block, 80),
        };
        let sound = get(block, HEADER_SUM) == XxHash3_64::oneshot(&block[..HEADER_SUM])
            && CHUNK_BLOCKS.contains(&header.chunk_blocks)
            && header.segment < 2
            && header.block < u64::from(u32::MAX)
            && header.sequence < u64::MAX / 2
            && header.number < u64::MAX / 2;
        if sound { Ok(header) } else { Err(HeaderProblem::Invalid) }
    }
}

impl RecordHeader {
    /// Writes the header over `block`, which is one block long and is followed by the images.
    pub(super) fn encode(&self, block: &mut [u8]) {
        assert!(self.entries.len() <= RECORD_PAGES, "{} pages in a record", self.entries.len());
        block.fill(0);
        block[..8].copy_from_slice(&RECORD_MAGIC);
        put(block, 8, self.salt);
        put(block, 16, self.sequence);
        let (mut flags, length) = match self.mark {
            Mark::Spill => (0, 0),
            Mark::Commit { length } => (COMMITS, length),
        };
        if self.abandons {
            flags |= ABANDONS;
        }
        put32(block, 24, flags);
        put32(block, 28, self.entries.len() as u32);
        put(block, 32, self.pending_cut);
        put(block, 40, self.committed_cut);
        put(block, 48, length);
        for (index, entry) in self.entries.iter().enumerate() {
            put(block, ENTRIES + index * ENTRY_BYTES, entry.page);
            put(block, ENTRIES + index * ENTRY_BYTES + 8, entry.sum);
        }
        let end = ENTRIES + self.entries.len() * ENTRY_BYTES;
        let sum = XxHash3_64::oneshot_with_seed(self.salt, &block[..end]);
        put(block, RECORD_SUM, sum);
    }

    /// Reads a header that is `sequence` of the chain with `salt`; `None` for anything else, valid or not.
    pub(super) fn decode(block: &[u8], salt: u64, sequence: u64) -> Option<Self> {
        if block.len() < BLOCK_BYTES || block[..8] != RECORD_MAGIC {
            return None;
        }
        let count = get32(block, 28) as usize;
        if get(block, 8) != salt || get(block, 16) != sequence || count > RECORD_PAGES {
            return None;
        }
        let end = ENTRIES + count * ENTRY_BYTES;
        if !Self::sum_matches(block, salt, end) {
            return None;
        }
        let flags = get32(block, 24);
        let entry = |at: usize| Entry { page: get(block, at), sum: get(block, at + 8) };
        let record = Self {
            salt,
            sequence,
            mark: if flags & COMMITS == 0 { Mark::Spill } else { Mark::Commit { length: get(block, 48) } },
            abandons: flags & ABANDONS != 0,
            pending_cut: get(block, 32),
            committed_cut: get(block, 40),
            entries: (ENTRIES..end).step_by(ENTRY_BYTES).map(entry).collect(),
        };
        (flags & !(COMMITS | ABANDONS) == 0 && record.is_sensible()).then_some(record)
    }

    fn sum_matches(block: &[u8], salt: u64, end: usize) -> bool {
        let mut copy = [0; BLOCK_BYTES];
        copy[..end].copy_from_slice(&block[..end]);
        put(&mut copy, RECORD_SUM, 0);
        get(block, RECORD_SUM) == XxHash3_64::oneshot_with_seed(salt, &copy[..end])
    }

    /// Pages ascend, fit 64 bits of bytes, and lie below the length of a commit.
    fn is_sensible(&self) -> bool {
        let end = match self.mark {
            Mark::Spill => PAGE_LIMIT,
            Mark::Commit { length } => length.div_ceil(BLOCK_BYTES as u64).min(PAGE_LIMIT),
        };
        let ascends = self.entries.windows(2).all(|pair| pair[0].page < pair[1].page);
        ascends && self.entries.last().is_none_or(|last| last.page < end)
    }
}
