//! Pins as the table has them, in few instructions: a pin and its end are what a page word sees most.

use super::{Advanced, Ordering, PIN_ONE, PINS, PageWord, State, WAITERS, Word};

impl Word {
    /// Whether a pin for reading is a matter of the count alone: the page is there, and protected if it can be stored to.
    #[inline]
    pub const fn takes_pin_as_it_is(self) -> bool {
        // Neither full nor exclusive.
        let has_room = self.0 & PINS < PINS - PIN_ONE;
        has_room
            && match self.state() {
                State::Clean | State::WritingBack => true,
                State::Dirty => self.0 & PINS != 0,
                _ => false,
            }
    }
}

impl PageWord {
    /// As [`Pin`](super::Transition::Pin) or [`PinAgain`](super::Transition::PinAgain), if the word is `seen` still, which
    /// [takes a pin as it is](Word::takes_pin_as_it_is); or the word that it is instead.
    #[inline]
    pub fn pin(&self, seen: Word) -> Result<(), Word> {
        debug_assert!(seen.takes_pin_as_it_is(), "a pin of {seen:?}");
        let pinned = self.0.compare_exchange(seen.0, seen.0 + PIN_ONE, Ordering::AcqRel, Ordering::Acquire);
        pinned.map(drop).map_err(Word)
    }

    /// As [`Unpin`](super::Transition::Unpin).
    #[inline]
    pub fn unpin(&self) -> Advanced {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert!(Word(before).shared_pins() > 0, "a pin of {:?} ends", Word(before));
            let is_last = before & PINS == PIN_ONE;
            let after = (before - PIN_ONE) & if is_last { !WAITERS } else { u64::MAX };
            match self.0.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Advanced { before: Word(before), after: Word(after) },
                Err(seen) => before = seen,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{MAX_PINS, Transition};
    use super::*;

    /// Words of every state, flag and count that matters.
    fn words() -> impl Iterator<Item = Word> {
        let counts = [0, 1, 2, u64::from(MAX_PINS) - 1, u64::from(MAX_PINS), u64::from(MAX_PINS) + 1];
        let word = |low: u64, count: u64| Word(7 << 32 | count << 16 | 0xab << 8 | low);
        (0..256).flat_map(move |low| counts.into_iter().map(move |count| word(low, count)))
    }

    #[test]
    fn a_pin_is_what_the_table_says() {
        for word in words() {
            let pinned = word.after(Transition::Pin).or(word.after(Transition::PinAgain));
            if word.state() == State::Changing {
                // Pinned once more by the table only.
                assert!(!word.takes_pin_as_it_is());
                continue;
            }
            assert_eq!(word.takes_pin_as_it_is(), pinned.is_some(), "{word:?}");
            if word.takes_pin_as_it_is() {
                let page = PageWord::new();
                page.0.store(word.0, Ordering::Relaxed);
                assert_eq!(page.pin(word), Ok(()));
                assert_eq!(Some(page.load()), pinned);
                assert_eq!(page.pin(word), Err(page.load()));
            }
        }
    }

    #[test]
    fn its_end_is_what_the_table_says() {
        for word in words().filter(|word| word.shared_pins() > 0) {
            let page = PageWord::new();
            page.0.store(word.0, Ordering::Relaxed);
            let advanced = page.unpin();
            assert_eq!((advanced.before, Some(advanced.after)), (word, word.after(Transition::Unpin)));
            assert_eq!(page.load(), advanced.after);
        }
    }
}
