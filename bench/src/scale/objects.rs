//! Many objects, each of them mapped, then one page of each accessed.

use std::time::Instant;

use super::job::ScaleJob;
use super::memory_use;
use crate::data::{PAGE_BYTES, PAGE_WORDS, expected_word};
use crate::job::{Failure, Memory, Sample};
use crate::timed;
use crate::usage;

/// Many objects with the same bytes, mapped.
pub trait Objects {
    /// Opens and maps one more.
    fn map_one(&mut self) -> Result<(), Failure>;

    /// Lets go of all but the first `count`.
    fn keep(&mut self, count: usize);

    /// A word of one of them.
    fn load(&mut self, object: usize, word_index: u64) -> Result<u64, Failure>;

    /// Bytes of frames, or of resident pages of the file.
    fn frame_bytes(&self) -> Result<u64, Failure>;
}

/// So many objects are let go of when there cannot be more: looking at the process takes a descriptor.
const SPARE_OBJECTS: u64 = 16;

/// Maps all of them, or as many as the limits of the process allow, and loads one word of each. The sum of what was
/// loaded must be right.
pub fn run<O: Objects>(
    job: &ScaleJob,
    open: impl FnOnce(&ScaleJob) -> Result<O, Failure>,
) -> Result<Sample, Failure> {
    let cgroup = job.cgroup.as_deref();
    let mut objects = open(job)?;
    let mut memory = Memory { before: memory_use::now(cgroup, objects.frame_bytes()?)?, ..Memory::default() };
    let mut latencies = timed::latencies();
    let (counted, begin) = (usage::now()?, Instant::now());
    let mut mapped = 0;
    while mapped < job.count && memory.stopped.is_none() {
        let start = Instant::now();
        match objects.map_one() {
            Ok(()) => {
                timed::record(&mut latencies, start.elapsed());
                mapped += 1;
            }
            Err(Failure::Failed(reason)) if mapped > SPARE_OBJECTS => memory.stopped = Some(reason),
            Err(failure) => return Err(at_object(mapped, failure)),
        }
    }
    let elapsed = begin.elapsed();
    memory.objects = if memory.stopped.is_some() { mapped - SPARE_OBJECTS } else { mapped };
    objects.keep(memory.objects as usize);
    memory.map_ns = elapsed.as_nanos() as u64;
    let mut sample = timed::sample(mapped, elapsed, (counted, usage::now()?), &latencies)?;
    memory.mapped = memory_use::now(cgroup, objects.frame_bytes()?)?;
    let (mut sum, mut expected) = (0_u64, 0_u64);
    for number in 0..memory.objects {
        let word = number * 37 % (job.object_bytes / PAGE_BYTES) * PAGE_WORDS + number % PAGE_WORDS;
        sum = sum
            .wrapping_add(objects.load(number as usize, word).map_err(|failure| at_object(number, failure))?);
        expected = expected.wrapping_add(expected_word(word));
    }
    if sum != expected {
        return Err(Failure::WrongData(format!("the words add up to {sum:#x} instead of {expected:#x}")));
    }
    memory.used = memory_use::now(cgroup, objects.frame_bytes()?)?;
    sample.memory = Some(Box::new(memory));
    Ok(sample)
}

/// Says how far it came: a limit of the machine ends it somewhere.
fn at_object(number: u64, failure: Failure) -> Failure {
    match failure {
        Failure::Failed(reason) => Failure::Failed(format!("object {number}: {reason}")),
        failure => failure,
    }
}
