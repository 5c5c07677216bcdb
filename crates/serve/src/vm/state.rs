//! What must be known of a machine by whoever serves it after this process: which pages it has given up, and what the last
//! read of events said.
//!
//! ```text
//!   words   [ events of the last read | a bit for each small page: it was given up ]
//! ```
//!
//! A bit is never taken back: what was given up is zero for the object's side, for ever.

use std::io;
use std::os::fd::OwnedFd;

use memobj_linux::shared_words::SharedWords;
use memobj_linux::uffd::{EventLog, LOG_WORDS};

/// See the module.
#[derive(Debug)]
pub(super) struct MachineState {
    words: SharedWords,
}

impl MachineState {
    /// Of a machine of so many small pages that has given up nothing.
    pub(super) fn new(pages: usize) -> io::Result<Self> {
        Ok(Self { words: SharedWords::new(words_for(pages))? })
    }

    /// Of a machine that another process has served.
    pub(super) fn open(file: OwnedFd, pages: usize) -> io::Result<Self> {
        Ok(Self { words: SharedWords::open(file, words_for(pages))? })
    }

    /// What keeps it.
    pub(super) fn words(&self) -> &SharedWords {
        &self.words
    }

    pub(super) fn log(&self) -> io::Result<EventLog<'_>> {
        EventLog::new(&self.words)
    }

    /// Notes that small pages `[first, end)` were given up.
    pub(super) fn give_up(&self, first: usize, end: usize) {
        let mut at = first;
        while at < end {
            let (word, bit) = (at / 64, at % 64);
            let count = (64 - bit).min(end - at);
            let bits = (u64::MAX >> (64 - count)) << bit;
            self.words.set_bits(LOG_WORDS + word, bits);
            at += count;
        }
    }

    /// Whether small page `index` was given up.
    pub(super) fn is_given_up(&self, index: usize) -> bool {
        self.words.get(LOG_WORDS + index / 64) & (1 << (index % 64)) != 0
    }
}

fn words_for(pages: usize) -> usize {
    LOG_WORDS + pages.div_ceil(64)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::MachineState;

    #[test]
    fn what_was_given_up_is_known_to_the_next() {
        let state = MachineState::new(300).unwrap();
        for (first, end) in [(0, 1), (60, 70), (128, 256), (299, 300), (5, 5)] {
            state.give_up(first, end);
        }
        let file = state.words().as_fd().try_clone_to_owned().unwrap();
        assert!(MachineState::open(file.try_clone().unwrap(), 400).is_err());
        let next = MachineState::open(file, 300).unwrap();
        let known: Vec<_> = (0..300).filter(|index| next.is_given_up(*index)).collect();
        let want: Vec<_> = (0..1).chain(60..70).chain(128..256).chain(299..300).collect();
        assert_eq!(known, want);
    }
}
