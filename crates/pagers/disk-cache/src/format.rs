//! A block file: the data, and behind it a footer that says what it is.
//!
//! ```text
//!   offset     bytes
//!   0          n     data
//!   n          8     "memobjDC"
//!   n + 8      4     format: 1
//!   n + 12     4     zero
//!   n + 16    32     digest of key, version, length and size of blocks
//!   n + 48     8     number of the block
//!   n + 56     8     n
//!   n + 64     8     XXH3-64 of the data
//!   n + 72     8     XXH3-64 of the 72 bytes before
//! ```
//!
//! Numbers are little endian. The footer comes last so that data starts at a page of the file, as the page cache has it.
//!
//! A file is right if its footer is exactly the one that the reader would write: every field is compared, and no file
//! that belongs elsewhere passes. 64 bits of checksum are enough against accidents: of 2^64 damaged blocks one passes. They
//! are none against somebody who may write the directory: that is the user alone.

use twox_hash::XxHash3_64;

use crate::identity::BlockId;

/// Bytes behind the data.
pub(crate) const FOOTER_BYTES: usize = 80;
const MAGIC: &[u8; 8] = b"memobjDC";
const FORMAT: u32 = 1;
/// What file systems hand out.
const UNIT: u64 = 4096;

pub(crate) type Footer = [u8; FOOTER_BYTES];

/// The footer of block `id` with these bytes.
pub(crate) fn footer(id: &BlockId, data: &[u8]) -> Footer {
    let mut footer = [0; FOOTER_BYTES];
    let (fields, checksum) = footer.split_at_mut(72);
    fields[..8].copy_from_slice(MAGIC);
    fields[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    fields[16..48].copy_from_slice(id.digest.bytes());
    fields[48..56].copy_from_slice(&id.number.to_le_bytes());
    fields[56..64].copy_from_slice(&(data.len() as u64).to_le_bytes());
    fields[64..72].copy_from_slice(&XxHash3_64::oneshot(data).to_le_bytes());
    checksum.copy_from_slice(&XxHash3_64::oneshot(fields).to_le_bytes());
    footer
}

/// Whether `data` and `read` are those of block `id`.
pub(crate) fn is_right(id: &BlockId, data: &[u8], read: &Footer) -> bool {
    data.len() as u64 == id.length && footer(id, data) == *read
}

/// Bytes of the file of a block.
pub(crate) fn file_bytes(data_bytes: u64) -> u64 {
    data_bytes.saturating_add(FOOTER_BYTES as u64)
}

/// What a file of `bytes` counts in the budget.
pub(crate) fn charge(bytes: u64) -> u64 {
    bytes.max(1).checked_next_multiple_of(UNIT).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Blocks;

    fn id(number: u64, length: u64) -> BlockId {
        BlockId { length, ..Blocks::new("key", "version", 1 << 30, 65536).id(number) }
    }

    proptest! {
        #[test]
        fn what_was_written_is_right_and_nothing_else(
            data in proptest::collection::vec(any::<u8>(), 1..5000), number in 0_u64..16384,
            at in any::<prop::sample::Index>(), bit in 0_u32..8,
        ) {
            let id = id(number, data.len() as u64);
            let good = footer(&id, &data);
            prop_assert!(is_right(&id, &data, &good));
            let mut file = [&data[..], &good].concat();
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            let (bad_data, bad_footer) = file.split_at(data.len());
            prop_assert!(!is_right(&id, bad_data, bad_footer.try_into().unwrap()));
            let other_number = BlockId { number: number + 1, ..id.clone() };
            prop_assert!(!is_right(&other_number, &data, &good));
            let other_version = BlockId { digest: Blocks::new("key", "w", 1, 65536).id(0).digest, ..id.clone() };
            prop_assert!(!is_right(&other_version, &data, &good));
            prop_assert!(!is_right(&id, &data[1..], &good));
        }
    }

    /// Files of other versions of this crate read these bytes: they change only with the format's number.
    #[test]
    fn the_format_is_fixed() {
        let footer = footer(&id(7, 3), b"abc");
        assert_eq!(&footer[..16], b"memobjDC\x01\0\0\0\0\0\0\0");
        assert_eq!(footer[48..56], 7_u64.to_le_bytes());
        assert_eq!(footer[56..64], 3_u64.to_le_bytes());
        assert_eq!(footer[64..72], 0x78af_5f94_892f_3950_u64.to_le_bytes(), "XXH3-64 of abc");
    }

    #[test]
    fn charges_are_whole_pages() {
        assert_eq!((charge(0), charge(1), charge(4096), charge(4097)), (4096, 4096, 4096, 8192));
        assert_eq!((charge(u64::MAX), file_bytes(u64::MAX)), (u64::MAX, u64::MAX));
    }
}
