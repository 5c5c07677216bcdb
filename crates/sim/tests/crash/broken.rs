//! Storages that break the protocol on purpose.

use memobj_core::address::ByteRange;
use memobj_log::{BLOCK_BYTES, Reserved, Storage};
use memobj_sim::storage::{File, SimError};
use twox_hash::XxHash3_64;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    /// Commits are not synced.
    NoLogSync,
    /// The space of a checkpoint is free before its pages are durable.
    NoDataSync,
    /// A failed sync of the log counts as a good one.
    LogSyncErrorIgnored,
    /// A failed sync in place counts as a good one.
    DataSyncErrorIgnored,
    /// Room in place is not obtained before the commit.
    NoReserve,
    /// Images are taken without looking at their checksums.
    NoChecksum,
    /// The mark of a commit is durable before its pages are, in a log without checksums of pages.
    MarkBeforePages,
    /// Pages are copied in place but for their last sector.
    ShortWrite,
    /// What was cut off is there again when the object grows.
    NoZero,
}

impl Canary {
    pub const ALL: [Canary; 9] = [
        Canary::NoLogSync,
        Canary::NoDataSync,
        Canary::LogSyncErrorIgnored,
        Canary::DataSyncErrorIgnored,
        Canary::NoReserve,
        Canary::NoChecksum,
        Canary::MarkBeforePages,
        Canary::ShortWrite,
        Canary::NoZero,
    ];
}

/// Which of the two files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Log,
    Data,
}

/// A file that keeps the contract, but for what `canary` says.
#[derive(Clone, Debug)]
pub struct Broken {
    pub file: File,
    pub role: Role,
    pub canary: Option<Canary>,
}

impl Broken {
    fn is(&self, role: Role, canary: Canary) -> bool {
        self.role == role && self.canary == Some(canary)
    }

    /// Makes the checksums of a record header fit whatever images follow.
    fn forge(&self, offset: u64, head: &mut [u8]) -> Result<(), SimError> {
        if head.len() != BLOCK_BYTES || &head[..8] != b"memobjCR" {
            return Ok(());
        }
        let word = |head: &[u8], at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let count = (word(head, 24) >> 32) as usize;
        for entry in 0..count {
            let mut image = vec![0; BLOCK_BYTES];
            let at = offset + ((entry + 1) * BLOCK_BYTES) as u64;
            if at + BLOCK_BYTES as u64 > self.file.length()? {
                return Ok(());
            }
            self.file.read_at(at, &mut image)?;
            head[64 + entry * 16 + 8..][..8].copy_from_slice(&XxHash3_64::oneshot(&image).to_le_bytes());
        }
        head[56..64].fill(0);
        let sum = XxHash3_64::oneshot_with_seed(word(head, 8), &head[..64 + count * 16]);
        head[56..64].copy_from_slice(&sum.to_le_bytes());
        Ok(())
    }
}

impl Storage for Broken {
    type Error = SimError;

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), SimError> {
        self.file.read_at(offset, into)?;
        let is_forged = self.is(Role::Log, Canary::NoChecksum) || self.is(Role::Log, Canary::MarkBeforePages);
        if is_forged { self.forge(offset, into) } else { Ok(()) }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SimError> {
        if self.is(Role::Data, Canary::ShortWrite) {
            return self.file.write_at(offset, &bytes[..bytes.len().saturating_sub(512)]);
        }
        if self.is(Role::Log, Canary::MarkBeforePages) && bytes.len() > BLOCK_BYTES {
            self.file.write_at(offset, &bytes[..BLOCK_BYTES])?;
            self.file.sync()?;
            return self.file.write_at(offset + BLOCK_BYTES as u64, &bytes[BLOCK_BYTES..]);
        }
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> Result<(), SimError> {
        if self.is(Role::Log, Canary::NoLogSync) || self.is(Role::Data, Canary::NoDataSync) {
            return Ok(());
        }
        let synced = self.file.sync();
        let is_ignored = self.is(Role::Log, Canary::LogSyncErrorIgnored)
            || self.is(Role::Data, Canary::DataSyncErrorIgnored);
        if is_ignored && synced == Err(SimError::Io) { Ok(()) } else { synced }
    }

    fn length(&self) -> Result<u64, SimError> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> Result<(), SimError> {
        self.file.set_length(length)
    }

    fn reserve(&self, range: ByteRange) -> Result<Reserved, SimError> {
        if self.is(Role::Data, Canary::NoReserve) {
            return Ok(Reserved::Already);
        }
        self.file.reserve(range)
    }

    fn zero(&self, range: ByteRange) -> Result<(), SimError> {
        if self.is(Role::Data, Canary::NoZero) { Ok(()) } else { self.file.zero(range) }
    }
}
