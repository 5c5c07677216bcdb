//! For tests: something that is done between two steps of the area.

use std::fmt;
use std::sync::{Mutex, PoisonError};

type Act = Box<dyn Fn() + Send>;

/// What a test has done after a frame was looked for, and before anything follows from the answer.
#[derive(Default)]
pub(super) struct Interposed(Mutex<Option<Act>>);

impl Interposed {
    /// Does `act` the next time.
    pub(super) fn once(&self, act: impl Fn() + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(act));
    }

    pub(super) fn call(&self) {
        let act = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(act) = act {
            act();
        }
    }
}

impl fmt::Debug for Interposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interposed")
    }
}
