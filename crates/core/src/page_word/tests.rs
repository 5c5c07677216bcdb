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
    /// Of a Changing page: it is lent.
    ghost: bool,
    stamp: u8,
    /// As it lies in the word: 65535 is one exclusive pin.
    pins: u32,
}

const ALONE: u32 = 65535;

impl Fields {
    fn of(word: Word) -> Self {
        Self {
            state: word.state(),
            waiters: word.has_waiters(),
            flag: word.0 & 1 << 4 != 0,
            heat: word.heat(),
            ghost: word.0 & 1 << 7 != 0,
            stamp: word.stamp(),
            pins: (word.0 >> 16) as u32 & 0xffff,
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
            State::Dirty => 5,
            State::WritingBack => 6,
            State::Changing => 7,
        };
        Word(
            state
                | u64::from(self.waiters) << 3
                | u64::from(self.flag) << 4
                | u64::from(self.heat) << 5
                | u64::from(self.ghost) << 7
                | u64::from(self.stamp) << 8
                | u64::from(self.pins) << 16,
        )
    }

    /// Whether the table can lead to such a word at all.
    fn reachable(self) -> bool {
        use State::*;
        let owned = matches!(self.state, Filling | Evicting | Changing);
        let flagged = matches!(self.state, Filling | Evicting | Changing | Dirty | Failed);
        let ghostly = matches!(self.state, Absent | Filling | Failed | Changing);
        let ghostly = ghostly || self.state == Evicting && self.flag;
        let alone = matches!(self.state, Dirty | Changing | Failed);
        let may_wait =
            owned || self.state == WritingBack || self.state == Dirty && self.flag || self.pins > 0;
        let may_wait = may_wait || self.state == Failed && self.flag;
        // What is locked to write was in no write, and its pin was not exclusive.
        let lent = self.state == Changing && self.ghost;
        (may_wait || !self.waiters)
            && (flagged || !self.flag)
            && (ghostly || !self.ghost)
            && (alone || self.pins != ALONE)
            && !(lent && (self.flag || self.pins == ALONE))
    }

    fn writing(self) -> bool {
        let flagged = matches!(self.state, State::Dirty | State::Changing | State::Failed) && self.flag;
        self.state == State::WritingBack || flagged
    }

    fn lent(self) -> bool {
        self.state == State::Changing && self.ghost
    }
}

