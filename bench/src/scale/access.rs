//! Random accesses to one object.

use std::time::Instant;

use super::bytes::Bytes;
use super::job::ScaleJob;
use super::memory_use;
use crate::data::{PAGE_BYTES, PAGE_WORDS};
use crate::job::{Failure, Memory, Sample};
use crate::timed;
use crate::trace::Random;
use crate::usage;

/// One access in so many is to a written page of a sparse file: enough to see a mix-up, too few for the disk to count.
const WRITTEN_EVERY: u64 = 256;

/// One object, mapped.
pub trait Object {
    /// The word with this index.
    fn load(&mut self, word_index: u64) -> Result<u64, Failure>;

    /// Bytes of frames, or of resident pages of the file.
    fn frame_bytes(&self) -> Result<u64, Failure>;
}

/// Opens the object and accesses it; every loaded word is compared with `bytes`.
pub fn run<O: Object>(
    job: &ScaleJob,
    bytes: Bytes,
    open: impl FnOnce(&ScaleJob) -> Result<O, Failure>,
) -> Result<Sample, Failure> {
    let cgroup = job.cgroup.as_deref();
    let mut memory = Memory { before: memory_use::now(cgroup, 0)?, ..Memory::default() };
    let begin = Instant::now();
    let mut object = open(job)?;
    memory.objects = 1;
    memory.map_ns = begin.elapsed().as_nanos() as u64;
    memory.mapped = memory_use::now(cgroup, object.frame_bytes()?)?;
    let mut random = Random::new(job.seed);
    let mut latencies = timed::latencies();
    let (counted, begin) = (usage::now()?, Instant::now());
    for access in 0..job.count {
        let page = random.below(job.object_bytes / PAGE_BYTES);
        let page = if access % WRITTEN_EVERY == 0 { bytes.written_near(page) } else { page };
        let word = page * PAGE_WORDS + random.below(PAGE_WORDS);
        let start = Instant::now();
        let found = object.load(word)?;
        timed::record(&mut latencies, start.elapsed());
        if found != bytes.word(word) {
            return Err(wrong_word(word, found, bytes.word(word)));
        }
    }
    let elapsed = begin.elapsed();
    let mut sample = timed::sample(job.count, elapsed, (counted, usage::now()?), &latencies)?;
    memory.used = memory_use::now(cgroup, object.frame_bytes()?)?;
    sample.memory = Some(Box::new(memory));
    Ok(sample)
}

/// The complaint about a word that is not what it must be.
#[cold]
pub fn wrong_word(word_index: u64, found: u64, expected: u64) -> Failure {
    Failure::WrongData(format!("word {word_index:#x}: {found:#018x} instead of {expected:#018x}"))
}
