//! Digests of blocks that are parts of the BLAKE3 tree of the whole.
//!
//! ```text
//!   root = the BLAKE3 of the object: what b3sum and `memobj hash` print
//!    /          \
//!   o            o          left subtrees have as many blocks as a power of two
//!  / \          / \
//! 0   1        2   3        digests of blocks: chaining values of the tree
//! ```
//!
//! BLAKE3 specification, 2.1 "Tree structure".

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// A hasher for the block that begins at `offset` of its object.
pub(crate) fn block_hasher(offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// The digest of a block. `is_alone` if the object has only this one, whose digest is the root then.
pub(crate) fn block_digest(hasher: &Hasher, is_alone: bool) -> ChainingValue {
    if is_alone { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() }
}

/// The root over the digests of all blocks.
pub(crate) fn root(blocks: &[ChainingValue]) -> ChainingValue {
    match blocks {
        [] => *blake3::hash(&[]).as_bytes(),
        [alone] => *alone,
        _ => {
            let (left, right) = halves(blocks);
            *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    }
}

fn subtree(blocks: &[ChainingValue]) -> ChainingValue {
    match blocks {
        [] => [0; 32],
        [alone] => *alone,
        _ => {
            let (left, right) = halves(blocks);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The left half is the largest power of two that leaves something for the right one.
fn halves(blocks: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    let left = blocks.len().div_ceil(2).next_power_of_two();
    blocks.split_at_checked(left).unwrap_or((blocks, &[]))
}
