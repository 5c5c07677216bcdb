//! Changes of length that a pager was asked for, and may not have answered in time.
//!
//! ```text
//!   Queued --> Made --> Answered          who asked waits, and takes the answer
//!      |        '-----> (time is over)    it is not known which length the pager has, until it answers
//!      '--> GivenUp                       the pager is never called: nothing has changed
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{ErrorKind, SupplyError};
use crate::pagers::{LengthRequest, Pager};
use crate::pages::AnswerTo;

#[derive(Debug)]
enum State {
    Queued,
    Made,
    Answered(Result<(), SupplyError>),
    GivenUp,
}

/// One change that the pager is asked for.
#[derive(Clone, Debug)]
pub(crate) struct LengthChange(Arc<Mutex<State>>);

/// How a change of length went.
#[derive(Debug)]
pub(crate) enum Changed {
    Answered(Result<(), SupplyError>),
    /// The pager was not called in time, and never will be.
    NotMade,
    /// The pager was called, and has not answered.
    Unknown,
}

impl LengthChange {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `pager` for `length`, unless nobody waits any more.
    pub(crate) fn make(&self, pager: &dyn Pager, length: u64, to: AnswerTo) {
        let mut state = self.lock();
        if !matches!(*state, State::Queued) {
            drop(state);
            return drop(to);
        }
        *state = State::Made;
        drop(state);
        let change = self.clone();
        pager.set_length(LengthRequest::new(length, move |answer| {
            *change.lock() = State::Answered(answer.clone());
            to(answer);
        }));
    }

    /// How it went; nobody waits any longer.
    pub(crate) fn end(&self) -> Changed {
        let mut state = self.lock();
        match &*state {
            State::Answered(answer) => Changed::Answered(answer.clone()),
            State::Made => Changed::Unknown,
            State::Queued | State::GivenUp => {
                *state = State::GivenUp;
                Changed::NotMade
            }
        }
    }

    fn is_unanswered(&self) -> bool {
        matches!(*self.lock(), State::Queued | State::Made)
    }
}

/// What is known of the length that a pager has.
#[derive(Debug, Default)]
pub(crate) struct PagerLength(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    last: Option<LengthChange>,
    /// The pager may be longer than the object, with bytes where zeros are to be if the object grows.
    may_be_longer: bool,
}

impl PagerLength {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change that the pager is to be asked for now. Refused while an earlier one is not answered: the pager could make them
    /// in any order.
    pub(crate) fn begin(&self) -> Result<LengthChange, SupplyError> {
        let mut known = self.lock();
        if known.last.as_ref().is_some_and(LengthChange::is_unanswered) {
            let why = std::io::Error::other("the pager has not answered an earlier change of the length");
            return Err(SupplyError::because(ErrorKind::Timeout, why));
        }
        let change = LengthChange(Arc::new(Mutex::new(State::Queued)));
        known.last = Some(change.clone());
        Ok(change)
    }

    /// The object was cut off, and the pager may not have been.
    pub(crate) fn may_be_longer(&self) {
        self.lock().may_be_longer = true;
    }

    /// The pager has cut itself off, or extended itself, to where the object ends.
    pub(crate) fn is_known(&self) {
        self.lock().may_be_longer = false;
    }

    /// Whether the pager has to be told once more where the object ends.
    pub(crate) fn has_to_be_told(&self) -> bool {
        self.lock().may_be_longer
    }
}
