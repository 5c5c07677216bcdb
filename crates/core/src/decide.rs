//! What to do on each state of a page: one function for all who come to a page.
//!
//! ```text
//!   a word, an intent --decide--> Done  go on
//!                              Show    it has a frame: have the view show it
//!                              Open    it has a frame: open it to the store; if that is refused, wait as a writer
//!                              Look    its frame is said to be missing: see whether it is there
//!                              Claim   nobody has it: claim it, and have it filled
//!                              Demand  its filler keeps it ready: ask for it, then wait
//!                              Wait    somebody holds it
//!                              Trap    it has failed
//! ```
//!
//! Signal handlers, readers of fault events, guests, pins, copies and batches execute the answers, each in its own way:
//! a signal handler sleeps on the word where a reader of events leaves the sleeper to the kernel. None of them looks at
//! states by itself.
//!
//! The answer is of a moment. Who executes it makes a transition, which fails if the word has changed; then he loads the
//! word and decides again. `pages` and the engine have loops of that kind only. An answer of `Wait` is safe at any time:
//! whoever holds a page wakes those who announce themselves in its word.

use crate::page_word::{State, Word};

/// What somebody wants of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// To load from it in a view; a load has faulted there.
    Load(Fault),
    /// To store to it in a view; a store has faulted there.
    Store(Fault),
    /// That it is resident now.
    Presence,
    /// To pin it for reading.
    Pin,
    /// To change its bytes, and nobody else meanwhile: a pin for writing, or a copy into it.
    Change,
}

/// What is known of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing but that it happened; or the page was looked for already.
    Any,
    /// The view has no page there.
    Missing,
}

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitFor {
    /// Somebody fills the page. He wakes who sleeps on a fault of it, too.
    Filler,
    /// Somebody holds the page for the time of a system call or two. He wakes who sleeps on the word.
    Holder,
    /// Its pins.
    Pins,
    /// A write of it that is in flight.
    Write,
}

/// What to do; see the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is as wished. Who wants to pin it or to change it may try to.
    Done,
    /// Have the view show the page.
    Show,
    /// Open the page to the store.
    Open,
    /// See whether its frame is there.
    Look,
    /// Claim it.
    Claim,
    /// Ask its filler to put it in place, and wait.
    Demand,
    /// Wait.
    Wait(WaitFor),
    /// It has failed.
    Trap,
}

/// What is to be done about a page whose word is `word`, for somebody who has `intent`.
pub const fn decide(word: Word, intent: Intent) -> Decision {
    match word.state() {
        State::Absent => Decision::Claim,
        State::Failed => Decision::Trap,
        State::Filling if word.is_deferred() => Decision::Demand,
        State::Filling => Decision::Wait(WaitFor::Filler),
        State::Evicting => Decision::Wait(WaitFor::Holder),
        State::Clean | State::Dirty | State::WritingBack | State::Changing => decide_framed(word, intent),
    }
}

/// The page has a frame, by its word.
const fn decide_framed(word: Word, intent: Intent) -> Decision {
    let is_changing = matches!(word.state(), State::Changing);
    match intent {
        Intent::Load(Fault::Missing) | Intent::Store(Fault::Missing) => match word.state() {
            // Its bytes are on the way to the pager: it is looked for once they are there.
            State::WritingBack => Decision::Wait(WaitFor::Write),
            _ => Decision::Look,
        },
        Intent::Load(Fault::Any) => Decision::Show,
        Intent::Store(Fault::Any) => Decision::Open,
        Intent::Presence => Decision::Done,
        Intent::Pin if word.is_pinned_mut() => Decision::Wait(WaitFor::Pins),
        Intent::Change if word.pins() > 0 => Decision::Wait(WaitFor::Pins),
        Intent::Pin | Intent::Change if is_changing => Decision::Wait(WaitFor::Holder),
        Intent::Pin | Intent::Change => Decision::Done,
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
