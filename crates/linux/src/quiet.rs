//! Signals that our own system calls raise.
//!
//! A write beyond the limit of file sizes (RLIMIT_FSIZE) sends SIGXFSZ to the thread that makes it, and one into a pipe
//! or socket that nobody reads sends SIGPIPE. The default action of both ends the process. The call also answers EFBIG or
//! EPIPE, which is what we want. So threads of ours block both signals for good, and calls in threads of others block
//! SIGXFSZ meanwhile. Sources: setrlimit(2), signal(7), pthread_sigmask(3).

use std::cell::Cell;
use std::mem::MaybeUninit;

use libc::{c_int, sigset_t};

thread_local! {
    /// Whether this thread blocks the signals for good.
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Blocks SIGXFSZ and SIGPIPE in the calling thread, which is one of ours, for as long as it lives.
pub fn stay_quiet() {
    change(libc::SIG_BLOCK, &set_of(&[libc::SIGXFSZ, libc::SIGPIPE]));
    IS_QUIET.set(true);
}

/// Makes `call`, which may write to files or change their lengths, without a SIGXFSZ to the calling thread.
///
/// A signal that was pending before stays pending. One that `call` raises is taken back. Not for signal handlers.
pub fn quietly<T>(call: impl FnOnce() -> T) -> T {
    let _quiet = Quiet::begin();
    call()
}

/// For a program: has SIGXFSZ do nothing in any thread, if its action is the default one. Programs that this process
/// starts have the default action again.
pub fn survive_file_size_limit() {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: all bytes zero are an action; the first call only writes one, and the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let read = libc::sigaction(libc::SIGXFSZ, std::ptr::null(), &raw mut action);
        if read == 0 && action.sa_sigaction == libc::SIG_DFL {
            action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGXFSZ, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Restores the mask of the thread when it is dropped, also by a panic of the call.
struct Quiet {
    /// The mask before, if it did not have the signal.
    before: Option<sigset_t>,
}

impl Quiet {
    fn begin() -> Self {
        if IS_QUIET.get() {
            return Self { before: None };
        }
        let before = change(libc::SIG_BLOCK, &set_of(&[libc::SIGXFSZ]));
        // Blocked already: whoever did that deals with it, and a signal of ours would be one more of the same.
        Self { before: (!has(&before, libc::SIGXFSZ)).then_some(before) }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let Some(before) = self.before else { return };
        // It was not blocked before, so none was pending for this thread: this one is ours.
        if is_pending(libc::SIGXFSZ) {
            take(libc::SIGXFSZ);
        }
        change(libc::SIG_SETMASK, &before);
    }
}

fn set_of(signals: &[c_int]) -> sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) fills the set before anything reads it; the rest takes numbers of signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

fn has(set: &sigset_t, signal: c_int) -> bool {
    // SAFETY: reads a valid set.
    unsafe { libc::sigismember(set, signal) == 1 }
}

/// Changes the mask of the calling thread, and returns what it was.
fn change(how: c_int, set: &sigset_t) -> sigset_t {
    let mut before = set_of(&[]);
    // SAFETY: both sets live across the call, which changes the mask of this thread only.
    unsafe { libc::pthread_sigmask(how, set, &mut before) };
    before
}

fn is_pending(signal: c_int) -> bool {
    let mut pending = set_of(&[]);
    // SAFETY: the set lives across the call.
    unsafe { libc::sigpending(&mut pending) == 0 && has(&pending, signal) }
}

fn take(signal: c_int) {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both arguments live across the call; what the signal says is not asked for.
    unsafe { libc::sigtimedwait(&set_of(&[signal]), std::ptr::null_mut(), &at_once) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise_here(signal: c_int) {
        // SAFETY: sends a signal to this thread, which blocks it.
        unsafe { libc::raise(signal) };
    }

    #[test]
    fn a_signal_that_the_call_raises_is_taken_back() {
        let before = change(libc::SIG_BLOCK, &set_of(&[]));
        assert!(!has(&before, libc::SIGXFSZ));
        quietly(|| raise_here(libc::SIGXFSZ));
        assert!(!is_pending(libc::SIGXFSZ));
        let after = change(libc::SIG_BLOCK, &set_of(&[]));
        assert!(!has(&after, libc::SIGXFSZ));
    }

    #[test]
    fn a_signal_that_was_blocked_before_stays_as_it_is() {
        std::thread::spawn(|| {
            change(libc::SIG_BLOCK, &set_of(&[libc::SIGXFSZ]));
            raise_here(libc::SIGXFSZ);
            quietly(|| ());
            assert!(is_pending(libc::SIGXFSZ));
            take(libc::SIGXFSZ);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_of_ours_stays_quiet() {
        std::thread::spawn(|| {
            stay_quiet();
            quietly(|| raise_here(libc::SIGXFSZ));
            raise_here(libc::SIGPIPE);
            assert!(is_pending(libc::SIGXFSZ) && is_pending(libc::SIGPIPE));
        })
        .join()
        .unwrap();
    }
}
