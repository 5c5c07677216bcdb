//! Two processes out of one: the one that a shell knows, and its child that does the work.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::Pid;
use super::beats::Beats;

/// Which of the two goes on here.
#[derive(Debug)]
pub enum Side {
    /// The one that was there before.
    Front {
        /// Its child.
        supervisor: Pid,
        /// What the child tells; at its end when the child ends.
        news: OwnedFd,
        /// The child's.
        beats: Beats,
    },
    /// Its child. It dies with the other one, until [`parent_may_end`].
    Supervisor {
        /// Where to tell something.
        news: OwnedFd,
        /// Its own.
        beats: Beats,
    },
}

/// Splits this process, which has one thread, in two.
pub fn split() -> io::Result<Side> {
    let (listen, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let beats = Beats::new()?;
    let front = std::process::id() as Pid;
    // SAFETY: the caller has one thread, as the contract of this function says, so the child may go on as it likes.
    match unsafe { libc::fork() } {
        0 => {
            drop(listen);
            // SAFETY: takes numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: takes nothing.
            if unsafe { libc::getppid() } != front {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(Side::Supervisor { news: tell, beats })
        }
        pid if pid < 0 => Err(io::Error::last_os_error()),
        supervisor => Ok(Side::Front { supervisor, news: listen, beats }),
    }
}

/// The end of the parent is not this process's any more.
pub fn parent_may_end() {
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

/// Gives up standard input and output, and standard error if `and_errors` says so: who reads there sees their end when
/// the programs have ended or closed them.
pub fn become_silent(and_errors: Errors) {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    if and_errors == Errors::Silent {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// What becomes of standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errors {
    /// It stays, for messages.
    Told,
    /// It goes.
    Silent,
}

/// Waits until there is something to read from one of `files`, for `limit` if it is given, and says from which.
pub fn is_readable_within<const N: usize>(files: [BorrowedFd<'_>; N], limit: Option<Duration>) -> [bool; N] {
    let until = limit.map(|limit| std::time::Instant::now() + limit);
    loop {
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(std::time::Instant::now());
            rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let mut polled =
            files.map(|file| rustix::event::PollFd::from_borrowed_fd(file, rustix::event::PollFlags::IN));
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return polled.map(|polled| !polled.revents().is_empty()),
        }
    }
}