fn all_words() -> Vec<Fields> {
    use State::*;
    let states = [Absent, Filling, Clean, Failed, Evicting, Dirty, WritingBack, Changing];
    let mut all = Vec::new();
    for state in states {
        for bits in 0..32u32 {
            for stamp in [0, 1, 200, 255] {
                for pins in [0, 1, 2, MAX_PINS - 1, MAX_PINS, ALONE] {
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

const TRANSITIONS: [Transition; 36] = [
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
    Transition::SupplyDirty { stamp: 77, heat: 2 },
    Transition::SupplyPinnedMut { stamp: 77, heat: 2 },
    Transition::LockToStore,
    Transition::LockToPin,
    Transition::LockToWrite,
    Transition::LockToPinMut,
    Transition::Upgrade,
    Transition::Stored,
    Transition::PinnedDirty,
    Transition::PinnedMut,
    Transition::UnpinMut,
    Transition::Copied,
    Transition::Written,
    Transition::WriteFailed,
    Transition::Discarded { stamp: 99 },
    Transition::Redirty,
    Transition::Unlocked,
    Transition::LockToLook,
    Transition::Unlook,
    Transition::Lost { lent: false },
    Transition::Lost { lent: true },
];

/// The second table: what a page is after `transition`, field by field.
fn expected(now: Fields, transition: Transition) -> Option<Fields> {
    let moved = |state| Fields { state, waiters: false, flag: false, ..now };
    let framed = matches!(now.state, State::Clean | State::Dirty | State::WritingBack | State::Changing);
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
        Transition::Pin => (matches!(now.state, State::Clean | State::WritingBack) && now.pins < MAX_PINS)
            .then(|| Fields { pins: now.pins + 1, ..now }),
        Transition::PinAgain => {
            (framed && (1..MAX_PINS).contains(&now.pins)).then(|| Fields { pins: now.pins + 1, ..now })
        }
        Transition::Unpin => (1..=MAX_PINS).contains(&now.pins).then(|| Fields {
            pins: now.pins - 1,
            waiters: now.waiters && now.pins > 1,
            ..now
        }),
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
        Transition::Retry => (now.state == State::Failed && now.pins == 0 && !now.flag)
            .then_some(Fields { flag: true, ..moved(State::Evicting) }),
        Transition::SetHeat { heat } => (now.state == State::Clean).then_some(Fields { heat, ..now }),
        store => expected_of_store(now, store),
    }
}

/// The part of the second table that is about stores and writes.
fn expected_of_store(now: Fields, transition: Transition) -> Option<Fields> {
    use State::*;
    let moved = |state, flag| Fields { state, waiters: false, flag, ..now };
    let resident = matches!(now.state, Clean | Dirty | WritingBack);
    let changing = now.state == Changing && !now.ghost;
    let lost = now.state == Failed && now.flag;
    let dirty = now.state == Dirty;
    match transition {
        Transition::SupplyDirty { stamp, heat } => (now.state == Filling && now.pins == 0)
            .then_some(Fields { stamp, heat, ghost: false, ..moved(Dirty, false) }),
        Transition::SupplyPinnedMut { stamp, heat } => (now.state == Filling && now.pins == 0)
            .then_some(Fields { stamp, heat, ghost: false, pins: ALONE, ..moved(Dirty, false) }),
        Transition::LockToStore => {
            (resident && matches!(now.pins, 0 | ALONE)).then_some(moved(Changing, now.writing()))
        }
        Transition::LockToPin => (dirty && now.pins == 0).then_some(moved(Changing, now.flag)),
        Transition::LockToWrite => (dirty && !now.flag && now.pins != ALONE)
            .then_some(Fields { ghost: true, ..moved(Changing, false) }),
        Transition::LockToPinMut => (resident && now.pins == 0).then_some(moved(Changing, now.writing())),
        Transition::Upgrade => {
            (resident && now.pins == 1).then_some(Fields { pins: 0, ..moved(Changing, now.writing()) })
        }
        Transition::Redirty => (now.state == Clean).then_some(Fields { state: Dirty, ..now }),
        Transition::Stored => changing.then_some(moved(Dirty, now.flag)),
        Transition::PinnedDirty => {
            (changing && now.pins == 0).then_some(Fields { pins: 1, ..moved(Dirty, now.flag) })
        }
        Transition::PinnedMut => {
            (changing && now.pins == 0).then_some(Fields { pins: ALONE, ..moved(Dirty, now.flag) })
        }
        Transition::Unlocked if lost => Some(moved(Failed, false)),
        Transition::Unlocked => now.lent().then_some(Fields { ghost: false, ..moved(Dirty, false) }),
        Transition::LockToLook => match now.state {
            Clean => Some(moved(Evicting, false)),
            Dirty => Some(moved(Changing, now.flag)),
            Changing if now.lent() => Some(Fields { ghost: false, ..now }),
            _ => None,
        },
        Transition::Unlook => (changing && !now.flag && now.pins != ALONE)
            .then_some(Fields { ghost: true, ..moved(Changing, false) }),
        Transition::Lost { lent } => changing.then_some(moved(Failed, now.flag || lent)),
        Transition::UnpinMut => (matches!(now.state, Dirty | Changing | Failed) && now.pins == ALONE)
            .then_some(Fields { pins: 0, ..moved(now.state, now.flag) }),
        Transition::Copied if lost => Some(now),
        Transition::Copied => now.lent().then_some(Fields { ghost: false, ..moved(WritingBack, false) }),
        Transition::Written if now.state == WritingBack => Some(moved(Clean, false)),
        Transition::WriteFailed if now.state == WritingBack => Some(moved(Dirty, false)),
        Transition::Written | Transition::WriteFailed => now.writing().then_some(moved(now.state, false)),
        Transition::Discarded { stamp } => (changing && !now.flag && now.pins == 0).then_some(Fields {
            stamp,
            heat: 0,
            ghost: true,
            ..moved(Absent, false)
        }),
        _ => None,
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
fn the_version_changes_exactly_where_a_page_stops_being_readable() {
    const LAST: u64 = 0xffff_ffff << 32;
    for fields in all_words() {
        for version in [0, 7 << 32, LAST] {
            let word = Word(fields.word().0 | version);
            for transition in TRANSITIONS {
                let Some(after) = word.after(transition) else { continue };
                let stops = word.is_readable() && !after.is_readable();
                let want = word.version().wrapping_add(u32::from(stops));
                assert_eq!(after.version(), want, "{word:?} and {transition:?}");
            }
        }
    }
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
    let framed = |word: Word| word.is_resident() || word.state() == State::Changing;
    for fields in all_words().into_iter().filter(|fields| fields.pins > 0) {
        let word = fields.word();
        assert_eq!(word.after(Transition::Evict), None);
        for transition in TRANSITIONS {
            // Who looks takes no frame that is there, and a frame that is lost is gone already.
            let looks = matches!(transition, Transition::LockToLook | Transition::Lost { .. });
            if let Some(after) = word.after(transition).filter(|_| framed(word) && !looks) {
                assert!(framed(after), "{transition:?} moved a pinned page to {after:?}");
            }
        }
    }
}

#[test]
fn a_pinned_page_is_filled_again_with_its_pins_and_never_with_other_bytes() {
    let page = PageWord::new();
    page.advance(Transition::Claim { deferred: false }).unwrap();
    page.advance(Transition::Supply { stamp: 0, heat: 0 }).unwrap();
    page.advance(Transition::Pin).unwrap();
    assert_eq!(page.advance(Transition::LockToLook).unwrap().after.state(), State::Evicting);
    assert!(page.advance(Transition::PinAgain).is_err(), "a pin of a frame that may be gone");
    let gone = page.advance(Transition::Evicted { stamp: 1 }).unwrap().after;
    assert_eq!((gone.state(), gone.pins()), (State::Absent, 1));
    page.advance(Transition::Claim { deferred: false }).unwrap();
    assert!(page.advance(Transition::SupplyDirty { stamp: 1, heat: 0 }).is_err(), "new bytes under a pin");
    let back = page.advance(Transition::Supply { stamp: 1, heat: 0 }).unwrap().after;
    assert_eq!((back.state(), back.pins()), (State::Clean, 1));
    page.advance(Transition::Unpin).unwrap();
    assert!(page.advance(Transition::Evict).is_ok());
}

#[test]
fn a_page_that_is_lost_while_it_is_copied_fails_and_its_holder_goes_on() {
    let page = PageWord::new();
    page.advance(Transition::Claim { deferred: false }).unwrap();
    page.advance(Transition::SupplyDirty { stamp: 0, heat: 0 }).unwrap();
    assert!(page.advance(Transition::LockToWrite).unwrap().after.is_lent());
    page.advance(Transition::LockToLook).unwrap();
    for leave in [Transition::Copied, Transition::Unlocked] {
        assert!(page.advance(leave).is_err(), "{leave:?} while another looks");
    }
    assert!(page.announce_waiter().is_some());
    assert!(page.advance(Transition::Unlook).unwrap().must_wake());
    page.advance(Transition::LockToLook).unwrap();
    let lost = page.advance(Transition::Lost { lent: true }).unwrap().after;
    assert!(lost.state() == State::Failed && lost.is_writing());
    assert!(page.advance(Transition::Retry).is_err(), "filled again while an old copy is on its way");
    page.advance(Transition::Copied).unwrap();
    page.advance(Transition::Written).unwrap();
    assert!(page.advance(Transition::Written).is_err());
    assert!(page.advance(Transition::Retry).is_ok());
}

#[test]
fn a_page_pinned_for_reading_is_never_opened_to_stores() {
    for fields in all_words().into_iter().filter(|fields| (1..ALONE).contains(&fields.pins)) {
        for transition in [Transition::LockToStore, Transition::LockToPinMut] {
            assert_eq!(fields.word().after(transition), None, "{fields:?}");
        }
    }
}

#[test]
fn dirty_bytes_leave_by_a_write_or_on_the_users_word_only() {
    let unwritten = |state| matches!(state, State::Dirty | State::WritingBack | State::Changing);
    for fields in all_words().into_iter().filter(|fields| unwritten(fields.state)) {
        for transition in TRANSITIONS {
            let Some(after) = fields.word().after(transition) else { continue };
            let told = matches!(
                transition,
                Transition::Written | Transition::Discarded { .. } | Transition::Lost { .. }
            );
            assert!(unwritten(after.state()) || told, "{fields:?} and {transition:?} made {after:?}");
        }
    }
}

#[test]
fn a_page_stored_to_while_it_is_written_stays_dirty_and_is_not_written_twice_at_once() {
    let page = PageWord::new();
    page.advance(Transition::Claim { deferred: false }).unwrap();
    page.advance(Transition::Supply { stamp: 0, heat: 0 }).unwrap();
    page.advance(Transition::LockToStore).unwrap();
    page.advance(Transition::Stored).unwrap();
    page.advance(Transition::LockToWrite).unwrap();
    assert_eq!(page.advance(Transition::Copied).unwrap().after.state(), State::WritingBack);
    page.advance(Transition::LockToStore).unwrap();
    let again = page.advance(Transition::Stored).unwrap().after;
    assert!(again.state() == State::Dirty && again.is_writing());
    assert!(page.advance(Transition::LockToWrite).is_err(), "two writes in flight could pass each other");
    let written = page.advance(Transition::Written).unwrap().after;
    assert!(written.state() == State::Dirty && !written.is_writing());
    assert!(page.advance(Transition::LockToWrite).is_ok());
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
            let Some(after) = before.after(transition) else { continue };
            let frees =
                matches!(transition, Transition::UnpinMut | Transition::Written | Transition::WriteFailed);
            // Nobody waits for a page to be Clean; a sleeper of its pins sleeps on.
            let turned = after.state() != before.state() && transition != Transition::Redirty;
            if turned || frees {
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
