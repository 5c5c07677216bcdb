//! One atomic word for each page, and the one table of its transitions.
//!
//! ```text
//!                Claim              Supply
//!   Absent ----------------> Filling ------> Clean (pins, heat, stamp)
//!     ^  ^                   |    |            |  ^
//!     |  '-------Abandon-----'    | Fail  Evict|  | Spare
//!     |                           v            v  |
//!     |                        Failed -Retry-> Evicting
//!     |                                        |
//!     '-----------------Evicted / Release------'      Hold: Absent -> Evicting
//! ```
//!
//! Whoever moved a page to `Filling` or `Evicting` owns it alone and must move it on; everybody else waits
//! for the word to change. A pin is a count in the same word, so "not pinned" and "being evicted" are decided
//! by one compare-and-swap. `Evicting` also holds off *absent* pages inside a run that is being zapped, so
//! that no page can be filled between the choice of the run and the system call. The word remembers which of
//! the two it was: a page with a frame leaves by `Evicted` or `Spare`, a page without one only by `Release`,
//! so that a page that has no frame can never turn Clean.
//!
//! Layout of the 32 bits, low to high: state 3, waiters 1, deferred (while Filling) or held (while Evicting)
//! 1, heat 2, ghost 1, stamp 8, pins 16. The ghost bit and the stamp stay from Absent through Filling and
//! Failed.

use core::fmt;
#[cfg(not(loom))]
use core::sync::atomic::{AtomicU32, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};

const STATE: u32 = 0b111;
const WAITERS: u32 = 1 << 3;
// One bit with two meanings: the state tells which.
const DEFERRED: u32 = 1 << 4;
const HELD: u32 = DEFERRED;
const HEAT_SHIFT: u32 = 5;
const HEAT: u32 = 0b11 << HEAT_SHIFT;
const GHOST: u32 = 1 << 7;
const STAMP_SHIFT: u32 = 8;
const STAMP: u32 = 0xff << STAMP_SHIFT;
const PIN_SHIFT: u32 = 16;
const PIN_ONE: u32 = 1 << PIN_SHIFT;

/// The most pins that one page can carry at once.
pub const MAX_PINS: u32 = 0xffff;

/// What a page is at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    /// No frame holds it.
    Absent = 0,
    /// Somebody is obtaining it.
    Filling = 1,
    /// A frame holds the bytes of the object's version.
    Clean = 2,
    /// It could not be supplied; the error is with the object.
    Failed = 3,
    /// Its frame is being taken away, or it is held off while neighbours' frames are.
    Evicting = 4,
}

/// A step in the life of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// Absent to Filling. `deferred` says that the filler places the page only when asked for it.
    Claim {
        /// See above.
        deferred: bool,
    },
    /// Filling to Clean: the frame is in place.
    Supply {
        /// The reclaim clock at this moment.
        stamp: u8,
        /// What reclaim is to know of the page, 0 to 3.
        heat: u8,
    },
    /// Filling to Failed.
    Fail,
    /// Filling to Absent: the filler gave up without an answer.
    Abandon,
    /// One pin more on a Clean page.
    Pin,
    /// One pin more on a page that is pinned already.
    PinAgain,
    /// One pin less.
    Unpin,
    /// Clean and not pinned, to Evicting.
    Evict,
    /// Evicting to Clean: the frame could not be taken. Not for a page that was held off.
    Spare,
    /// Evicting to Absent: the frame is gone. Not for a page that was held off.
    Evicted {
        /// The reclaim clock at this moment.
        stamp: u8,
    },
    /// Absent to Evicting, to hold the page off.
    Hold,
    /// Evicting to Absent for a page that was held off.
    Release,
    /// Failed to Evicting, held off: the owner removes the poison, then releases the page.
    Retry,
    /// Clean stays Clean with another heat.
    SetHeat {
        /// What reclaim is to know of the page, 0 to 3.
        heat: u8,
    },
}

/// A value of a page word.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Word(pub u32);

impl Word {
    /// The state.
    pub const fn state(self) -> State {
        match self.0 & STATE {
            0 => State::Absent,
            1 => State::Filling,
            2 => State::Clean,
            3 => State::Failed,
            _ => State::Evicting,
        }
    }

    /// How many pins hold the page.
    pub const fn pins(self) -> u32 {
        self.0 >> PIN_SHIFT
    }

    /// Whether somebody sleeps until the word changes.
    pub const fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    /// Whether the filler waits to be asked before it places the page.
    pub const fn is_deferred(self) -> bool {
        matches!(self.state(), State::Filling) && self.0 & DEFERRED != 0
    }

    /// Whether the page has no frame and is only held off while its neighbours' frames are taken.
    pub const fn is_held(self) -> bool {
        matches!(self.state(), State::Evicting) && self.0 & HELD != 0
    }

    /// What reclaim knows of the page; `reclaim` says what the values mean.
    pub const fn heat(self) -> u8 {
        ((self.0 & HEAT) >> HEAT_SHIFT) as u8
    }

