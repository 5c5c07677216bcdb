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
//!
//!            LockToStore, LockToPin, LockToWrite                  Written
//!   Clean, Dirty, WritingBack ------> Changing --Copied--> WritingBack -----> Clean
//!                                      |    |                   |
//!                              Stored  v    | Discarded         | WriteFailed
//!   Filling --SupplyDirty----------> Dirty  '--> Absent         '-----> Dirty
//! ```
//!
//! A page that stores may reach is write-protected in all states but Dirty; whoever takes the protection away or
//! puts it back holds the page in `Changing` while doing so, which lasts for a system call and a copy of the page.
//! A page that is stored to while a write of it is in flight goes to Dirty at once and keeps the bit *writing*
//! until the write has ended: it is not written again before that, so that two writes of one page can never pass
//! each other.
//!
//! A frame can be dropped from outside, by a stray madvise(2), whatever the word says. Whoever meets a page that has a
//! frame by its word and none in memory looks again with `LockToLook`: a Clean page goes to `Evicting`, a Dirty one to
//! `Changing`. So nobody evicts it, fills it or stores to it between the look and what follows. If the frame is there,
//! the page goes back (`Spare`, `Stored`). If it is gone, a Clean page leaves by `Evicted` and is obtained again; pins
//! stay, since its pager has the same bytes. A Dirty page leaves by `Lost` and is Failed: nobody has its bytes.
//!
//! The holder of `LockToWrite` copies the page, and would fault for ever on a frame that is gone. So it lends the page:
//! whoever resolves its fault may take it by `LockToLook`, and gives it back by `Unlook`. The holder cannot leave
//! meanwhile. If the page gets lost, the holder leaves it Failed.
//!
//! The owner of a page's only pin can take the page to `Changing` by `Upgrade`, which ends the pin. So nobody can store to
//! the page between a pin for reading and the changes that its owner makes.
//!
//! Whoever moved a page to `Filling` or `Evicting` owns it alone and must move it on; everybody else waits
//! for the word to change. A pin is a count in the same word, so "not pinned" and "being evicted" are decided
//! by one compare-and-swap. `Evicting` also holds off *absent* pages inside a run that is being zapped, so
//! that no page can be filled between the choice of the run and the system call. The word remembers which of
//! the two it was: a page with a frame leaves by `Evicted` or `Spare`, a page without one only by `Release`,
//! so that a page that has no frame can never turn Clean.
//!
//! A *version* counts how often the page stopped being readable: its frame went, or somebody locked it to change its
//! bytes. A reader that sees the same version before and after has read bytes that belong together, without a store
//! of its own ([`Word::is_readable`]). Plain stores to a page that is open to them are seen word by word.
//!
//! Layout of the 64 bits, low to high: state 3, waiters 1, deferred (while Filling), held (while Evicting) or
//! writing (while Dirty, Changing or Failed) 1, heat 2, ghost or lent (while Changing) 1, stamp 8, pins 16, version 32.
//! The ghost bit and the stamp stay from Absent through Filling and Failed. Sleepers sleep on the low half.

use core::fmt;
#[cfg(not(loom))]
use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};

const STATE: u64 = 0b111;
const WAITERS: u64 = 1 << 3;
// One bit with three meanings: the state tells which.
const DEFERRED: u64 = 1 << 4;
const HELD: u64 = DEFERRED;
const WRITING: u64 = DEFERRED;
const HEAT_SHIFT: u32 = 5;
const HEAT: u64 = 0b11 << HEAT_SHIFT;
// One bit with two meanings, likewise.
const GHOST: u64 = 1 << 7;
const LENT: u64 = GHOST;
const STAMP_SHIFT: u32 = 8;
const STAMP: u64 = 0xff << STAMP_SHIFT;
const PIN_SHIFT: u32 = 16;
const PIN_ONE: u64 = 1 << PIN_SHIFT;
const PINS: u64 = 0xffff << PIN_SHIFT;
const VERSION_SHIFT: u32 = 32;
const VERSION_ONE: u64 = 1 << VERSION_SHIFT;

