//! Sleeping until a page word changes.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps while `word` holds `expected`, at most `timeout`. Returns early for any reason; callers look again.
/// Safe to call from a signal handler.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let limit = timeout.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    // Every failure (changed already, interrupted, timed out) means: look again.
    let _ = futex::wait(word, Flags::PRIVATE, expected, limit.as_ref());
}

/// The low half of `word`, which the kernel's calls compare and sleep on.
pub fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let start = std::ptr::from_ref(word).cast::<AtomicU32>();
    let low = if cfg!(target_endian = "little") { start } else { start.wrapping_add(1) };
    // SAFETY: both halves lie inside `word`, are aligned for four bytes, and live as long. This process loads and
    // stores through it atomically only (it does neither), and the kernel likewise.
    unsafe { &*low }
}

/// As [`wait`], of a word that a process that shares this memory wakes.
pub fn wait_shared(word: &AtomicU32, expected: u32, timeout: Duration) {
    let limit = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    // As in `wait`.
    let _ = futex::wait(word, Flags::empty(), expected, Some(&limit));
}

/// Wakes all sleepers on `word`.
pub fn wake_all(word: &AtomicU32) {
    let _ = futex::wake(word, Flags::PRIVATE, i32::MAX as u32);
}
