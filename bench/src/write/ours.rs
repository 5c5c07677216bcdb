//! The contestants of this project in `write`. The only file of it that knows the library's interface.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use memobj::{
    Advice, Cache, CacheOptions, Delivery, FrameSize, MapOptions, Mapping, MemoryObject, ObjectOptions,
    Writing,
};

use super::job::{WriteJob, WritePattern};
use super::patterns;
use super::storage::Storage;
use crate::data::PAGE_BYTES;
use crate::job::{Failure, Sample};

/// One contestant: its name, the patterns it meets, and how it is measured.
pub type Entry = (&'static str, &'static [WritePattern], fn(&WriteJob) -> Result<Sample, Failure>);

/// All of them.
pub const CONTESTANTS: &[Entry] = &[
    ("ours-inthread", &[WritePattern::Rmw, WritePattern::Seqwrite, WritePattern::Commit], in_thread),
    ("ours-reader", &[WritePattern::Rmw, WritePattern::Seqwrite], reader),
    ("ours-copy", &[WritePattern::Rmw, WritePattern::Seqwrite, WritePattern::Commit], copy),
];

/// Sets up the contestant that the job names and runs the pattern.
pub fn measure(job: &WriteJob) -> Result<Sample, Failure> {
    let named = CONTESTANTS.iter().find(|(name, ..)| *name == job.contestant);
    let (.., measure) =
        named.ok_or_else(|| Failure::Failed(format!("no contestant {:?}", job.contestant)))?;
    measure(job)
}

fn in_thread(job: &WriteJob) -> Result<Sample, Failure> {
    patterns::on_storage::<Ours>(job, setup(job, Delivery::InThread, Reach::Touch))
}

fn reader(job: &WriteJob) -> Result<Sample, Failure> {
    patterns::on_storage::<Ours>(job, setup(job, Delivery::ReaderThread, Reach::Touch))
}

fn copy(job: &WriteJob) -> Result<Sample, Failure> {
    patterns::on_storage::<Ours>(job, setup(job, Delivery::InThread, Reach::Copy))
}

fn setup(job: &WriteJob, delivery: Delivery, reach: Reach) -> Setup {
    let (writing, advice) = match job.pattern {
        WritePattern::Rmw => (Writing::InPlace, Advice::Random),
        WritePattern::Seqwrite => (Writing::InPlace, Advice::Sequential),
        WritePattern::Commit => (Writing::Atomic, Advice::Random),
    };
    Setup { delivery, reach, writing, advice }
}

/// How words are loaded and stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Through the mapping, which may fault.
    Touch,
    /// By the library's calls, which copy.
    Copy,
}

struct Setup {
    delivery: Delivery,
    reach: Reach,
    writing: Writing,
    advice: Advice,
}

/// A mapped object in a cache of the job's budget.
struct Ours {
    cache: Cache,
    object: MemoryObject,
    mapping: Mapping,
    reach: Reach,
}

impl Storage for Ours {
    type Setup = Setup;

    fn open(path: &Path, budget_bytes: u64, setup: Setup) -> Result<Self, Failure> {
        let cache = Cache::new(CacheOptions::new().budget_bytes(budget_bytes)).map_err(failed)?;
        let options = ObjectOptions::new().frames(FrameSize::Small).writing(setup.writing);
        let object = cache.open_file(path, options).map_err(failed)?;
        let options = MapOptions::new().delivery(setup.delivery);
        let mapping = object.map(0..object.len(), options).map_err(failed)?;
        mapping.advise(0..object.len(), setup.advice).map_err(failed)?;
        Ok(Self { cache, object, mapping, reach: setup.reach })
    }

    fn populate(&self, range: Range<u64>) -> Result<(), Failure> {
        self.mapping.populate(range).map_err(failed)
    }

    fn add_one(&self, word_index: u64) -> Result<u64, Failure> {
        if self.reach == Reach::Touch {
            let words = self.mapping.shared_words().map_err(failed)?;
            let old = words.load(word_index);
            words.store(word_index, old.wrapping_add(1));
            return Ok(old);
        }
        let (at, mut bytes) = (word_index * 8, [0; 8]);
        self.mapping.read_at(at, &mut bytes).map_err(failed)?;
        let old = u64::from_le_bytes(bytes);
        self.mapping.write_at(at, &old.wrapping_add(1).to_le_bytes()).map_err(failed)?;
        Ok(old)
    }

    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Failure> {
        if self.reach == Reach::Copy || !(bytes.len() as u64).is_multiple_of(PAGE_BYTES) {
            return self.mapping.write_at(offset_bytes, bytes).map_err(failed);
        }
        let words = self.mapping.shared_words().map_err(failed)?;
        for (index, word) in (offset_bytes / 8..).zip(bytes.chunks_exact(8)) {
            let mut value = [0; 8];
            value.copy_from_slice(word);
            words.store(index, u64::from_le_bytes(value));
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Failure> {
        self.object.sync().map_err(failed)
    }

    fn commit(&self) -> Result<(), Failure> {
        self.object.commit().map_err(failed)
    }

    fn peak_frame_bytes(&self) -> Option<u64> {
        Some(self.cache.metrics().peak_frame_bytes)
    }
}

fn failed(error: impl Display) -> Failure {
    Failure::Failed(error.to_string())
}
