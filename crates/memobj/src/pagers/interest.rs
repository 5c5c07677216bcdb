//! Whether the answer to a request is still wanted, for requests that pagers make of other pagers.
//!
//! ```text
//!   who made the request             Interest                       the pager that is asked
//!     SupplyControl::cancel() ----> no longer wanted -------------> its hook is called, is_wanted() is false
//!                                   answered: the hook is dropped <- done(), fail(), drop
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Called when nobody waits for a request any more.
pub(crate) type Hook = Box<dyn FnOnce() + Send>;

enum State {
    Wanted(Option<Hook>),
    Cancelled,
    Answered,
}

/// What a request of one's own and its [`SupplyControl`] share.
pub(super) struct Interest {
    state: Mutex<State>,
    is_urgent: AtomicBool,
}

impl Interest {
    /// Somebody waits for the bytes now.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Wanted(None)), is_urgent: AtomicBool::new(true) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_wanted(&self) -> bool {
        matches!(*self.lock(), State::Wanted(_))
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.is_urgent.load(Ordering::Relaxed)
    }

    /// Keeps `hook` until the request is cancelled or answered.
    pub(super) fn when_unwanted(&self, hook: Hook) {
        let mut state = self.lock();
        let rest = match &mut *state {
            State::Wanted(slot) => slot.replace(hook),
            State::Answered => Some(hook),
            State::Cancelled => {
                drop(state);
                // Not on this thread: who calls this may hold a lock that the hook takes.
                let thread = std::thread::Builder::new().name("memobj-unwanted".into());
                // Without a thread the hook is dropped: the transfer goes on, and its answer finds nobody.
                return drop(thread.spawn(hook));
            }
        };
        // A hook can own anything: it is dropped without the lock.
        drop(state);
        drop(rest);
    }

    fn leave(&self, next: State) -> Option<Hook> {
        let mut state = self.lock();
        match &mut *state {
            State::Wanted(hook) => {
                let hook = hook.take();
                *state = next;
                hook
            }
            State::Cancelled | State::Answered => None,
        }
    }

    /// The answer has come: nothing is left to cancel.
    pub(super) fn answered(&self) {
        drop(self.leave(State::Answered));
    }
}

/// Cancels a request of your own, made by [`SupplyRequest::cancellable`](super::SupplyRequest::cancellable). Clones are of
/// the same request. Dropping it cancels nothing.
#[derive(Clone)]
pub struct SupplyControl(pub(super) Arc<Interest>);

impl fmt::Debug for SupplyControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupplyControl").field("is_wanted", &self.0.is_wanted()).finish_non_exhaustive()
    }
}

impl SupplyControl {
    /// Nobody waits any more. The pager's hook is called on this thread, if there is one: hold no lock that it might take.
    /// The request is answered all the same, by the pager or because the pager drops it. Does nothing once it was answered.
    pub fn cancel(&self) {
        if let Some(hook) = self.0.leave(State::Cancelled) {
            hook();
        }
    }

    /// Somebody waits for the bytes now, as for every request at first: [`is_urgent`](super::SupplyRequest::is_urgent)
    /// says yes.
    pub fn mark_urgent(&self) {
        self.0.is_urgent.store(true, Ordering::Relaxed);
    }

    /// The bytes are read ahead: nobody waits for them yet.
    pub fn mark_read_ahead(&self) {
        self.0.is_urgent.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::super::SupplyRequest;
    use super::*;

    const GUARD: Duration = Duration::from_secs(300);

    fn request() -> (SupplyRequest, SupplyControl) {
        SupplyRequest::cancellable(0..4096, |_| ()).unwrap()
    }

    #[test]
    fn cancelling_calls_the_hook_once_and_is_seen() {
        let (request, control) = request();
        let (sender, called) = channel();
        let replaced = sender.clone();
        request.when_unwanted(move || replaced.send("replaced").unwrap());
        request.when_unwanted(move || sender.send("the hook").unwrap());
        assert!(request.is_wanted());
        control.clone().cancel();
        control.cancel();
        assert!(!request.is_wanted());
        assert_eq!(called.iter().collect::<Vec<_>>(), ["the hook"]);
    }

    #[test]
    fn a_hook_that_comes_after_the_cancelling_is_called_on_another_thread() {
        let (request, control) = request();
        control.cancel();
        let (sender, called) = channel();
        request.when_unwanted(move || sender.send(std::thread::current().id()).unwrap());
        assert_ne!(called.recv_timeout(GUARD).unwrap(), std::thread::current().id());
    }

    #[test]
    fn an_answer_drops_the_hook_and_leaves_nothing_to_cancel() {
        let (sender, answers) = channel();
        let (mut request, control) = SupplyRequest::cancellable(0..4, move |answer| {
            sender.send(answer.map(<[u8]>::to_vec)).unwrap();
        })
        .unwrap();
        let (held, dropped) = channel::<()>();
        request.when_unwanted(move || panic!("called after the answer: {held:?}"));
        request.fill(0, &[1, 2, 3, 4]).unwrap();
        request.done();
        assert!(dropped.recv_timeout(GUARD).is_err(), "the hook was dropped");
        control.cancel();
        assert_eq!(answers.recv_timeout(GUARD).unwrap().unwrap(), [1, 2, 3, 4]);
    }

    #[test]
    fn who_waits_can_change() {
        let (request, control) = request();
        assert!(request.is_urgent());
        control.mark_read_ahead();
        assert!(!request.is_urgent());
        control.mark_urgent();
        assert!(request.is_urgent());
    }
}