/// The most pins that one page can carry at once.
pub const MAX_PINS: u32 = 0xfffe;
/// The count of pins that stands for one exclusive pin.
const EXCLUSIVE: u32 = 0xffff;

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
    /// Its frame holds bytes that the pager does not have yet; stores go on unseen.
    Dirty = 5,
    /// Its bytes are on the way to the pager; no store has come since they were copied.
    WritingBack = 6,
    /// Its protection is being changed, or its bytes are being copied: stores wait.
    Changing = 7,
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
    /// One pin less, whatever became of the page.
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
    /// Failed to Evicting, held off: the owner removes the poison, then releases the page. Not while pins hold it, nor
    /// while a write of it is in flight.
    Retry,
    /// Clean stays Clean with another heat.
    SetHeat {
        /// What reclaim is to know of the page, 0 to 3.
        heat: u8,
    },
    /// Filling to Dirty: the frame is in place, with bytes that the pager does not have. Stores still fault.
    SupplyDirty {
        /// The reclaim clock at this moment.
        stamp: u8,
        /// What reclaim is to know of the page, 0 to 3.
        heat: u8,
    },
    /// As `SupplyDirty`, with an exclusive pin from the start: nobody else has ever seen these bytes by the word.
    SupplyPinnedMut {
        /// The reclaim clock at this moment.
        stamp: u8,
        /// What reclaim is to know of the page, 0 to 3.
        heat: u8,
    },
    /// Clean, Dirty or WritingBack to Changing, to open the page to stores. Not while shared pins hold it.
    LockToStore,
    /// Dirty to Changing, to protect the page for its first pin.
    LockToPin,
    /// Dirty to Changing, to protect the page and copy its bytes for a write. Not while another write of it is in
    /// flight, nor while an exclusive pin holds it.
    LockToWrite,
    /// Clean, Dirty or WritingBack to Changing, to open the page for an exclusive pin. Not while pins hold it.
    LockToPinMut,
    /// Clean, Dirty or WritingBack to Changing, by the owner of the page's only pin: that pin ends, so that an exclusive
    /// one can follow.
    Upgrade,
    /// Changing to Dirty. Not for a page that is locked to write.
    Stored,
    /// Changing to Dirty for a page that was locked to write, and is not written. A lost page stays Failed.
    Unlocked,
    /// A page that has a frame, to see whether it still has it: Clean to Evicting, Dirty to Changing, and Changing
    /// taken from whoever has locked it to write. Whatever pins there are stay.
    LockToLook,
    /// The page goes back to whoever has locked it to write.
    Unlook,
    /// Changing to Failed: the frame is gone, and with it bytes that nobody else has.
    Lost {
        /// It was taken from whoever has locked it to write.
        lent: bool,
    },
    /// Changing to Dirty with its first pin; the page is protected.
    PinnedDirty,
    /// Changing to Dirty with an exclusive pin.
    PinnedMut,
    /// The exclusive pin ends.
    UnpinMut,
    /// Changing to WritingBack: the bytes are copied. A page that was lost since stays Failed, its write in flight.
    Copied,
    /// The write in flight is done: WritingBack to Clean; a page that was stored to since stays Dirty.
    Written,
    /// The write in flight has failed: WritingBack to Dirty.
    WriteFailed,
    /// Clean to Dirty, protected as it is: the pager has lost what it had taken.
    Redirty,
    /// Changing to Absent: the frame and its bytes are gone, on the user's word.
    Discarded {
        /// The reclaim clock at this moment.
        stamp: u8,
    },
}

/// A value of a page word.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Word(pub u64);

impl Word {
    /// The state.
    #[inline]
    pub const fn state(self) -> State {
        match self.0 & STATE {
            0 => State::Absent,
            1 => State::Filling,
            2 => State::Clean,
            3 => State::Failed,
            4 => State::Evicting,
            5 => State::Dirty,
            6 => State::WritingBack,
            _ => State::Changing,
        }
    }

    /// The count of pins as it lies in the word.
    #[inline]
    const fn pin_count(self) -> u32 {
        ((self.0 & PINS) >> PIN_SHIFT) as u32
    }

