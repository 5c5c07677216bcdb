//! The transition table against a second one, written as a list of what is allowed.

use super::*;
use alloc::vec::Vec;

/// What a word says, one field each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fields {
    state: State,
    waiters: bool,
    flag: bool,
    heat: u8,
    ghost: bool,
    stamp: u8,
    pins: u32,
}

impl Fields {
    fn of(word: Word) -> Self {
        Self {
            state: word.state(),
            waiters: word.has_waiters(),
            flag: word.is_deferred() || word.is_held(),
            heat: word.heat(),
            ghost: word.is_ghost(),
            stamp: word.stamp(),
            pins: word.pins(),
        }
    }

    /// Packs the fields by the layout that the module documents.
    fn word(self) -> Word {
        let state = match self.state {
            State::Absent => 0,
            State::Filling => 1,
            State::Clean => 2,
            State::Failed => 3,
            State::Evicting => 4,
        };
        Word(
            state
                | (self.waiters as u32) << 3
                | (self.flag as u32) << 4
                | (self.heat as u32) << 5
                | (self.ghost as u32) << 7
                | (self.stamp as u32) << 8
                | self.pins << 16,
        )
    }

    /// Whether the table can lead to such a word at all.
    fn reachable(self) -> bool {
        let owned = matches!(self.state, State::Filling | State::Evicting);
        let clean = self.state == State::Clean;
        (owned || !(self.waiters || self.flag)) && (clean || self.pins == 0)
    }
}

fn all_words() -> Vec<Fields> {
    let states = [State::Absent, State::Filling, State::Clean, State::Failed, State::Evicting];
    let mut all = Vec::new();
    for state in states {
        for bits in 0..32u32 {
            for stamp in [0, 1, 200, 255] {
                for pins in [0, 1, 2, MAX_PINS - 1, MAX_PINS] {
                    let waiters = bits & 1 != 0;
                    let flag = bits & 2 != 0;
                    let ghost = bits & 4 != 0;
                    all.push(Fields { state, waiters, flag, heat: (bits >> 3) as u8, ghost, stamp, pins });
                }
            }
        }
    }
    all.retain(|fields| fields.reachable());
    all
}

const TRANSITIONS: [Transition; 15] = [
    Transition::Claim { deferred: false },
    Transition::Claim { deferred: true },
    Transition::Supply { stamp: 77, heat: 2 },
    Transition::Fail,
    Transition::Abandon,
    Transition::Pin,
    Transition::PinAgain,
    Transition::Unpin,
    Transition::Evict,
    Transition::Spare,
    Transition::Evicted { stamp: 99 },
    Transition::Hold,
    Transition::Release,
    Transition::Retry,
    Transition::SetHeat { heat: 1 },
];

/// The second table: what a page is after `transition`, field by field.
fn expected(now: Fields, transition: Transition) -> Option<Fields> {
    let moved = |state| Fields { state, waiters: false, flag: false, ..now };
    match transition {
        Transition::Claim { deferred } => {
            (now.state == State::Absent).then_some(Fields { flag: deferred, ..moved(State::Filling) })
        }
        Transition::Supply { stamp, heat } => (now.state == State::Filling).then_some(Fields {
            stamp,
            heat,
            ghost: false,
            ..moved(State::Clean)
        }),
        Transition::Fail => (now.state == State::Filling).then_some(moved(State::Failed)),
        Transition::Abandon => (now.state == State::Filling).then_some(moved(State::Absent)),
        Transition::Pin => {
            (now.state == State::Clean && now.pins != 65535).then(|| Fields { pins: now.pins + 1, ..now })
        }
        Transition::PinAgain => (now.state == State::Clean && (1..65535).contains(&now.pins))
            .then(|| Fields { pins: now.pins + 1, ..now }),
        Transition::Unpin => {
            (now.state == State::Clean && now.pins != 0).then(|| Fields { pins: now.pins - 1, ..now })
        }
        Transition::Evict => (now.state == State::Clean && now.pins == 0).then_some(moved(State::Evicting)),
        Transition::Spare => (now.state == State::Evicting && !now.flag).then_some(moved(State::Clean)),
        Transition::Evicted { stamp } => (now.state == State::Evicting && !now.flag).then_some(Fields {
            stamp,
            heat: 0,
            ghost: true,
            ..moved(State::Absent)
        }),
        Transition::Hold => {
            (now.state == State::Absent).then_some(Fields { flag: true, ..moved(State::Evicting) })
        }
        Transition::Release => (now.state == State::Evicting && now.flag).then_some(moved(State::Absent)),
        Transition::Retry => {
            (now.state == State::Failed).then_some(Fields { flag: true, ..moved(State::Evicting) })
        }
        Transition::SetHeat { heat } => (now.state == State::Clean).then_some(Fields { heat, ..now }),
    }
}

#[test]
fn every_word_and_transition_does_what_the_list_says() {
    let mut allowed = 0;
    for fields in all_words() {
        let word = fields.word();
        assert_eq!(Fields::of(word), fields, "layout of {word:?}");
        for transition in TRANSITIONS {
            let after = word.after(transition);
            let want = expected(fields, transition);
            assert_eq!(after.map(Fields::of), want, "{word:?} and {transition:?}");
            allowed += usize::from(after.is_some());
        }
    }
    assert!(allowed > 1000, "only {allowed} cases were allowed");
}

