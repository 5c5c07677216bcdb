//! Which object, which version, which block: names that cannot be confused.

use std::fmt::Write;
use std::ops::Range;

/// The least block that is kept. A file for each 4 KiB would cost more in names than in bytes.
pub(crate) const LEAST_BLOCK: u64 = 64 << 10;

/// Says which bytes: BLAKE3 of the key, the version, the length and the size of blocks.
///
/// It is a cryptographic digest, since keys and versions come from servers: no server can choose an ETag with which its
/// bytes are found under the name of another object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ObjectDigest([u8; 32]);

impl ObjectDigest {
    pub(crate) fn of(key: &str, version: &str, length: u64, block_bytes: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("memobj disk cache: object, format 1");
        for text in [key, version] {
            // With its length, so that no other pair of texts reads the same.
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&length.to_le_bytes());
        hasher.update(&block_bytes.to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The folder of its blocks: `aa/` and 62 digits.
    pub(crate) fn folder(&self) -> String {
        let mut name = String::with_capacity(65);
        for (index, byte) in self.0.iter().enumerate() {
            if index == 1 {
                name.push('/');
            }
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

/// The blocks of one version of an object.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    digest: ObjectDigest,
    folder: String,
    length: u64,
    block_bytes: u64,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BlockId {
    pub(crate) digest: ObjectDigest,
    pub(crate) number: u64,
    /// Bytes of its data.
    pub(crate) length: u64,
    /// Its file, relative to the directory.
    pub(crate) path: String,
}

impl Blocks {
    /// `block_bytes` is a power of two.
    pub(crate) fn new(key: &str, version: &str, length: u64, block_bytes: u64) -> Self {
        let digest = ObjectDigest::of(key, version, length, block_bytes);
        Self { digest, folder: digest.folder(), length, block_bytes }
    }

    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// Bytes of the object.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// The blocks that `range` touches.
    pub(crate) fn touched(&self, range: &Range<u64>) -> Range<u64> {
        if range.is_empty() {
            return 0..0;
        }
        range.start / self.block_bytes..range.end.div_ceil(self.block_bytes)
    }

    /// The bytes of `numbers`.
    pub(crate) fn bytes_of(&self, numbers: Range<u64>) -> Range<u64> {
        let offset = |number: u64| number.saturating_mul(self.block_bytes).min(self.length);
        offset(numbers.start)..offset(numbers.end)
    }

    pub(crate) fn id(&self, number: u64) -> BlockId {
        let bytes = self.bytes_of(number..number.saturating_add(1));
        let path = format!("{}/{number}", self.folder);
        BlockId { digest: self.digest, number, length: bytes.end - bytes.start, path }
    }
}

/// What `one` and `other` have in common.
pub(crate) fn common(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    let start = one.start.max(other.start);
    start..one.end.min(other.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_gives_another_digest() {
        let of = ObjectDigest::of;
        let all = [
            of("key", "version", 10, 65536),
            of("keyv", "ersion", 10, 65536),
            of("key", "version2", 10, 65536),
            of("key", "version", 11, 65536),
            of("key", "version", 10, 131_072),
            of("", "keyversion", 10, 65536),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| one != other));
        }
        let folder = all[0].folder();
        assert_eq!((folder.len(), folder.find('/')), (65, Some(2)));
    }

    #[test]
    fn the_last_block_ends_with_the_object() {
        let blocks = Blocks::new("key", "version", 3 * 65536 + 5, 65536);
        assert_eq!(blocks.touched(&(65535..65537)), 0..2);
        assert_eq!(blocks.touched(&(65536..131_072)), 1..2);
        assert_eq!(blocks.touched(&(5..5)), 0..0);
        assert_eq!(blocks.bytes_of(3..4), 3 * 65536..3 * 65536 + 5);
        assert_eq!(blocks.id(3).length, 5);
        assert!(blocks.id(3).path.ends_with("/3"));
        assert_eq!(common(&(0..10), &(20..30)), 20..20);
    }
}
