//! Memory for transfers, aligned to blocks so that a storage may go around the page cache.

use alloc::vec;
use alloc::vec::Vec;

use super::format::BLOCK_BYTES;

/// Zeroed or reused memory whose first byte is aligned to 4 KiB.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// The first `blocks` blocks, whose content is whatever was left there. Allocates only to grow.
    pub(super) fn blocks(&mut self, blocks: usize) -> &mut [u8] {
        let length = blocks * BLOCK_BYTES;
        if self.bytes.len() < self.start + length {
            self.bytes = vec![0; length + BLOCK_BYTES - 1];
            self.start = self.bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES - 1);
        }
        &mut self.bytes[self.start..self.start + length]
    }

    /// The same memory to read.
    pub(super) fn filled(&self, blocks: usize) -> &[u8] {
        &self.bytes[self.start..self.start + blocks * BLOCK_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_kept() {
        let mut buffer = Buffer::default();
        for blocks in [1, 3, 2, 17] {
            let memory = buffer.blocks(blocks);
            assert_eq!(memory.len(), blocks * BLOCK_BYTES);
            assert_eq!(memory.as_ptr() as usize % BLOCK_BYTES, 0);
        }
        let before = buffer.filled(17).as_ptr();
        assert_eq!(buffer.blocks(4).as_ptr(), before);
    }
}
