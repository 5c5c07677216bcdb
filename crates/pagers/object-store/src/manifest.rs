//! Digests of an object's blocks, and the file that has them.
//!
//! ```text
//!   offset   bytes
//!        0      16   "memobj manifest\n"
//!       16       8   bytes of a block, little endian; a power of two of at least 1024
//!       24       8   bytes of the object, little endian
//!       32      32   the root: the BLAKE3 of the object
//!       64   32 * n  the digest of each block, in order
//! ```
//!
//! Binary, since an object of 1 TiB has a million blocks: 32 MiB here, and twice that with numbers as text. Damage of
//! the file is noticed, because the root is computed from the digests; and the root is what `b3sum` prints of the object,
//! so that it can be compared with what was published.

use std::error::Error;
use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Range;

use crate::tree;

const MAGIC: &[u8; 16] = b"memobj manifest\n";
/// The smallest block: a chunk of BLAKE3.
const SMALLEST_BLOCK: u64 = 1024;
/// So much is read at once when a manifest is made.
const PIECE: usize = 64 << 10;

type Digest = [u8; 32];

/// Digests of an object's blocks. Takes 32 bytes of memory for each block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    block_bytes: u64,
    length: u64,
    root: Digest,
    digests: Vec<Digest>,
}

/// Why a manifest was not made or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManifestError {
    /// The object or the file could not be read.
    Read(io::Error),
    /// The block is not a power of two of at least 1 KiB.
    Block(u64),
    /// The file is no manifest, is damaged, or ends early.
    Damaged(&'static str),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(_) => f.write_str("read for a manifest"),
            Self::Block(bytes) => {
                write!(
                    f,
                    "a block of a manifest has {bytes} bytes, which is no power of two of at least 1024"
                )
            }
            Self::Damaged(what) => write!(f, "not a manifest: {what}"),
        }
    }
}

impl Error for ManifestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Block(_) | Self::Damaged(_) => None,
        }
    }
}

impl From<io::Error> for ManifestError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends early"),
            _ => Self::Read(error),
        }
    }
}

