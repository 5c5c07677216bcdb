//! A file of records, mapped: what the worker stores into and the parent reads from.

use std::path::Path;
use std::time::Duration;

use memobj::{Cache, CacheOptions, FrameSize, MapOptions, Mapping, MemoryObject, ObjectOptions, Writing};

use super::record::{Copies, RECORD_BYTES, RECORD_WORDS, copy_of, encode, first_word};
use crate::failure::{Failure, failure};
use crate::options::Delivery;
use crate::target::commit;
use crate::write_args::{Promise, Way};

/// How long the kernel may take to let go of the file of a process that was killed.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The records of one file.
#[derive(Debug)]
pub(super) struct RecordFile {
    pub(super) mapping: Mapping,
    object: MemoryObject,
    way: Way,
    copies: Copies,
}

/// How the copies of records are kept under `promise` and by `way`.
pub(super) fn copies_of(promise: Promise, way: Way) -> Copies {
    match (promise, way) {
        (Promise::Sync, Way::SharedWords) => Copies::InTurn,
        _ => Copies::Together,
    }
}

impl RecordFile {
    /// Opens the file; what a killed process left of a commit is settled then.
    pub(super) fn open(
        path: &Path,
        promise: Promise,
        way: Way,
        delivery: Delivery,
        budget_bytes: u64,
    ) -> Result<Self, Failure> {
        let cache = Cache::new(CacheOptions::new().budget_bytes(budget_bytes)).map_err(failure)?;
        let writing = match promise {
            Promise::Sync => Writing::InPlace,
            Promise::Commit => Writing::Atomic,
        };
        let frames = FrameSize::Small;
        let options = ObjectOptions::new().writing(writing).frames(frames).lock_timeout(LOCK_TIMEOUT);
        let object = cache.open_file(path, options).map_err(failure)?;
        let delivery = crate::engine::delivery(delivery);
        let options = MapOptions::new().delivery(delivery);
        let mapping = object.map(0..object.len(), options).map_err(failure)?;
        Ok(Self { mapping, object, way, copies: copies_of(promise, way) })
    }

    /// How many records there are.
    pub(super) fn records(&self) -> u64 {
        self.mapping.len() / RECORD_BYTES
    }

    /// Stores record `index`.
    pub(super) fn put(&self, index: u64, sequence: u64) -> Result<(), Failure> {
        let at = index * RECORD_BYTES;
        match self.way {
            Way::WriteAt => self.mapping.write_at(at, &encode(sequence, index)).map_err(failure),
            Way::PinMut => {
                let mut pinned = self.mapping.pin_mut(at..at + RECORD_BYTES).map_err(failure)?;
                pinned.copy_from_slice(&encode(sequence, index));
                Ok(())
            }
            Way::SharedWords => self.put_words(index, sequence),
        }
    }

    fn put_words(&self, index: u64, sequence: u64) -> Result<(), Failure> {
        let words = self.mapping.shared_words().map_err(failure)?;
        let record = index * RECORD_WORDS as u64;
        let first = first_word(self.copies, sequence);
        let copy = copy_of(sequence, index);
        let end = if self.copies == Copies::Together { RECORD_WORDS } else { first + copy.len() };
        for word in first..end {
            words.store(record + word as u64, copy[word % copy.len()]);
        }
        Ok(())
    }

    /// Makes the records of bytes `range` durable.
    pub(super) fn sync(&self, range: std::ops::Range<u64>) -> Result<(), Failure> {
        self.mapping.sync(range).map_err(failure)
    }

    /// Makes all records durable together.
    pub(super) fn commit(&self) -> Result<(), Failure> {
        commit(&self.object)
    }

    /// All bytes, as they are mapped.
    pub(super) fn read(&self) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; self.mapping.len() as usize];
        self.mapping.read_at(0, &mut bytes).map_err(failure)?;
        Ok(bytes)
    }
}
