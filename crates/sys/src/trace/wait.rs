//! What happened to traced threads.

use std::io;

/// The number of a process or thread.
pub(super) type Pid = i32;

/// What happened to a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    /// It has ended with this status.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
    /// It has stopped.
    Stopped(Stop),
}

/// Why a thread has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Before a system call that the filter names.
    Call,
    /// Where a system call begins or ends, as asked for.
    CallBorder,
    /// It runs a new program.
    Program,
    /// It has made a process or a thread.
    Child,
    /// It is about to end.
    Exit,
    /// With its whole process, by this signal.
    Group(i32),
    /// It is new, or its process was continued.
    Trap,
    /// This signal is about to be delivered.
    Signal(i32),
}

fn happened(status: i32) -> Happened {
    if libc::WIFEXITED(status) {
        return Happened::Exited(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Happened::Killed(libc::WTERMSIG(status));
    }
    let signal = libc::WSTOPSIG(status);
    Happened::Stopped(match status >> 16 {
        libc::PTRACE_EVENT_SECCOMP => Stop::Call,
        libc::PTRACE_EVENT_EXEC => Stop::Program,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => Stop::Child,
        libc::PTRACE_EVENT_EXIT => Stop::Exit,
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Stop::Trap,
        libc::PTRACE_EVENT_STOP => Stop::Group(signal),
        _ if signal == libc::SIGTRAP | 0x80 => Stop::CallBorder,
        _ => Stop::Signal(signal),
    })
}

/// Waits for any child or traced thread. `None`: there are none.
pub fn wait_any() -> io::Result<Option<(Pid, Happened)>> {
    match wait(-1) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Waits for one.
pub fn wait_for(thread: Pid) -> io::Result<Happened> {
    wait(thread).map(|(_, happened)| happened)
}

fn wait(thread: Pid) -> io::Result<(Pid, Happened)> {
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes the status.
        let pid = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
        if pid >= 0 {
            return Ok((pid, happened(status)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
