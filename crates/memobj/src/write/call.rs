//! Calls of a pager's own `write_back`, `sync` and `set_length`: on threads that may be left behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};

use super::Writes;
use super::transfer::Offer;
use crate::error::{ErrorKind, SupplyError, WriteError};
use crate::event::Event;
use crate::options::FailurePolicy;
use crate::threads::{self, Serves};

impl Writes {
    /// Runs `call` on a thread of its own and waits for it, as long as the object's time-out says. A call that
    /// takes longer goes on without anybody waiting.
    pub(super) fn call_aside<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Arc<Self>) -> Result<T, SupplyError> + Send + 'static,
    ) -> Result<T, SupplyError> {
        let (report, answer) = sync_channel(1);
        let writes = Arc::clone(self);
        let body = move || {
            let result = catch_unwind(AssertUnwindSafe(|| call(&writes)));
            let result = result.unwrap_or_else(|_| Err(SupplyError::new(ErrorKind::Integrity)));
            let _ = report.send(result);
        };
        let options = &self.object.options;
        let limit = options.supply_timeout.filter(|_| options.policy != FailurePolicy::WaitForEver);
        let until = limit.and_then(|limit| self.object.clock.now().checked_add(limit));
        threads::start("memobj-write", Serves::One, body)?;
        let received = match until {
            Some(until) => self.object.clock.receive(&answer, until),
            None => answer.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        received.unwrap_or_else(|error| {
            let object = self.object.name.to_string();
            self.fill.tell.event(Event::PagerDidNotReturn { object });
            Err(match error {
                RecvTimeoutError::Timeout => SupplyError::new(ErrorKind::Timeout),
                RecvTimeoutError::Disconnected => SupplyError::new(ErrorKind::Detached),
            })
        })
    }

    /// Offers copies to the pager, one after the other; the first error, if there was one.
    pub(super) fn offer(&self, copies: Vec<(Offer, Vec<u8>)>) -> Option<WriteError> {
        let mut first = None;
        for (offer, buffer) in copies {
            let bytes = offer.claim.bytes();
            let range = bytes.start..bytes.end;
            let call = || self.object.pager.write_back(range, &buffer);
            let result = catch_unwind(AssertUnwindSafe(call))
                .unwrap_or_else(|_| Err(SupplyError::new(ErrorKind::Integrity)));
            match result {
                Ok(()) => self.took(offer),
                Err(error) => {
                    let error = self.did_not_take(offer.claim, &error);
                    first.get_or_insert(error);
                }
            }
        }
        first
    }
}
