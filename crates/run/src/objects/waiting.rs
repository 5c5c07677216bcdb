//! Requests that are under way, and threads of programs that were sent a signal meanwhile.
//!
//! ```text
//!   begun -> answered                     the ordinary way
//!   begun -> interrupted -> answered      the signal does not end the thread: as with a local file, it waits
//!                        -> EINTR         it does: the thread need not wait, and the answer that comes is dropped
//! ```
//!
//! The kernel tells of the first signal only. So threads that were interrupted are looked at until their requests end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use memobj_linux::locks::{Rank, RankedMutex};
use rustix::io::Errno;

use super::answer::Answer;
use std::os::fd::OwnedFd;

/// How often it is looked at threads that were interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct Waiting {
    device: Arc<OwnedFd>,
    state: RankedMutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the number of the request: who waits.
    under_way: HashMap<u64, Waiter>,
    has_looker: bool,
}

#[derive(Debug)]
struct Waiter {
    thread: u32,
    is_interrupted: bool,
}

impl Waiting {
    pub(super) fn new(device: Arc<OwnedFd>) -> Arc<Self> {
        Arc::new(Self { device, state: RankedMutex::new(Rank::WaitingRequests, State::default()) })
    }

    /// The request `unique` of `thread` is under way.
    pub(super) fn begin(&self, unique: u64, thread: u32) {
        self.state.lock().under_way.insert(unique, Waiter { thread, is_interrupted: false });
    }

    /// Whether somebody waits for it still.
    pub(super) fn is_wanted(&self, unique: u64) -> bool {
        self.state.lock().under_way.contains_key(&unique)
    }

    /// It has ended; whether it is to be answered.
    pub(super) fn end(&self, unique: u64) -> bool {
        self.state.lock().under_way.remove(&unique).is_some()
    }

    /// The thread that waits for `unique` was sent a signal. What the kernel is answered.
    pub(super) fn interrupt(self: &Arc<Self>, unique: u64) -> Answer {
        let mut state = self.state.lock();
        let Some(waiter) = state.under_way.get_mut(&unique) else {
            // It has been answered, or another thread is about to read it: the kernel knows, and asks again if need be.
            return Answer::Failed(Errno::AGAIN);
        };
        waiter.is_interrupted = true;
        let starts = !std::mem::replace(&mut state.has_looker, true);
        drop(state);
        if starts {
            let this = Arc::clone(self);
            let started =
                std::thread::Builder::new().name("memobj-signals".into()).spawn(move || this.look());
            if started.is_err() {
                self.state.lock().has_looker = false;
            }
        }
        Answer::Nothing
    }

    /// Looks at interrupted threads as long as there are any.
    fn look(&self) {
        loop {
            let interrupted: Vec<(u64, u32)> = {
                let mut state = self.state.lock();
                let interrupted = state.under_way.iter().filter(|(_, waiter)| waiter.is_interrupted);
                let interrupted: Vec<_> =
                    interrupted.map(|(unique, waiter)| (*unique, waiter.thread)).collect();
                state.has_looker = !interrupted.is_empty();
                interrupted
            };
            if interrupted.is_empty() {
                return;
            }
            for (unique, thread) in interrupted {
                if is_ended_by_signal(thread) && self.end(unique) {
                    Answer::Failed(Errno::INTR).send(&self.device, unique);
                }
            }
            // waits: nobody tells of a signal that comes to a thread that waits already.
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Whether a signal waits for the thread that ends its process, or the thread is not there any more.
fn is_ended_by_signal(thread: u32) -> bool {
    if thread == 0 {
        // In no namespace that is seen from here.
        return true;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{thread}/status")) else { return true };
    ends(&status)
}

/// Of a thread with this text of /proc/TID/status, which is traced: its own SIGKILL is all that the kernel acts on by itself.
fn ends(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
    };
    let bit = |signal: u32| 1u64 << (signal - 1);
    const KILL: u32 = 9;
    /// SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH: by default they end nothing.
    const HARMLESS: [u32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];
    let harmless = HARMLESS.iter().fold(0, |all, signal| all | bit(*signal));
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    let handled = mask("SigBlk:") | mask("SigIgn:") | mask("SigCgt:");
    pending & bit(KILL) != 0 || pending & !handled & !harmless != 0
}

#[cfg(test)]
mod tests {
    use super::ends;

    fn status(pending: u64, shared: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tx\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn signals_that_end_a_process_end_its_wait() {
        let bit = |signal: u32| 1u64 << (signal - 1);
        assert!(ends(&status(bit(9), 0, 0, 0, 0)));
        assert!(ends(&status(0, bit(15), 0, 0, 0)));
        assert!(!ends(&status(0, 0, 0, 0, 0)));
        assert!(!ends(&status(0, bit(15), bit(15), 0, 0)));
        assert!(!ends(&status(0, bit(2), 0, bit(2), 0)));
        assert!(!ends(&status(0, bit(2), 0, 0, bit(2))));
        assert!(!ends(&status(bit(19), bit(17), 0, 0, 0)));
    }
}