    /// How many pins hold the page; an exclusive pin counts as one.
    #[inline]
    pub const fn pins(self) -> u32 {
        match self.pin_count() {
            EXCLUSIVE => 1,
            pins => pins,
        }
    }

    /// Whether the one pin of the page is exclusive.
    #[inline]
    pub const fn is_pinned_mut(self) -> bool {
        self.pin_count() == EXCLUSIVE
    }

    /// How many pins hold the page for reading.
    #[inline]
    const fn shared_pins(self) -> u32 {
        if self.is_pinned_mut() { 0 } else { self.pins() }
    }

    /// Whether a write of the page is in flight.
    pub const fn is_writing(self) -> bool {
        match self.state() {
            State::WritingBack => true,
            State::Dirty | State::Changing | State::Failed => self.0 & WRITING != 0,
            _ => false,
        }
    }

    /// Whether the page has a frame that may be read.
    #[inline]
    pub const fn is_resident(self) -> bool {
        matches!(self.state(), State::Clean | State::Dirty | State::WritingBack)
    }

    /// Whether the page has a frame whose bytes anybody may load, as they belong together, until the version changes.
    #[inline]
    pub const fn is_readable(self) -> bool {
        self.is_resident() && !self.is_pinned_mut()
    }

    /// How often the page has stopped being readable, modulo 2^32.
    #[inline]
    pub const fn version(self) -> u32 {
        (self.0 >> VERSION_SHIFT) as u32
    }

    /// The half that sleepers sleep on.
    pub const fn low_half(self) -> u32 {
        self.0 as u32
    }

    /// Whether somebody owns the page for a while, so that waiting for its word to change makes sense.
    pub const fn is_owned(self) -> bool {
        matches!(self.state(), State::Filling | State::Evicting | State::Changing)
    }

    /// Whether no frame holds it, and nobody obtains it.
    #[inline]
    pub const fn is_absent(self) -> bool {
        matches!(self.state(), State::Absent)
    }

    /// Whether it is absent and not pinned: the word says nothing that must not be forgotten.
    #[inline]
    pub const fn is_free(self) -> bool {
        self.is_absent() && self.pins() == 0
    }

    /// Whether it could not be supplied, or its changes are lost.
    pub const fn has_failed(self) -> bool {
        matches!(self.state(), State::Failed)
    }

    /// Whether a frame holds what the pager has.
    pub const fn is_clean(self) -> bool {
        matches!(self.state(), State::Clean)
    }

    /// Whether somebody obtains it, or takes its frame: what comes next is told by the next word.
    pub const fn is_coming_or_going(self) -> bool {
        matches!(self.state(), State::Filling | State::Evicting)
    }

    /// Whether somebody changes it, or its protection, for the time of a system call.
    pub const fn is_changing(self) -> bool {
        matches!(self.state(), State::Changing)
    }

    /// Whether the pager does not have its bytes yet, as far as anybody can tell.
    pub const fn is_unwritten(self) -> bool {
        matches!(self.state(), State::Dirty | State::Changing) || self.is_writing()
    }

    /// Whether its bytes may be written now.
    pub const fn may_be_written(self) -> bool {
        matches!(self.state(), State::Dirty) && !self.is_writing() && !self.is_pinned_mut()
    }

    /// Whether somebody stores to it by an exclusive pin, or is about to let stores on.
    pub const fn may_be_stored_to(self) -> bool {
        self.is_pinned_mut() || (self.is_changing() && !self.is_lent())
    }

    /// Whether the page is owned, or resident and pinned for reading: what keeps a plain store from being let on.
    pub const fn keeps_stores_off(self) -> bool {
        self.is_owned() || (self.is_resident() && self.shared_pins() > 0)
    }

    /// Whether the page is owned, pinned, or on its way to the pager: what a writer of it may have to wait for.
    pub const fn is_busy(self) -> bool {
        self.is_owned() || self.is_writing() || self.pins() > 0
    }

