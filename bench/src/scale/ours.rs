//! The contestants of this project.

use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;

use memobj::pagers::{Blocking, BlockingPager};
use memobj::{
    Advice, Cache, CacheOptions, Delivery, FrameSize, MapOptions, Mapping, MemoryObject, ObjectOptions,
    SupplyError,
};

use super::access::{self, Object};
use super::bytes::Bytes;
use super::job::{Part, ScaleJob};
use super::objects::{self, Objects};
use crate::data::{PAGE_BYTES, PAGE_WORDS, WORD_BYTES, expected_word};
use crate::job::{Failure, Sample};

/// Words computed from their index, without a file.
struct Computed {
    length: u64,
}

impl BlockingPager for Computed {
    fn length(&self) -> u64 {
        self.length
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        let words = buffer.as_chunks_mut::<{ WORD_BYTES as usize }>().0;
        for (index, bytes) in (range.start / WORD_BYTES..).zip(words) {
            *bytes = expected_word(index).to_ne_bytes();
        }
        Ok(buffer.len())
    }

    fn is_immutable(&self) -> bool {
        true
    }
}

/// How a word is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Pin,
    Touch,
}

/// Runs the contestant that the job names: `ours-pin`, `ours-touch`, with `-computed` behind it if no file has the
/// bytes; of many objects `ours-file`, `ours-computed`.
pub fn measure(job: &ScaleJob) -> Result<Sample, Failure> {
    let computed = job.contestant.ends_with("-computed");
    let bytes = if computed { Bytes::Computed } else { Bytes::sparse(job.object_bytes) };
    match (job.part, job.contestant.trim_end_matches("-computed")) {
        (Part::Objects, _) => objects::run(job, |job| Many::none(job, computed)),
        (Part::Access, "ours-pin") => access::run(job, bytes, |job| One::open(job, computed, Reach::Pin)),
        (Part::Access, "ours-touch") => access::run(job, bytes, |job| One::open(job, computed, Reach::Touch)),
        _ => Err(Failure::Failed(format!("no contestant {:?}", job.contestant))),
    }
}

fn failed(error: impl Display) -> Failure {
    Failure::Failed(error.to_string())
}

/// Objects of one cache, mapped.
struct Many {
    cache: Cache,
    /// `None` if the bytes are computed.
    file: Option<PathBuf>,
    length: u64,
    mapped: Vec<(MemoryObject, Mapping)>,
}

impl Many {
    fn none(job: &ScaleJob, computed: bool) -> Result<Self, Failure> {
        allow_descriptors()?;
        let options = CacheOptions::new().budget_bytes(job.budget_bytes);
        let cache = Cache::new(options).map_err(failed)?;
        let file = (!computed).then(|| job.file.clone());
        let mapped = if job.part == Part::Objects { job.count as usize } else { 1 };
        Ok(Self { cache, file, length: job.object_bytes, mapped: Vec::with_capacity(mapped) })
    }
}

/// More descriptors than an ordinary process needs: as many as the process may have, if more are refused.
const DESCRIPTORS: u64 = 1 << 18;

fn allow_descriptors() -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let more = maximum.map(|maximum| maximum.max(DESCRIPTORS));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: more, maximum: more });
    raised.or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })).map_err(failed)
}

impl Objects for Many {
    fn map_one(&mut self) -> Result<(), Failure> {
        let options = ObjectOptions::new().frames(FrameSize::Small).advice(Advice::Random);
        let object = match &self.file {
            Some(file) => self.cache.open_file(file, options).map_err(failed)?,
            None => self
                .cache
                .object("computed", Blocking(Computed { length: self.length }), options)
                .map_err(failed)?,
        };
        let options = MapOptions::new().delivery(Delivery::InThread);
        let mapping = object.map(0..object.len(), options).map_err(failed)?;
        self.mapped.push((object, mapping));
        Ok(())
    }

    fn keep(&mut self, count: usize) {
        self.mapped.truncate(count);
    }

    fn load(&mut self, object: usize, word_index: u64) -> Result<u64, Failure> {
        pinned_word(&self.mapped[object].1, word_index)
    }

    fn frame_bytes(&self) -> Result<u64, Failure> {
        Ok(self.cache.metrics().frame_bytes)
    }
}

/// The word, by a pin of its page.
fn pinned_word(mapping: &Mapping, word_index: u64) -> Result<u64, Failure> {
    let start = word_index / PAGE_WORDS * PAGE_BYTES;
    let pinned = mapping.pin(start..start + PAGE_BYTES).map_err(failed)?;
    let at = (word_index % PAGE_WORDS * WORD_BYTES) as usize;
    let word = pinned[at..at + WORD_BYTES as usize].try_into().map_err(failed)?;
    Ok(u64::from_ne_bytes(word))
}

/// One object, mapped.
struct One {
    objects: Many,
    reach: Reach,
}

impl One {
    fn open(job: &ScaleJob, computed: bool, reach: Reach) -> Result<Self, Failure> {
        let mut objects = Many::none(job, computed)?;
        objects.map_one()?;
        Ok(Self { objects, reach })
    }
}

impl Object for One {
    #[inline]
    fn load(&mut self, word_index: u64) -> Result<u64, Failure> {
        let mapping = &self.objects.mapped[0].1;
        match self.reach {
            Reach::Pin => pinned_word(mapping, word_index),
            Reach::Touch => {
                let words = mapping.words().ok_or_else(|| failed("the mapping has no words"))?;
                Ok(words.load(word_index))
            }
        }
    }

    fn frame_bytes(&self) -> Result<u64, Failure> {
        self.objects.frame_bytes()
    }
}
