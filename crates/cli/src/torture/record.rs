//! Records: 64 bytes that tell which record they are, how often it was written, and whether they are whole.
//!
//! ```text
//!   word   0         1      2     3         4         5      6     7
//!          sequence  index  fill  checksum  sequence  index  fill  checksum
//!          '------- copy 0 -------------'   '------- copy 1 --------------'
//! ```
//!
//! Sequence 0 is a copy that was never written, all zeros. A record lies within a page. What stores a record in
//! one step writes both copies. Stores of words can be caught between two of them, so under a promise that
//! keeps each page as it was at *some* moment they write one copy in turn, and the other one stays whole.

use super::random::mix;

/// Bytes of a record.
pub(super) const RECORD_BYTES: u64 = 64;
/// Words of a record.
pub(super) const RECORD_WORDS: usize = 8;
const COPY_WORDS: usize = 4;

/// What one copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Whole(u64),
    Torn,
}

/// How the copies of a record are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copies {
    /// Both are written in one step.
    Together,
    /// Only copy `sequence % 2` is written.
    InTurn,
}

/// One copy of record `index`, written the `sequence`-th time.
pub(super) fn copy_of(sequence: u64, index: u64) -> [u64; COPY_WORDS] {
    let fill = mix(sequence ^ mix(index));
    [sequence, index, fill, checksum(sequence, index, fill)]
}

/// Both copies, as bytes.
pub(super) fn encode(sequence: u64, index: u64) -> [u8; RECORD_BYTES as usize] {
    let mut bytes = [0; RECORD_BYTES as usize];
    let words = copy_of(sequence, index);
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words.iter().chain(&words)) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The first word that `copies` has written for `sequence`.
pub(super) fn first_word(copies: Copies, sequence: u64) -> usize {
    match copies {
        Copies::Together => 0,
        Copies::InTurn => (sequence % 2) as usize * COPY_WORDS,
    }
}

/// The sequence number of record `index`, or what is wrong with it.
pub(super) fn decode(bytes: &[u8], index: u64, copies: Copies) -> Result<u64, String> {
    let mut words = [0; RECORD_WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes"));
    }
    let contents = (content(&words[..COPY_WORDS], index), content(&words[COPY_WORDS..], index));
    match (copies, contents) {
        (Copies::Together, (Content::Whole(a), Content::Whole(b))) if a == b => Ok(a),
        (Copies::InTurn, (Content::Whole(a), Content::Whole(b))) if a.abs_diff(b) <= 1 => Ok(a.max(b)),
        (Copies::InTurn, (Content::Whole(a), Content::Torn) | (Content::Torn, Content::Whole(a))) => Ok(a),
        _ => Err(format!("torn: {words:x?}")),
    }
}

fn content(words: &[u64], index: u64) -> Content {
    if words.iter().all(|word| *word == 0) {
        return Content::Whole(0);
    }
    match *words {
        [sequence, ..] if words == copy_of(sequence, index) => Content::Whole(sequence),
        _ => Content::Torn,
    }
}

fn checksum(sequence: u64, index: u64, fill: u64) -> u64 {
    mix(mix(sequence).wrapping_add(mix(index ^ 0x5bd1).rotate_left(17)) ^ fill)
}

#[cfg(test)]
mod tests {
    use super::{Copies, copy_of, decode, encode};

    #[test]
    fn records_tell_what_they_are() {
        assert_eq!(decode(&encode(7, 3), 3, Copies::Together), Ok(7));
        assert_eq!(decode(&[0; 64], 3, Copies::Together), Ok(0));
        assert!(decode(&encode(7, 3), 4, Copies::Together).is_err());
        let mut mixed = encode(7, 3);
        mixed[..32].copy_from_slice(&encode(8, 3)[..32]);
        assert!(decode(&mixed, 3, Copies::Together).is_err());
        assert_eq!(decode(&mixed, 3, Copies::InTurn), Ok(8));
        for byte in 0..64 {
            let mut torn = encode(7, 3);
            torn[byte] ^= 1;
            assert!(decode(&torn, 3, Copies::Together).is_err(), "{byte}");
            assert_eq!(decode(&torn, 3, Copies::InTurn), Ok(7), "{byte}");
        }
        assert_ne!(copy_of(1, 2), copy_of(2, 1));
    }
}
