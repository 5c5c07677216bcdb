//! The contestants of this project. The only file that knows the library's interface.

use std::fmt::Display;
use std::ops::Range;

use memobj::{
    Advice, Cache, CacheOptions, Delivery, FrameSize, MapOptions, Mapping, ObjectOptions, VolatileWords,
};

use super::contestant::{Contestant, Worker};
use super::job::{Pattern, ReadJob};
use super::patterns;
use crate::data::{self, PAGE_BYTES, PAGE_WORDS, WORD_BYTES};
use crate::job::{Failure, Sample};

/// Bytes pinned at once by a scan.
const PIN_BYTES: u64 = 1 << 20;

/// How the bytes of a page are reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Loads through the mapping, which may fault.
    Touch,
    /// A batch is announced, then touched.
    Prefetch,
    /// Pinned first, then read as plain memory.
    Pin,
}

/// A mapped object in a cache of the job's budget.
struct Ours {
    cache: Cache,
    mapping: Mapping,
    pattern: Pattern,
    reach: Reach,
}

/// Sets up the contestant that the job names and runs the pattern.
pub fn measure(job: &ReadJob) -> Result<Sample, Failure> {
    let name = job.contestant.as_str();
    let (delivery, reach) = match name.trim_end_matches("-2m") {
        "ours-inthread" => (Delivery::InThread, Reach::Touch),
        "ours-reader" => (Delivery::ReaderThread, Reach::Touch),
        "ours-prefetch" => (Delivery::InThread, Reach::Prefetch),
        "ours-pin" => (Delivery::InThread, Reach::Pin),
        _ => return Err(Failure::Failed(format!("no contestant {name:?}"))),
    };
    let frames = if name.ends_with("-2m") { FrameSize::Large } else { FrameSize::Small };
    let cache = Cache::new(CacheOptions::new().budget_bytes(job.budget_bytes)).map_err(failed)?;
    let options = ObjectOptions::new().frames(frames);
    let object = if job.pattern == Pattern::Fault {
        cache
            .object("memory", memobj::pagers::Bytes::new(data::bytes(job.file_bytes)), options)
            .map_err(failed)?
    } else {
        cache.open_file(&job.file, options).map_err(failed)?
    };
    let options = MapOptions::new().delivery(delivery);
    let mapping = object.map(0..object.len(), options).map_err(failed)?;
    mapping.advise(0..object.len(), advice(job.pattern)).map_err(failed)?;
    patterns::run(job, &Ours { cache, mapping, pattern: job.pattern, reach })
}

/// The advice that serves `pattern` best.
fn advice(pattern: Pattern) -> Advice {
    match pattern {
        Pattern::Sequential => Advice::Sequential,
        Pattern::Warmscan => Advice::Normal,
        Pattern::Random | Pattern::Zipf | Pattern::Reread | Pattern::Fault | Pattern::Batch => Advice::Random,
    }
}

fn failed(error: impl Display) -> Failure {
    Failure::Failed(error.to_string())
}

/// What one thread uses: the mapping, and its words as a program with a pointer would have them.
struct Toucher<'a> {
    ours: &'a Ours,
    words: VolatileWords<'a>,
}

impl Contestant for Ours {
    type Worker<'a> = Toucher<'a>;

    fn worker(&self) -> Result<Self::Worker<'_>, Failure> {
        let words = self.mapping.words().ok_or_else(|| Failure::Failed("the mapping has no words".into()))?;
        Ok(Toucher { ours: self, words })
    }

    fn populate(&self, range: Range<u64>) -> Result<(), Failure> {
        // Faults are measured on pages that have never been touched.
        if self.pattern == Pattern::Fault { Ok(()) } else { self.mapping.populate(range).map_err(failed) }
    }

    fn missed_pages(&self) -> Result<Option<u64>, Failure> {
        Ok(Some(self.cache.metrics().supplied_pages))
    }

    fn peak_frame_bytes(&self) -> Option<u64> {
        Some(self.cache.metrics().peak_frame_bytes)
    }
}

impl Toucher<'_> {
    /// Out of line, so that a load by touch stays small enough to be inlined, as a program's own load would be.
    #[inline(never)]
    fn load_pinned(&self, word_index: u64) -> Result<u64, Failure> {
        let pinned = self.ours.mapping.pin(page_of(word_index)).map_err(failed)?;
        Ok(word_in(&pinned, word_index % PAGE_WORDS))
    }
}

impl Worker for Toucher<'_> {
    #[inline]
    fn load(&mut self, word_index: u64) -> Result<u64, Failure> {
        if self.ours.reach == Reach::Pin {
            return self.load_pinned(word_index);
        }
        Ok(self.words.load(word_index))
    }

    fn sum(&mut self, words: Range<u64>, step_words: u64) -> Result<u64, Failure> {
        if self.ours.reach != Reach::Pin {
            return Ok(self.words.sum(words, step_words));
        }
        let mut sum: u64 = 0;
        let end_bytes = words.end * WORD_BYTES;
        for start in (words.start * WORD_BYTES..end_bytes).step_by(PIN_BYTES as usize) {
            let pinned = self.ours.mapping.pin(start..end_bytes.min(start + PIN_BYTES)).map_err(failed)?;
            let words = pinned.chunks_exact(WORD_BYTES as usize).step_by(step_words as usize);
            sum = words.fold(sum, |sum, word| sum.wrapping_add(word_in(word, 0)));
        }
        Ok(sum)
    }

    fn load_batch(&mut self, word_indices: &[u64], loaded: &mut Vec<u64>) -> Result<(), Failure> {
        let ranges: Vec<Range<u64>> = word_indices.iter().map(|&word_index| page_of(word_index)).collect();
        if self.ours.reach == Reach::Pin {
            let pinned = self.ours.mapping.pin_ranges(&ranges).map_err(failed)?;
            let pages = pinned.iter().zip(word_indices);
            loaded.extend(pages.map(|(page, word_index)| word_in(page, word_index % PAGE_WORDS)));
            return Ok(());
        }
        if self.ours.reach == Reach::Prefetch {
            self.ours.mapping.prefetch(&ranges).map_err(failed)?;
        }
        loaded.extend(word_indices.iter().map(|word_index| self.words.load(*word_index)));
        Ok(())
    }
}

/// The bytes of the page that holds a word.
fn page_of(word_index: u64) -> Range<u64> {
    let start = word_index / PAGE_WORDS * PAGE_BYTES;
    start..start + PAGE_BYTES
}

/// The word with this index in `bytes`.
#[inline]
fn word_in(bytes: &[u8], word_index: u64) -> u64 {
    let start = (word_index * WORD_BYTES) as usize;
    let mut word = [0; WORD_BYTES as usize];
    word.copy_from_slice(&bytes[start..start + WORD_BYTES as usize]);
    u64::from_ne_bytes(word)
}