#[test]
fn the_table_leads_only_to_reachable_words() {
    for fields in all_words() {
        for transition in TRANSITIONS {
            if let Some(after) = fields.word().after(transition) {
                assert!(Fields::of(after).reachable(), "{fields:?} and {transition:?} made {after:?}");
            }
        }
    }
}

#[test]
fn a_pinned_page_is_never_evicted() {
    for fields in all_words().into_iter().filter(|fields| fields.pins > 0) {
        let word = fields.word();
        assert_eq!(word.after(Transition::Evict), None);
        for transition in TRANSITIONS {
            let state = word.after(transition).map(Word::state);
            assert!(matches!(state, None | Some(State::Clean)), "{transition:?} moved a pinned page");
        }
    }
}

#[test]
fn pins_count_to_the_limit_and_back() {
    let page = PageWord::new();
    page.advance(Transition::Claim { deferred: false }).unwrap();
    page.advance(Transition::Supply { stamp: 5, heat: 1 }).unwrap();
    for count in 1..=MAX_PINS {
        assert_eq!(page.advance(Transition::Pin).unwrap().after.pins(), count);
    }
    let full = page.advance(Transition::Pin).unwrap_err();
    assert_eq!((full.pins(), full.stamp(), full.heat()), (MAX_PINS, 5, 1));
    for _ in 0..MAX_PINS {
        assert!(page.advance(Transition::Evict).is_err());
        page.advance(Transition::Unpin).unwrap();
    }
    assert!(page.advance(Transition::Unpin).is_err());
    assert!(page.advance(Transition::Evict).is_ok());
}

#[test]
fn waiters_are_told_exactly_once() {
    let page = PageWord::new();
    assert_eq!(page.announce_waiter(), None);
    let claim = page.advance(Transition::Claim { deferred: true }).unwrap();
    assert!(!claim.must_wake());
    let asleep = page.announce_waiter().unwrap();
    assert!(asleep.has_waiters() && asleep.is_deferred());
    assert_eq!(page.announce_waiter(), Some(asleep));
    let supply = page.advance(Transition::Supply { stamp: 0, heat: 0 }).unwrap();
    assert!(supply.must_wake());
    assert_eq!(page.announce_waiter(), None);
    assert!(!page.advance(Transition::Pin).unwrap().must_wake());
    page.advance(Transition::Unpin).unwrap();
    assert!(!page.advance(Transition::Evict).unwrap().must_wake());
    assert!(page.announce_waiter().is_some());
    assert!(page.advance(Transition::Spare).unwrap().must_wake());
}

#[test]
fn every_way_out_of_an_owned_state_wakes() {
    for fields in all_words().into_iter().filter(|fields| fields.waiters) {
        for transition in TRANSITIONS {
            let before = fields.word();
            if let Some(after) = before.after(transition) {
                assert!(Advanced { before, after }.must_wake(), "{before:?} and {transition:?}");
            }
        }
    }
}

#[test]
fn a_page_that_was_held_off_never_turns_clean() {
    let page = PageWord::new();
    let held = page.advance(Transition::Hold).unwrap().after;
    assert!(held.is_held() && !held.is_deferred());
    assert!(page.advance(Transition::Spare).is_err());
    assert!(page.advance(Transition::Evicted { stamp: 1 }).is_err());
    let released = page.advance(Transition::Release).unwrap().after;
    assert!(!released.is_ghost() && released == Word::default());
}

#[test]
fn a_failed_page_is_owned_until_its_poison_is_gone() {
    let page = PageWord::new();
    page.advance(Transition::Claim { deferred: false }).unwrap();
    page.advance(Transition::Fail).unwrap();
    assert!(page.advance(Transition::Claim { deferred: false }).is_err());
    page.advance(Transition::Retry).unwrap();
    assert!(page.advance(Transition::Retry).is_err(), "two would remove the poison");
    assert!(page.announce_waiter().is_some());
    assert!(page.advance(Transition::Spare).is_err(), "a failed page has no frame");
    assert!(page.advance(Transition::Release).unwrap().must_wake());
}

#[test]
fn a_resident_page_that_is_evicted_leaves_a_ghost() {
    let page = PageWord::new();
    page.advance(Transition::Claim { deferred: false }).unwrap();
    page.advance(Transition::Supply { stamp: 5, heat: 2 }).unwrap();
    page.advance(Transition::Evict).unwrap();
    assert!(page.advance(Transition::Release).is_err(), "only a page held off may be released");
    let gone = page.advance(Transition::Evicted { stamp: 9 }).unwrap().after;
    assert_eq!((gone.is_ghost(), gone.stamp()), (true, 9));
    let refilling = page.advance(Transition::Claim { deferred: false }).unwrap().after;
    assert_eq!((refilling.is_ghost(), refilling.stamp()), (true, 9));
    assert!(!page.advance(Transition::Supply { stamp: 10, heat: 0 }).unwrap().after.is_ghost());
}
