//! Work to do when the process exits.

/// Calls `work` when the process exits by exit(3) or by returning from `main`. Not when it is killed or calls
/// `_exit`. Source: atexit(3).
pub fn at_exit(work: fn()) {
    static WORK: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();
    extern "C" fn run() {
        if let Some(work) = WORK.get() {
            // A panic must not cross the border to C.
            let _ = std::panic::catch_unwind(work);
        }
    }
    if WORK.set(work).is_ok() {
        // SAFETY: `run` is a function for the whole life of the program. It fails only without memory, and then
        // exit does what it does without us.
        let _ = unsafe { libc::atexit(run) };
    }
}
