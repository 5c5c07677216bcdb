//! The contestants of this project: one [`Method`] for each way to the bytes of a node.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::Range;

use memobj::{Advice, Cache, CacheOptions, FrameSize, GlanceWords, MapOptions, Mapping, ObjectOptions};

use super::job::IndexJob;
use super::lookup::{self, Index, Nodes};
use super::node::{Found, NodeBytes, Words, find};
use crate::data::{PAGE_BYTES, WORD_BYTES};
use crate::job::{Failure, Sample};

/// A smaller budget has 4 KiB frames only.
const LEAST_LARGE_BYTES: u64 = 32 << 20;

/// One way to the bytes of a mapping. One more is a type here, a line in [`measure`], and its names in the plan.
trait Method: Default {
    /// What the bytes of `node` say about `key`.
    fn find(&mut self, mapping: &Mapping, node: Range<u64>, key: u64) -> Result<Found, Failure>;

    /// The word in `word`, eight bytes of `node`.
    fn load(&mut self, mapping: &Mapping, node: Range<u64>, word: Range<u64>) -> Result<u64, Failure>;
}

/// Pin the node, search in it, let go.
#[derive(Default)]
struct Pin;

impl Method for Pin {
    #[inline]
    fn find(&mut self, mapping: &Mapping, node: Range<u64>, key: u64) -> Result<Found, Failure> {
        Ok(find(&NodeBytes(&mapping.pin(node).map_err(failed)?), key))
    }

    #[inline]
    fn load(&mut self, mapping: &Mapping, node: Range<u64>, word: Range<u64>) -> Result<u64, Failure> {
        let at = (word.start - node.start) as usize;
        word_of(&mapping.pin(node).map_err(failed)?[at..at + WORD_BYTES as usize])
    }
}

/// The same by a pin that borrows the mapping.
#[derive(Default)]
struct PinRef;

impl Method for PinRef {
    #[inline]
    fn find(&mut self, mapping: &Mapping, node: Range<u64>, key: u64) -> Result<Found, Failure> {
        Ok(find(&NodeBytes(&mapping.pin_ref(node).map_err(failed)?), key))
    }

    #[inline]
    fn load(&mut self, mapping: &Mapping, node: Range<u64>, word: Range<u64>) -> Result<u64, Failure> {
        let at = (word.start - node.start) as usize;
        word_of(&mapping.pin_ref(node).map_err(failed)?[at..at + WORD_BYTES as usize])
    }
}

/// The same by a call with the pinned bytes.
#[derive(Default)]
struct WithPin;

impl Method for WithPin {
    #[inline]
    fn find(&mut self, mapping: &Mapping, node: Range<u64>, key: u64) -> Result<Found, Failure> {
        mapping.with_pin(node, |bytes| find(&NodeBytes(bytes), key)).map_err(failed)
    }

    #[inline]
    fn load(&mut self, mapping: &Mapping, node: Range<u64>, word: Range<u64>) -> Result<u64, Failure> {
        let at = (word.start - node.start) as usize;
        mapping.with_pin(node, |bytes| word_of(&bytes[at..at + WORD_BYTES as usize])).map_err(failed)?
    }
}

/// Search in the node without a pin, again if it changed meanwhile.
#[derive(Default)]
struct TryWords;

impl Words for GlanceWords<'_> {
    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.load(index as u64)
    }
}

impl Method for TryWords {
    #[inline]
    fn find(&mut self, mapping: &Mapping, node: Range<u64>, key: u64) -> Result<Found, Failure> {
        mapping.try_words(node, |words| find(words, key)).map_err(failed)
    }

    #[inline]
    fn load(&mut self, mapping: &Mapping, node: Range<u64>, word: Range<u64>) -> Result<u64, Failure> {
        let index = (word.start - node.start) / WORD_BYTES;
        mapping.try_words(node, |words| words.load(index)).map_err(failed)
    }
}

/// Copy the node, search in the copy. A word alone is copied alone.
struct ReadAt(Vec<u8>);

impl Default for ReadAt {
    fn default() -> Self {
        Self(vec![0; PAGE_BYTES as usize])
    }
}

