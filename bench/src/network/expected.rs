//! What the blocks of the object must hold.

use crate::data::{WORD_BYTES, check_word, expected_sum};
use crate::job::Failure;

/// The sums of all words of each block. They are made before the measured phase, so that only bytes are added up in it.
pub struct Expected {
    block_bytes: u64,
    sums: Vec<u64>,
}

impl Expected {
    /// Of an object of `length_bytes` in blocks of `block_bytes`; both are whole numbers of words.
    pub fn new(length_bytes: u64, block_bytes: u64) -> Self {
        let words = |start: u64| start / WORD_BYTES..(start + block_bytes).min(length_bytes) / WORD_BYTES;
        let sums = (0..length_bytes).step_by(block_bytes as usize).map(|start| expected_sum(words(start), 1));
        Self { block_bytes, sums: sums.collect() }
    }

    /// Compares the bytes of a block with what they must be.
    pub fn check(&self, start_bytes: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.check_sum(start_bytes, sum(bytes))
    }

    /// The same of a sum of its words.
    pub fn check_sum(&self, start_bytes: u64, found: u64) -> Result<(), Failure> {
        let expected = self.sums.get((start_bytes / self.block_bytes) as usize);
        if expected == Some(&found) {
            return Ok(());
        }
        Err(Failure::WrongData(format!("the block at byte {start_bytes:#x} has another sum")))
    }
}

/// The wrapping sum of all words.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(WORD_BYTES as usize).fold(0, |sum, word| sum.wrapping_add(word_of(word)))
}

fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD_BYTES as usize];
    word.copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}

/// Compares each word of a page, or of anything short, that begins at `start_bytes`.
pub fn check_page(start_bytes: u64, bytes: &[u8]) -> Result<(), Failure> {
    let words = bytes.chunks_exact(WORD_BYTES as usize).zip(start_bytes / WORD_BYTES..);
    words.into_iter().try_for_each(|(word, index)| check_word(index, word_of(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    #[test]
    fn another_block_or_a_changed_one_is_noticed() {
        let (mut bytes, expected) = (data::bytes(10_000), Expected::new(10_000, 4096));
        let blocks = |bytes: &[u8]| -> Vec<bool> {
            let starts = (0..).step_by(4096);
            starts
                .zip(bytes.chunks(4096))
                .map(|(start, block)| expected.check(start, block).is_ok())
                .collect()
        };
        assert_eq!(blocks(&bytes), [true, true, true]);
        assert!(expected.check(0, &bytes[4096..8192]).is_err());
        bytes[5000] ^= 1;
        assert_eq!(blocks(&bytes), [true, false, true]);
        assert!(check_page(0, &bytes[..4096]).is_ok() && check_page(4096, &bytes[4096..]).is_err());
    }
}
