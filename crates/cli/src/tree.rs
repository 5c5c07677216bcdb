//! The BLAKE3 tree over pieces of a file that were hashed apart.
//!
//! BLAKE3 is a binary tree in which the left side of every node is the largest power of two of chunks that
//! leaves something for the right. Pieces of one power-of-two size, the last one maybe shorter, are therefore
//! whole subtrees, and any thread can hash any of them; only their joining is in order.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// The hash of one piece inside a longer file. `offset` is where the piece begins.
pub(crate) fn hash_piece(offset: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    hasher.finalize_non_root()
}

/// Joins the hashes of at least two pieces, given in order.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// The last piece given. It is kept apart because only the end of the input says what it is joined to.
    last: Option<ChainingValue>,
    /// Whole subtrees before the last piece, larger ones first: one for each bit set in `joined`.
    subtrees: Vec<ChainingValue>,
    /// How many pieces are in `subtrees`.
    joined: u64,
}

impl Tree {
    /// Adds the next piece.
    pub(crate) fn push(&mut self, piece: ChainingValue) {
        let Some(mut subtree) = self.last.replace(piece) else { return };
        self.joined += 1;
        for _ in 0..self.joined.trailing_zeros() {
            subtree = join(self.subtrees.pop(), &subtree);
        }
        self.subtrees.push(subtree);
    }

    /// The digest of the whole input. Preconditions: two pieces or more were pushed.
    pub(crate) fn finish(mut self) -> Hash {
        let mut right = self.last.expect("two pieces or more were pushed");
        while self.subtrees.len() > 1 {
            right = join(self.subtrees.pop(), &right);
        }
        let left = self.subtrees.pop().expect("two pieces or more were pushed");
        merge_subtrees_root(&left, &right, Mode::Hash)
    }
}

fn join(left: Option<ChainingValue>, right: &ChainingValue) -> ChainingValue {
    let left = left.expect("the stack has a subtree for every set bit of the count");
    merge_subtrees_non_root(&left, right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::{Tree, hash_piece};

    #[test]
    fn any_number_of_pieces_gives_the_digest_of_the_whole() {
        let bytes: Vec<u8> =
            (0..70 * 4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for pieces in 2..=69 {
            for tail in [1, 1000, 1024, 1025, 4096] {
                let input = &bytes[..(pieces - 1) * 4096 + tail];
                let mut tree = Tree::default();
                for (index, piece) in input.chunks(4096).enumerate() {
                    tree.push(hash_piece(index as u64 * 4096, piece));
                }
                assert_eq!(tree.finish(), blake3::hash(input), "{pieces} pieces, the last of {tail} bytes");
            }
        }
    }
}
