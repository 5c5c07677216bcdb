//! Two processes out of one: the one that a shell knows, and its child that does the work.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::wait::Pid;

/// Which of the two goes on here.
#[derive(Debug)]
pub enum Side {
    /// The one that was there before.
    Front {
        /// Its child.
        supervisor: Pid,
        /// What the child tells; at its end when the child ends.
        news: OwnedFd,
    },
    /// Its child. It dies with the other one, until [`parent_may_end`].
    Supervisor {
        /// Where to tell something.
        news: OwnedFd,
    },
}

/// Splits this process, which has one thread, in two.
pub fn split() -> io::Result<Side> {
    let (listen, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
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
            Ok(Side::Supervisor { news: tell })
        }
        pid if pid < 0 => Err(io::Error::last_os_error()),
        supervisor => Ok(Side::Front { supervisor, news: listen }),
    }
}

/// The end of the parent is not this process's any more.
pub fn parent_may_end() {
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

/// Whether there is something to read within this time.
pub fn is_readable_within(file: &impl AsFd, limit: Duration) -> bool {
    let until = std::time::Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let timeout = rustix::event::Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut polled = [rustix::event::PollFd::new(file, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            answer => return answer.is_ok_and(|count| count > 0),
        }
    }
}
