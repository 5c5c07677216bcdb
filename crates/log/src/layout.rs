//! Where the two segments lie in the log storage: two header slots, then chunks, even ones of segment 0 and odd
//! ones of segment 1, so that both can grow.

use super::format::BLOCK_BYTES;

/// Blocks before the first chunk: the two header slots.
pub(super) const FIRST_CHUNK: u64 = 2;

/// One of the two segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Segment {
    Zero,
    One,
}

impl Segment {
    pub(super) fn other(self) -> Self {
        match self {
            Segment::Zero => Segment::One,
            Segment::One => Segment::Zero,
        }
    }

    pub(super) fn number(self) -> u32 {
        self as u32
    }

    pub(super) fn of_number(number: u32) -> Self {
        if number == 0 { Segment::Zero } else { Segment::One }
    }
}

/// A place in a segment, in blocks from the segment's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cursor {
    pub(super) segment: Segment,
    pub(super) block: u64,
}

/// Turns places in segments into blocks of the storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    chunk: u64,
}

impl Layout {
    pub(super) fn new(chunk_blocks: u32) -> Self {
        Self { chunk: u64::from(chunk_blocks) }
    }

    /// Pages that a record may hold so that it fits a chunk.
    pub(super) fn record_pages(self) -> usize {
        super::format::RECORD_PAGES.min(self.chunk as usize - 1)
    }

    /// The block of the storage at `cursor`.
    pub(super) fn block(self, cursor: Cursor) -> u64 {
        let chunk = 2 * (cursor.block / self.chunk) + u64::from(cursor.segment.number());
        FIRST_CHUNK + chunk * self.chunk + cursor.block % self.chunk
    }

    /// The segment that block `block` of the storage belongs to.
    pub(super) fn segment_of(self, block: u64) -> Segment {
        Segment::of_number(((block.saturating_sub(FIRST_CHUNK) / self.chunk) % 2) as u32)
    }

    /// The first block of the chunk after the one at `cursor`.
    pub(super) fn next_chunk(self, cursor: Cursor) -> Cursor {
        Cursor { block: (cursor.block / self.chunk + 1) * self.chunk, ..cursor }
    }

    /// The first place at or after `cursor` where `blocks` blocks lie in one chunk.
    pub(super) fn fit(self, cursor: Cursor, blocks: u64) -> Cursor {
        if cursor.block % self.chunk + blocks > self.chunk { self.next_chunk(cursor) } else { cursor }
    }

    /// The end of the chunk at `block` of a segment, or `end` if that is nearer; in blocks of the segment.
    pub(super) fn piece_end(self, block: u64, end: u64) -> u64 {
        end.min((block / self.chunk + 1) * self.chunk)
    }
}

/// The offset of a block, in bytes.
pub(super) fn offset(block: u64) -> u64 {
    block * BLOCK_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_alternate() {
        let layout = Layout::new(4);
        let at = |segment, block| layout.block(Cursor { segment, block });
        let zero: [u64; 6] = core::array::from_fn(|block| at(Segment::Zero, block as u64));
        let one: [u64; 6] = core::array::from_fn(|block| at(Segment::One, block as u64));
        assert_eq!((zero, one), ([2, 3, 4, 5, 10, 11], [6, 7, 8, 9, 14, 15]));
        assert!(zero.iter().all(|&block| layout.segment_of(block) == Segment::Zero));
        assert!(one.iter().all(|&block| layout.segment_of(block) == Segment::One));
    }

    #[test]
    fn records_do_not_cross_chunks() {
        let layout = Layout::new(4);
        let fit = |block, blocks| layout.fit(Cursor { segment: Segment::One, block }, blocks).block;
        assert_eq!((fit(1, 3), fit(2, 3), fit(4, 4), fit(5, 4)), (1, 4, 4, 8));
        assert_eq!((layout.piece_end(1, 9), layout.piece_end(8, 9)), (4, 9));
    }
}