impl Manifest {
    /// Reads all of an object and makes its manifest. `block_bytes` is a power of two of at least 1 KiB; the pager's block
    /// is the best choice.
    ///
    /// # Errors
    ///
    /// If the object cannot be read, or for another block.
    pub fn make(mut object: impl Read, block_bytes: u64) -> Result<Self, ManifestError> {
        check_block(block_bytes)?;
        let (mut digests, mut length) = (Vec::new(), 0);
        let mut first = None;
        loop {
            let mut hasher = tree::block_hasher(length);
            let count = hash_some(&mut object, block_bytes, &mut hasher)?;
            if count == 0 {
                break;
            }
            digests.push(tree::block_digest(&hasher, false));
            first.get_or_insert(hasher);
            length += count;
            if count < block_bytes {
                break;
            }
        }
        // Whether the first block is the only one is known at the end.
        if let (Some(alone), [digest]) = (&first, digests.as_mut_slice()) {
            *digest = tree::block_digest(alone, true);
        }
        Ok(Self { block_bytes, length, root: tree::root(&digests), digests })
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is damaged.
    pub fn read_from(mut file: impl Read) -> Result<Self, ManifestError> {
        let mut head = [[0; 8]; 2];
        let (mut magic, mut root) = ([0; 16], [0; 32]);
        file.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(ManifestError::Damaged("it does not begin as one"));
        }
        for number in &mut head {
            file.read_exact(number)?;
        }
        file.read_exact(&mut root)?;
        let [block_bytes, length] = head.map(u64::from_le_bytes);
        check_block(block_bytes)?;
        let digests = read_digests(&mut file, length.div_ceil(block_bytes))?;
        if tree::root(&digests) != root {
            return Err(ManifestError::Damaged("its root is not that of its digests"));
        }
        Ok(Self { block_bytes, length, root, digests })
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// What `file` says.
    pub fn write_to(&self, mut file: impl Write) -> io::Result<()> {
        file.write_all(MAGIC)?;
        file.write_all(&self.block_bytes.to_le_bytes())?;
        file.write_all(&self.length.to_le_bytes())?;
        file.write_all(&self.root)?;
        self.digests.iter().try_for_each(|digest| file.write_all(digest))?;
        file.flush()
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// Bytes of the object.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The BLAKE3 of the object.
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// The whole blocks that `range` is in.
    pub(crate) fn covering(&self, range: &Range<u64>) -> Range<u64> {
        let start = range.start / self.block_bytes * self.block_bytes;
        let end = range.end.div_ceil(self.block_bytes).saturating_mul(self.block_bytes);
        start..end.min(self.length)
    }

    /// Checks bytes that begin at `offset`, which is the start of a block.
    pub(crate) fn check_from(&self, offset: u64) -> Check<'_> {
        Check { manifest: self, at: offset, hasher: tree::block_hasher(offset), is_wrong: false }
    }
}

fn check_block(block_bytes: u64) -> Result<(), ManifestError> {
    match block_bytes.is_power_of_two() && block_bytes >= SMALLEST_BLOCK {
        true => Ok(()),
        false => Err(ManifestError::Block(block_bytes)),
    }
}

/// Hashes up to `most` bytes; how many there were.
fn hash_some(object: &mut impl Read, most: u64, hasher: &mut blake3::Hasher) -> io::Result<u64> {
    let (mut piece, mut rest, mut count) = (vec![0; PIECE], object.take(most), 0);
    loop {
        match rest.read(&mut piece) {
            Ok(0) => return Ok(count),
            Ok(got) => {
                let bytes = piece.get(..got).unwrap_or_default();
                hasher.update(bytes);
                count += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// As many digests, and nothing behind them. Memory grows with what is read, not with what is claimed.
fn read_digests(file: &mut impl Read, count: u64) -> Result<Vec<Digest>, ManifestError> {
    let mut digests = Vec::new();
    for _ in 0..count {
        let mut digest = [0; 32];
        file.read_exact(&mut digest)?;
        digests.push(digest);
    }
    match file.read(&mut [0])? {
        0 => Ok(digests),
        _ => Err(ManifestError::Damaged("it is too long")),
    }
}

/// Compares bytes with a manifest as they come.
pub(crate) struct Check<'a> {
    manifest: &'a Manifest,
    at: u64,
    hasher: blake3::Hasher,
    is_wrong: bool,
}

/// The digest of this block is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WrongDigest(pub(crate) u64);

impl Check<'_> {
    /// The next bytes. Bytes are right once the end of their block was reached without an error.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), WrongDigest> {
        let block = self.manifest.block_bytes;
        while !bytes.is_empty() {
            let end = (self.at / block * block).saturating_add(block).min(self.manifest.length);
            let left = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            if left == 0 {
                return Err(self.wrong());
            }
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            self.hasher.update(now);
            self.at += u64::try_from(now.len()).unwrap_or(u64::MAX);
            if self.at == end {
                self.end_block(end)?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn end_block(&mut self, end: u64) -> Result<(), WrongDigest> {
        let digests = &self.manifest.digests;
        let index = usize::try_from((end - 1) / self.manifest.block_bytes).unwrap_or(usize::MAX);
        let digest = tree::block_digest(&self.hasher, digests.len() == 1);
        if digests.get(index) != Some(&digest) {
            return Err(self.wrong());
        }
        if end < self.manifest.length {
            self.hasher = tree::block_hasher(end);
        }
        Ok(())
    }

    fn wrong(&mut self) -> WrongDigest {
        self.is_wrong = true;
        WrongDigest(self.at.saturating_sub(1) / self.manifest.block_bytes)
    }

    /// Whether a digest was wrong.
    pub(crate) fn is_wrong(&self) -> bool {
        self.is_wrong
    }
}

#[cfg(test)]
mod tests;