    /// Whether somebody sleeps until the word changes.
    #[inline]
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
        !matches!(self.state(), State::Changing) && self.0 & GHOST != 0
    }

    /// Whether the page is locked to write, and its holder lends it to whoever has to look whether its frame is there.
    pub const fn is_lent(self) -> bool {
        matches!(self.state(), State::Changing) && self.0 & LENT != 0
    }

    /// The reclaim clock when the page came (Clean) or went (Absent).
    pub const fn stamp(self) -> u8 {
        ((self.0 & STAMP) >> STAMP_SHIFT) as u8
    }

    const fn with_state(self, state: State) -> Word {
        Word((self.0 & !(STATE | WAITERS | DEFERRED)) | state as u64)
    }

    const fn with_stamp(self, stamp: u8) -> Word {
        Word((self.0 & !STAMP) | ((stamp as u64) << STAMP_SHIFT))
    }

    const fn with_heat(self, heat: u8) -> Word {
        let heat = if heat > 3 { 3 } else { heat };
        Word((self.0 & !HEAT) | ((heat as u64) << HEAT_SHIFT))
    }

    /// The transition table: the word after `transition`, or `None` where it is not allowed.
    pub const fn after(self, transition: Transition) -> Option<Word> {
        match self.next(transition) {
            Some(next) if self.is_readable() && !next.is_readable() => {
                Some(Word(next.0.wrapping_add(VERSION_ONE)))
            }
            next => next,
        }
    }

    /// As `after`, with the version as it is.
    const fn next(self, transition: Transition) -> Option<Word> {
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
            (Clean | WritingBack, Transition::Pin) if self.takes_pin() => Word(self.0 + PIN_ONE),
            (Clean | Dirty | WritingBack | Changing, Transition::PinAgain)
                if self.takes_pin() && self.pins() > 0 =>
            {
                Word(self.0 + PIN_ONE)
            }
            (_, Transition::Unpin) if self.shared_pins() > 0 => {
                let last = self.shared_pins() == 1;
                Word((self.0 - PIN_ONE) & if last { !WAITERS } else { u64::MAX })
            }
            (Clean, Transition::Evict) if self.pins() == 0 => self.with_state(Evicting),
            (Clean, Transition::SetHeat { heat }) => self.with_heat(heat),
            (Evicting, Transition::Spare) if !self.is_held() => self.with_state(Clean),
            (Evicting, Transition::Evicted { stamp }) if !self.is_held() => {
                Word(self.with_state(Absent).with_stamp(stamp).with_heat(0).0 | GHOST)
            }
            (Absent, Transition::Hold) => Word(self.with_state(Evicting).0 | HELD),
            (Evicting, Transition::Release) if self.is_held() => self.with_state(Absent),
            (Failed, Transition::Retry) if self.pins() == 0 && !self.is_writing() => {
                Word(self.with_state(Evicting).0 | HELD)
            }
            (Clean | Dirty | WritingBack | Changing | Filling, _) => {
                return match self.after_look(transition) {
                    None => self.after_store(transition),
                    looked => looked,
                };
            }
            (Failed, _) => return self.after_loss(transition),
            _ => return None,
        };
        Some(next)
    }

    const fn takes_pin(self) -> bool {
        !self.is_pinned_mut() && self.pins() < MAX_PINS
    }

    /// The state with the bit *writing* as it is now; sleepers are woken.
    const fn keep_writing(self, state: State) -> Word {
        let bit = if self.is_writing() { WRITING } else { 0 };
        Word(self.with_state(state).0 | bit)
    }

    /// The part of the table that is about frames that may be gone.
    const fn after_look(self, transition: Transition) -> Option<Word> {
        use State::*;
        let next = match (self.state(), transition) {
            (Clean, Transition::LockToLook) => self.with_state(Evicting),
            (Dirty, Transition::LockToLook) => self.keep_writing(Changing),
            (Changing, Transition::LockToLook) if self.is_lent() => Word(self.0 & !LENT),
            (Changing, Transition::Unlook)
                if !self.is_lent() && !self.is_writing() && !self.is_pinned_mut() =>
            {
                Word(self.with_state(Changing).0 | LENT)
            }
            (Changing, Transition::Lost { lent }) if !self.is_lent() => {
                let failed = self.keep_writing(Failed);
                Word(failed.0 | if lent { WRITING } else { 0 })
            }
            _ => return None,
        };
        Some(next)
    }

    /// What may still come to a page that was lost: the end of a write, and of exclusive pins.
    const fn after_loss(self, transition: Transition) -> Option<Word> {
        match transition {
            Transition::Copied if self.is_writing() => Some(self),
            Transition::Unlocked | Transition::Written | Transition::WriteFailed if self.is_writing() => {
                Some(self.with_state(State::Failed))
            }
            Transition::UnpinMut if self.is_pinned_mut() => Some(Word(self.0 & !(PINS | WAITERS))),
            _ => None,
        }
    }

    /// The part of the table that is about stores and writes.
    const fn after_store(self, transition: Transition) -> Option<Word> {
        use State::*;
        let next = match (self.state(), transition) {
            (Filling, Transition::SupplyDirty { stamp, heat }) if self.pins() == 0 => {
                let word = self.with_state(Dirty).with_stamp(stamp).with_heat(heat);
                Word(word.0 & !GHOST)
            }
            (Filling, Transition::SupplyPinnedMut { stamp, heat }) if self.pins() == 0 => {
                let word = self.with_state(Dirty).with_stamp(stamp).with_heat(heat);
                Word((word.0 & !GHOST) | PINS)
            }
            (Clean | Dirty | WritingBack, Transition::LockToStore) if self.shared_pins() == 0 => {
                self.keep_writing(Changing)
            }
            (Dirty, Transition::LockToPin) if self.pins() == 0 => self.keep_writing(Changing),
            (Dirty, Transition::LockToWrite) if !self.is_writing() && !self.is_pinned_mut() => {
                Word(self.with_state(Changing).0 | LENT)
            }
            (Clean | Dirty | WritingBack, Transition::LockToPinMut) if self.pins() == 0 => {
                self.keep_writing(Changing)
            }
            (Clean | Dirty | WritingBack, Transition::Upgrade) if self.shared_pins() == 1 => {
                Word(self.keep_writing(Changing).0 - PIN_ONE)
            }
            (Changing, Transition::Stored) if !self.is_lent() => self.keep_writing(Dirty),
            (Changing, Transition::Unlocked) if self.is_lent() => Word(self.with_state(Dirty).0 & !LENT),
            (Changing, Transition::PinnedDirty) if self.pins() == 0 && !self.is_lent() => {
                Word(self.keep_writing(Dirty).0 + PIN_ONE)
            }
            (Changing, Transition::PinnedMut) if self.pins() == 0 && !self.is_lent() => {
                Word(self.keep_writing(Dirty).0 | PINS)
            }
            (Dirty | Changing, Transition::UnpinMut) if self.is_pinned_mut() => {
                Word(self.0 & !(PINS | WAITERS))
            }
            (Clean, Transition::Redirty) => Word(self.0 ^ (Clean as u64 ^ Dirty as u64)),
            (Changing, Transition::Copied) if self.is_lent() && !self.is_pinned_mut() => {
                Word(self.with_state(WritingBack).0 & !LENT)
            }
            (WritingBack, Transition::Written) => self.with_state(Clean),
            (WritingBack, Transition::WriteFailed) => self.with_state(Dirty),
            (state @ (Dirty | Changing), Transition::Written | Transition::WriteFailed)
                if self.is_writing() =>
            {
                self.with_state(state)
            }
            (Changing, Transition::Discarded { stamp })
                if !self.is_writing() && self.pins() == 0 && !self.is_lent() =>
            {
                Word(self.with_state(Absent).with_stamp(stamp).with_heat(0).0 | GHOST)
            }
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
            .field("writing", &self.is_writing())
            .field("lent", &self.is_lent())
            .field("pinned_mut", &self.is_pinned_mut())
            .field("waiters", &self.has_waiters())
            .field("version", &self.version())
            .finish()
    }
}

