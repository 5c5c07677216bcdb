//! The decisions, against what the transition table lets happen next.

use super::*;
use crate::page_word::{MAX_PINS, Transition};
use alloc::vec::Vec;

const INTENTS: [Intent; 7] = [
    Intent::Load(Fault::Any),
    Intent::Load(Fault::Missing),
    Intent::Store(Fault::Any),
    Intent::Store(Fault::Missing),
    Intent::Presence,
    Intent::Pin,
    Intent::Change,
];

/// Words of all states, with and without the bit that means different things, waiters, and pins.
fn words() -> Vec<Word> {
    let mut words = Vec::new();
    for state in 0..8u64 {
        for bits in 0..4u64 {
            for pins in [0, 1, u64::from(MAX_PINS), 0xffff] {
                words.push(Word(state | bits << 3 | pins << 16));
            }
        }
    }
    words
}

#[test]
fn the_table() {
    use Decision::*;
    let of = |bits: u64| INTENTS.map(|intent| decide(Word(bits), intent));
    let wait = |what| [Wait(what); 7];
    assert_eq!(of(0), [Claim; 7], "Absent");
    assert_eq!(of(1), wait(WaitFor::Filler), "Filling");
    assert_eq!(of(1 | 1 << 4), [Demand; 7], "Filling, kept ready");
    assert_eq!(of(3), [Trap; 7], "Failed");
    assert_eq!(of(4), wait(WaitFor::Holder), "Evicting");
    assert_eq!(of(4 | 1 << 4), wait(WaitFor::Holder), "held off");
    let (pins, holder) = (Wait(WaitFor::Pins), Wait(WaitFor::Holder));
    for state in [2, 5] {
        assert_eq!(of(state), [Show, Look, Open, Look, Done, Done, Done], "{state}");
        assert_eq!(of(state | 1 << 16), [Show, Look, Open, Look, Done, Done, pins], "{state}, pinned");
    }
    let write = Wait(WaitFor::Write);
    assert_eq!(of(6), [Show, write, Open, write, Done, Done, Done], "WritingBack");
    assert_eq!(of(7), [Show, Look, Open, Look, Done, holder, holder], "Changing");
    assert_eq!(of(5 | 0xffff << 16), [Show, Look, Open, Look, Done, pins, pins], "pinned for writing");
}

#[test]
fn what_is_decided_can_be_done() {
    let allowed = |word: Word, transition| word.after(transition).is_some();
    for word in words() {
        for intent in INTENTS {
            match decide(word, intent) {
                Decision::Claim => assert!(allowed(word, Transition::Claim { deferred: false }), "{word:?}"),
                Decision::Done if intent == Intent::Change => {
                    assert!(allowed(word, Transition::LockToPinMut), "{word:?}");
                }
                Decision::Done if intent == Intent::Pin && word.pins() < MAX_PINS => {
                    let pins = [Transition::Pin, Transition::PinAgain, Transition::LockToPin];
                    assert!(pins.into_iter().any(|pin| allowed(word, pin)), "{word:?}");
                }
                Decision::Show | Decision::Open | Decision::Done => {
                    assert!(word.is_resident() || word.state() == State::Changing, "{word:?}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn who_is_told_to_wait_is_woken() {
    for word in words() {
        for intent in INTENTS {
            let page = crate::page_word::PageWord::from(word);
            match decide(word, intent) {
                // What they wait for is announced in the word, and its end wakes.
                Decision::Wait(WaitFor::Filler | WaitFor::Holder) | Decision::Demand => {
                    assert!(page.announce_waiter().is_some(), "{word:?}");
                }
                Decision::Wait(WaitFor::Pins | WaitFor::Write) => {
                    assert!(page.announce_writer().is_some(), "{word:?}");
                }
                _ => {}
            }
        }
    }
}
