//! The two things that are measured, generic over who serves the nodes.

use super::job::{IndexJob, Part, Share};
use super::node::{FANOUT, FIRST_KEY_BYTES, Found};
use super::tree::{check_lookup, key_of};
use crate::data::PAGE_BYTES;
use crate::job::{Failure, Sample};
use crate::timed;
use crate::trace::Random;

/// Lookups between two looks at the clock, where one is not much longer than that look.
pub const RESIDENT_BATCH: u64 = 16;
/// Accesses between two looks at the clock.
pub const PIN_BATCH: u64 = 256;

/// Someone who serves the nodes of the tree. Set up and torn down outside the measured phase.
pub trait Index: Sync {
    /// The state of one thread.
    type Nodes<'a>: Nodes
    where
        Self: 'a;

    /// Makes the state of one thread; called in that thread.
    fn nodes(&self) -> Result<Self::Nodes<'_>, Failure>;

    /// Brings the first bytes of the file into memory, and waits.
    fn populate(&self, len_bytes: u64) -> Result<(), Failure>;

    /// Pages read since the start, where that can be told.
    fn missed_pages(&self) -> Result<Option<u64>, Failure>;

    /// The most memory held in frames, where the contestant counts it.
    fn peak_frame_bytes(&self) -> Option<u64> {
        None
    }
}

/// One thread that looks up.
pub trait Nodes {
    /// What the node in this page says about `key`, from one version of its bytes.
    fn find(&mut self, node: u64, key: u64) -> Result<Found, Failure>;

    /// The eight bytes at `offset_bytes`, a multiple of eight: the least that an access to a page can be.
    fn load(&mut self, offset_bytes: u64) -> Result<u64, Failure>;
}

/// Runs the part that the job names.
pub fn run<I: Index>(job: &IndexJob, index: &I) -> Result<Sample, Failure> {
    index.populate(job.populated_bytes())?;
    let mut sample = match job.part {
        Part::Resident => lookups(job, index, RESIDENT_BATCH)?,
        Part::Quarter => lookups(job, index, 1)?,
        Part::Pin => loads(job, index)?,
    };
    sample.peak_frame_bytes = index.peak_frame_bytes();
    Ok(sample)
}

/// Lookups of random keys, `batch` to a step.
fn lookups<I: Index>(job: &IndexJob, index: &I, batch: u64) -> Result<Sample, Failure> {
    let shape = job.shape();
    let missed_pages = || index.missed_pages();
    timed::repeat(job.threads, job.measured(), missed_pages, |thread| {
        let mut nodes = index.nodes()?;
        let mut random = Random::new(job.seed.wrapping_mul(1000).wrapping_add(u64::from(thread)));
        let shape = &shape;
        Ok(move || {
            for _ in 0..batch {
                let key = key_of(random.below(job.pairs));
                check_lookup(shape, key, |node, key| nodes.find(node, key))?;
            }
            Ok(batch)
        })
    })
}

/// Loads of one word of one leaf, [`PIN_BATCH`] to a step.
fn loads<I: Index>(job: &IndexJob, index: &I) -> Result<Sample, Failure> {
    let missed_pages = || index.missed_pages();
    timed::repeat(job.threads, job.measured(), missed_pages, |thread| {
        let mut nodes = index.nodes()?;
        let (offset_bytes, expected) = loaded_word(job, thread);
        Ok(move || {
            for _ in 0..PIN_BATCH {
                let found = nodes.load(offset_bytes)?;
                if found != expected {
                    return Err(wrong_word(offset_bytes, found, expected));
                }
            }
            Ok(PIN_BATCH)
        })
    })
}

/// Where the word is that a thread loads, and what it must be: the first key of a leaf.
fn loaded_word(job: &IndexJob, thread: u32) -> (u64, u64) {
    let of_thread = if job.share == Share::Own { u64::from(thread) } else { 0 };
    // Far enough apart that nothing kept for each page shares a cache line.
    let leaf = (7 + 97 * of_thread) % job.shape().leaves();
    (leaf * PAGE_BYTES + FIRST_KEY_BYTES, key_of(leaf * FANOUT))
}

#[cold]
fn wrong_word(offset_bytes: u64, found: u64, expected: u64) -> Failure {
    Failure::WrongData(format!("at byte {offset_bytes:#x}: {found:#018x} instead of {expected:#018x}"))
}
