//! What nobody else hears: events of the crate `tracing`, with what they are about as fields.
//!
//! | level | what |
//! | --- | --- |
//! | error | bytes are lost, a thread has ended, the system refuses something that is needed |
//! | warn | a client or machine is refused, dropped or ended |
//! | info | machines come and go |
//! | debug | clients come and go, and what they are told of pages |

use tracing::Dispatch;
use tracing::dispatcher::{get_default, with_default};

/// Events go to the subscriber of the thread that made this, whichever threads they come from.
#[derive(Clone)]
pub(crate) struct Log(Dispatch);

impl Log {
    /// For the subscriber of the calling thread: its own, or else that of the process.
    pub(crate) fn here() -> Self {
        Self(get_default(Dispatch::clone))
    }

    /// Has `emit` emit its events.
    pub(crate) fn with(&self, emit: impl FnOnce()) {
        with_default(&self.0, emit);
    }
}