    /// Whether an absent page was resident before; then `stamp` tells when it left.
    pub const fn is_ghost(self) -> bool {
        self.0 & GHOST != 0
    }

    /// The reclaim clock when the page came (Clean) or went (Absent).
    pub const fn stamp(self) -> u8 {
        ((self.0 & STAMP) >> STAMP_SHIFT) as u8
    }

    const fn with_state(self, state: State) -> Word {
        Word((self.0 & !(STATE | WAITERS | DEFERRED)) | state as u32)
    }

    const fn with_stamp(self, stamp: u8) -> Word {
        Word((self.0 & !STAMP) | ((stamp as u32) << STAMP_SHIFT))
    }

    const fn with_heat(self, heat: u8) -> Word {
        let heat = if heat > 3 { 3 } else { heat };
        Word((self.0 & !HEAT) | ((heat as u32) << HEAT_SHIFT))
    }

    /// The transition table: the word after `transition`, or `None` where it is not allowed.
    pub const fn after(self, transition: Transition) -> Option<Word> {
        use State::*;
        let next = match (self.state(), transition) {
            (Absent, Transition::Claim { deferred }) => {
                let word = self.with_state(Filling);
                Word(word.0 | if deferred { DEFERRED } else { 0 })
            }
            (Filling, Transition::Supply { stamp, heat }) => {
                let word = self.with_state(Clean).with_stamp(stamp).with_heat(heat);
                Word(word.0 & !GHOST)
            }
            (Filling, Transition::Fail) => self.with_state(Failed),
            (Filling, Transition::Abandon) => self.with_state(Absent),
            (Clean, Transition::Pin) if self.pins() < MAX_PINS => Word(self.0 + PIN_ONE),
            (Clean, Transition::PinAgain) if self.pins() > 0 && self.pins() < MAX_PINS => {
                Word(self.0 + PIN_ONE)
            }
            (Clean, Transition::Unpin) if self.pins() > 0 => Word(self.0 - PIN_ONE),
            (Clean, Transition::Evict) if self.pins() == 0 => self.with_state(Evicting),
            (Clean, Transition::SetHeat { heat }) => self.with_heat(heat),
            (Evicting, Transition::Spare) if !self.is_held() => self.with_state(Clean),
            (Evicting, Transition::Evicted { stamp }) if !self.is_held() => {
                Word(self.with_state(Absent).with_stamp(stamp).with_heat(0).0 | GHOST)
            }
            (Absent, Transition::Hold) => Word(self.with_state(Evicting).0 | HELD),
            (Evicting, Transition::Release) if self.is_held() => self.with_state(Absent),
            (Failed, Transition::Retry) => Word(self.with_state(Evicting).0 | HELD),
            _ => return None,
        };
        Some(next)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Word")
            .field("state", &self.state())
            .field("pins", &self.pins())
            .field("heat", &self.heat())
            .field("stamp", &self.stamp())
            .field("ghost", &self.is_ghost())
            .field("held", &self.is_held())
            .field("deferred", &self.is_deferred())
            .field("waiters", &self.has_waiters())
            .finish()
    }
}

/// The shared word of one page. All zero bits are a page that was never resident.
#[repr(transparent)]
#[derive(Debug)]
pub struct PageWord(AtomicU32);

/// What [`PageWord::advance`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advanced {
    /// The word before.
    pub before: Word,
    /// The word after.
    pub after: Word,
}

impl Advanced {
    /// Whether sleepers have to be woken now: there were some, and the word told them so no longer.
    pub const fn must_wake(self) -> bool {
        self.before.has_waiters() && !self.after.has_waiters()
    }
}

impl PageWord {
    /// A page that was never resident.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// A page that was never resident.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The word now. Acquire: the bytes of a page seen Clean are seen too.
    pub fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    /// Makes `transition` in one atomic step, or returns the word that does not allow it.
    ///
    /// Never blocks and never allocates, so it may be called from a signal handler.
    pub fn advance(&self, transition: Transition) -> Result<Advanced, Word> {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let Some(after) = Word(before).after(transition) else {
                return Err(Word(before));
            };
            match self.0.compare_exchange_weak(before, after.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Advanced { before: Word(before), after }),
                Err(seen) => before = seen,
            }
        }
    }

    /// Announces a sleeper while somebody else owns the page.
    ///
    /// Returns the word to sleep on, or `None` when nobody owns the page any longer and there is nothing to
    /// wait for.
    pub fn announce_waiter(&self) -> Option<Word> {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            if !matches!(Word(seen).state(), State::Filling | State::Evicting) {
                return None;
            }
            if Word(seen).has_waiters() {
                return Some(Word(seen));
            }
            match self.0.compare_exchange_weak(seen, seen | WAITERS, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Word(seen | WAITERS)),
                Err(now) => seen = now,
            }
        }
    }

    /// The word as the operating system's wait-on-address call wants it.
    #[cfg(not(loom))]
    pub fn as_atomic(&self) -> &AtomicU32 {
        &self.0
    }
}

impl Default for PageWord {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
