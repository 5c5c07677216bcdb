//! What a contestant must be able to do.

use std::ops::Range;

use crate::job::Failure;

/// Someone who serves the words of the test file. Set up and torn down outside the measured phase.
pub trait Contestant: Sync {
    /// The state of one accessing thread.
    type Worker<'a>: Worker
    where
        Self: 'a;

    /// Makes the state of one thread; called in that thread.
    fn worker(&self) -> Result<Self::Worker<'_>, Failure>;

    /// Brings the bytes in `range` into memory, mapped where there is a mapping, and waits.
    fn populate(&self, range: Range<u64>) -> Result<(), Failure>;

    /// Pages read since the start because an access missed, where that can be told.
    fn missed_pages(&self) -> Result<Option<u64>, Failure>;

    /// The most memory held in frames, where the contestant counts it.
    fn peak_frame_bytes(&self) -> Option<u64> {
        None
    }

    /// For `fault`: how far apart touched pages must be, so that one fault maps one page.
    fn fault_stride_pages(&self) -> u64 {
        1
    }

    /// For `fault`: makes the touched pages fault again without any reading, or says that it cannot.
    fn unmap_again(&self) -> Result<Rewound, Failure> {
        Ok(Rewound::No)
    }
}

/// Whether pages will fault again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rewound {
    /// They will.
    Yes,
    /// There was one round only.
    No,
}

/// One accessing thread of a contestant.
pub trait Worker {
    /// Loads one word.
    fn load(&mut self, word_index: u64) -> Result<u64, Failure>;

    /// The wrapping sum of every `step_words`-th word of `words`, which starts at a page boundary.
    fn sum(&mut self, words: Range<u64>, step_words: u64) -> Result<u64, Failure>;

    /// Loads the words, appending them to `loaded`; a contestant that can ask for all pages at once does.
    fn load_batch(&mut self, word_indices: &[u64], loaded: &mut Vec<u64>) -> Result<(), Failure> {
        for &word_index in word_indices {
            loaded.push(self.load(word_index)?);
        }
        Ok(())
    }
}
