//! For tests only: what safe code cannot ask of the system.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a child process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// The exit code of a child that panicked.
pub const PANICKED: i32 = 101;

/// Runs `child` in a forked child process and waits for its end.
///
/// To be called while no other thread runs that could hold a lock which `child` needs; the lock of the allocator
/// is taken care of by the C library. A child that does not end within `limit_seconds` is killed by SIGALRM.
pub fn fork(limit_seconds: u32, child: impl FnOnce() -> i32) -> std::io::Result<Ended> {
    // SAFETY: fork(2) takes nothing; the child runs `child` only, under the condition above, and ends by _exit.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(std::io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: alarm(2) takes a number and touches no memory.
        unsafe { libc::alarm(limit_seconds) };
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one integer that lives across the call.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(match libc::WIFSIGNALED(status) {
        true => Ended::Killed(libc::WTERMSIG(status)),
        false => Ended::Exited(libc::WEXITSTATUS(status)),
    })
}