impl Method for ReadAt {
    #[inline]
    fn find(&mut self, mapping: &Mapping, node: Range<u64>, key: u64) -> Result<Found, Failure> {
        mapping.read_at(node.start, &mut self.0).map_err(failed)?;
        Ok(find(&NodeBytes(&self.0), key))
    }

    #[inline]
    fn load(&mut self, mapping: &Mapping, _node: Range<u64>, word: Range<u64>) -> Result<u64, Failure> {
        let mut bytes = [0; WORD_BYTES as usize];
        mapping.read_at(word.start, &mut bytes).map_err(failed)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

/// Sets up the contestant that the job names and runs the part. A name is `ours-METHOD`, with the size of frames behind
/// it unless that is small.
pub fn measure(job: &IndexJob) -> Result<Sample, Failure> {
    let name = job.contestant.strip_prefix("ours-").unwrap_or_default();
    let (method, frames) = match name.rsplit_once('-') {
        Some((method, "large")) => (method, FrameSize::Large),
        Some((method, "auto")) => (method, FrameSize::Auto),
        _ => (name, FrameSize::Small),
    };
    match method {
        "pin" => run::<Pin>(job, frames),
        "pin_ref" => run::<PinRef>(job, frames),
        "with_pin" => run::<WithPin>(job, frames),
        "try_words" => run::<TryWords>(job, frames),
        "read_at" => run::<ReadAt>(job, frames),
        _ => Err(Failure::Failed(format!("no contestant {:?}", job.contestant))),
    }
}

/// The tree, mapped by one object in a cache of the job's budget.
struct Ours<M> {
    cache: Cache,
    mapping: Mapping,
    method: PhantomData<fn() -> M>,
}

fn run<M: Method>(job: &IndexJob, frames: FrameSize) -> Result<Sample, Failure> {
    let options = CacheOptions::new().budget_bytes(job.budget_bytes);
    let cache = Cache::new(options).map_err(failed)?;
    // With `Auto` the engine is told nothing.
    let advice = if frames == FrameSize::Auto { Advice::Normal } else { Advice::Random };
    let options = ObjectOptions::new().frames(frames).advice(advice);
    let object = cache.open_file(&job.file, options).map_err(failed)?;
    let mapping = object.map(0..object.len(), MapOptions::default()).map_err(failed)?;
    let wants_large = frames == FrameSize::Large && job.budget_bytes >= LEAST_LARGE_BYTES;
    if wants_large && mapping.page_bytes() == PAGE_BYTES {
        return Err(Failure::Skipped("frames of 2 MiB cannot be had here".into()));
    }
    lookup::run(job, &Ours::<M> { cache, mapping, method: PhantomData })
}

fn failed(error: impl Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn word_of(bytes: &[u8]) -> Result<u64, Failure> {
    Ok(u64::from_ne_bytes(bytes.try_into().map_err(failed)?))
}

impl<M: Method> Index for Ours<M> {
    type Nodes<'a>
        = OursNodes<'a, M>
    where
        M: 'a;

    fn nodes(&self) -> Result<Self::Nodes<'_>, Failure> {
        Ok(OursNodes { mapping: &self.mapping, method: M::default() })
    }

    fn populate(&self, len_bytes: u64) -> Result<(), Failure> {
        self.mapping.populate(0..len_bytes).map_err(failed)
    }

    fn missed_pages(&self) -> Result<Option<u64>, Failure> {
        Ok(Some(self.cache.metrics().supplied_pages))
    }

    fn peak_frame_bytes(&self) -> Option<u64> {
        Some(self.cache.metrics().peak_frame_bytes)
    }
}

/// One thread.
struct OursNodes<'a, M> {
    mapping: &'a Mapping,
    method: M,
}

fn page(start: u64) -> Range<u64> {
    start..start + PAGE_BYTES
}

impl<M: Method> Nodes for OursNodes<'_, M> {
    #[inline]
    fn find(&mut self, node: u64, key: u64) -> Result<Found, Failure> {
        self.method.find(self.mapping, page(node * PAGE_BYTES), key)
    }

    #[inline]
    fn load(&mut self, offset_bytes: u64) -> Result<u64, Failure> {
        let node = page(offset_bytes / PAGE_BYTES * PAGE_BYTES);
        self.method.load(self.mapping, node, offset_bytes..offset_bytes + WORD_BYTES)
    }
}