/// The shared word of one page. All zero bits are a page that was never resident.
#[repr(transparent)]
#[derive(Debug)]
pub struct PageWord(AtomicU64);

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
    #[inline]
    pub const fn must_wake(self) -> bool {
        self.before.has_waiters() && !self.after.has_waiters()
    }
}

impl PageWord {
    /// A page that was never resident.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A page that was never resident.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The word now. Acquire: the bytes of a page seen Clean are seen too.
    #[inline]
    pub fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    /// Makes `transition` in one atomic step, or returns the word that does not allow it.
    ///
    /// Never blocks and never allocates, so it may be called from a signal handler.
    pub fn advance(&self, transition: Transition) -> Result<Advanced, Word> {
        self.advance_from(Word(self.0.load(Ordering::Acquire)), transition)
    }

    /// As [`advance`](Self::advance), for who guesses that the word is `guess`: memory that was never touched is better
    /// not read first, which takes a fault of its own.
    pub fn advance_from(&self, guess: Word, transition: Transition) -> Result<Advanced, Word> {
        let mut before = guess.0;
        loop {
            let Some(after) = Word(before).after(transition) else {
                return Err(Word(before));
            };
            match self.0.compare_exchange_weak(before, after.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let advanced = Advanced { before: Word(before), after };
                    if advanced.before.version() != after.version() {
                        // Who sees one of the bytes that are stored from here on sees the new version, too.
                        fence(Ordering::Release);
                    }
                    return Ok(advanced);
                }
                Err(seen) => before = seen,
            }
        }
    }

    /// Whether the page has been readable all the time since its word was `before`: what was loaded meanwhile by atomic
    /// loads belongs together.
    #[inline]
    pub fn still(&self, before: Word) -> bool {
        fence(Ordering::Acquire);
        let now = Word(self.0.load(Ordering::Relaxed));
        before.is_readable() && now.is_readable() && now.version() == before.version()
    }

    /// Makes the page one that was never resident. For a host that gives back words which cost nothing, when
    /// [`Frames::forget_words`](crate::pages::Frames::forget_words) says so.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Makes the page what a process leaves behind that may have ended at any moment: nobody owns or pins it, sleeps on it
    /// or writes it. `state` is Absent, Failed, Clean or Dirty. For [`Pages::inherit`](crate::pages::Pages::inherit).
    pub(crate) fn inherit(&self, state: State) {
        let word = Word(self.0.load(Ordering::Acquire));
        let kept = HEAT | STAMP | (u64::MAX << VERSION_SHIFT);
        let ghost = if matches!(state, State::Absent) { word.0 & GHOST } else { 0 };
        // It may have stopped being readable: one version more does no harm.
        self.0.store(((word.0 & kept) | ghost | state as u64).wrapping_add(VERSION_ONE), Ordering::Release);
    }

    /// Announces a sleeper while somebody else owns the page.
    ///
    /// Returns the word to sleep on, or `None` when nobody owns the page any longer and there is nothing to
    /// wait for.
    pub fn announce_waiter(&self) -> Option<Word> {
        self.announce_waiter_while(Word::is_owned)
    }

    /// Announces a sleeper while the page is owned, pinned or on its way to the pager.
    ///
    /// Returns the word to sleep on, or `None` when there is nothing to wait for.
    pub fn announce_writer(&self) -> Option<Word> {
        self.announce_waiter_while(Word::is_busy)
    }

    /// Announces a sleeper while the page is owned or pinned for reading: what keeps a plain store from being let on. A
    /// pin for writing does not, which may be the sleeper's own, or wait for the store to end.
    ///
    /// Returns the word to sleep on, or `None` when there is nothing to wait for.
    pub fn announce_storer(&self) -> Option<Word> {
        self.announce_waiter_while(Word::keeps_stores_off)
    }

    fn announce_waiter_while(&self, holds: fn(Word) -> bool) -> Option<Word> {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            if !holds(Word(seen)) {
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

    /// The word as memory, for an operating system whose wait-on-address call takes its low half.
    #[cfg(not(loom))]
    pub fn as_atomic(&self) -> &AtomicU64 {
        &self.0
    }
}

#[cfg(all(test, not(loom)))]
impl From<Word> for PageWord {
    fn from(word: Word) -> Self {
        Self(AtomicU64::new(word.0))
    }
}

impl Default for PageWord {
    fn default() -> Self {
        Self::new()
    }
}

mod pins;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
