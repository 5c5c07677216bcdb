//! One node of the tree: 512 words of 8 bytes, and the search in it.
//!
//! ```text
//!   word 0          how many entries
//!   words 1..256    their keys, ascending; of a child the least key in it
//!   words 256..511  beside each key the page of its child or, in a leaf, its value
//!   word 511        the level: 0 is a leaf
//! ```

use crate::data::WORD_BYTES;

/// Words of a node.
pub const NODE_WORDS: usize = 512;
/// Entries of a full node.
pub const FANOUT: u64 = 255;

const COUNT: usize = 0;
const KEYS: usize = 1;
const BESIDE: usize = KEYS + FANOUT as usize;
const LEVEL: usize = NODE_WORDS - 1;

/// The words of a node, wherever they are.
pub trait Words {
    /// The word with this index, below [`NODE_WORDS`].
    fn word(&self, index: usize) -> u64;
}

/// A node as the bytes of its page.
#[cfg(feature = "ours")]
pub struct NodeBytes<'a>(pub &'a [u8]);

#[cfg(feature = "ours")]
impl Words for NodeBytes<'_> {
    #[inline]
    fn word(&self, index: usize) -> u64 {
        let start = index * WORD_BYTES as usize;
        let mut word = [0; WORD_BYTES as usize];
        word.copy_from_slice(&self.0[start..start + WORD_BYTES as usize]);
        u64::from_ne_bytes(word)
    }
}

/// What one node says about a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// It is below the node in this page, if it is anywhere.
    Child(u64),
    /// It is here, with this value.
    Value(u64),
    /// It is not in the tree.
    Absent,
}

/// Looks for `key` in one node. Any words will do: an optimistic reader may see half of one node and half of another,
/// and then throws the answer away.
#[inline]
pub fn find(words: &impl Words, key: u64) -> Found {
    let (mut low, mut high) = (0, words.word(COUNT).min(FANOUT) as usize);
    while low < high {
        let middle = usize::midpoint(low, high);
        if words.word(KEYS + middle) <= key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let Some(at) = low.checked_sub(1) else { return Found::Absent };
    let beside = words.word(BESIDE + at);
    if words.word(LEVEL) > 0 {
        Found::Child(beside)
    } else if words.word(KEYS + at) == key {
        Found::Value(beside)
    } else {
        Found::Absent
    }
}

/// The words of a node of `level` with these entries, at most [`FANOUT`], in ascending order.
pub fn build(level: u64, entries: impl Iterator<Item = (u64, u64)>) -> [u64; NODE_WORDS] {
    let mut words = [0; NODE_WORDS];
    for (at, (key, beside)) in entries.enumerate() {
        assert!(at < FANOUT as usize, "a node has at most {FANOUT} entries");
        words[KEYS + at] = key;
        words[BESIDE + at] = beside;
        words[COUNT] = at as u64 + 1;
    }
    words[LEVEL] = level;
    words
}

/// The first key of a node: word 1, and where that is in its page.
pub const FIRST_KEY_BYTES: u64 = KEYS as u64 * WORD_BYTES;

#[cfg(test)]
mod tests {
    use super::{FANOUT, Found, NODE_WORDS, Words, build, find};

    impl Words for [u64; NODE_WORDS] {
        fn word(&self, index: usize) -> u64 {
            self[index]
        }
    }

    #[test]
    fn a_leaf_has_its_keys_and_no_others() {
        for count in [0, 1, 2, 100, FANOUT] {
            let leaf = build(0, (0..count).map(|index| (10 + 2 * index, index)));
            for index in 0..count {
                assert_eq!(find(&leaf, 10 + 2 * index), Found::Value(index));
                assert_eq!(find(&leaf, 11 + 2 * index), Found::Absent);
            }
            assert_eq!(find(&leaf, 9), Found::Absent);
        }
    }

    #[test]
    fn an_inner_node_leads_to_the_child_that_has_the_key() {
        let inner = build(1, [(10, 7), (20, 8)].into_iter());
        assert_eq!(find(&inner, 9), Found::Absent);
        assert_eq!(find(&inner, 10), Found::Child(7));
        assert_eq!(find(&inner, 19), Found::Child(7));
        assert_eq!(find(&inner, u64::MAX), Found::Child(8));
    }

    #[test]
    fn words_that_are_no_node_do_no_harm() {
        find(&[u64::MAX; NODE_WORDS], 3);
        find(&[0; NODE_WORDS], 3);
    }
}
