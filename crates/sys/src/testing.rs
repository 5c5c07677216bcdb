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
/// is taken care of by the C library. A child that does not end within ten times `limit_seconds`, which are plenty on a
/// machine with nothing else to do, is killed by SIGALRM.
pub fn fork(limit_seconds: u32, child: impl FnOnce() -> i32) -> std::io::Result<Ended> {
    // SAFETY: fork(2) takes nothing; the child runs `child` only, under the condition above, and ends by _exit.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(std::io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: alarm(2) takes a number and touches no memory.
        unsafe { libc::alarm(limit_seconds.saturating_mul(10)) };
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

/// Takes userfaultfd away from the calling thread and those that it starts, as a container's filter of system calls
/// does: by either way the answer is EPERM.
pub fn deny_userfaultfd() -> std::io::Result<()> {
    const NEW_BY_DEVICE: u32 = 0xaa00;
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let is = |value, yes, no| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no);
    let answer = |value| statement(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    // Offsets in `struct seccomp_data`: the call's number, and the low half of its second argument.
    let mut filter = [
        load(0),
        is(libc::SYS_userfaultfd as u32, 3, 0),
        is(libc::SYS_ioctl as u32, 0, 3),
        load(24),
        is(NEW_BY_DEVICE, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls take numbers and a filter that lives across the call; they change what later system calls
    // answer, and no memory.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// A plain load of one byte, as any code does one: of an address that traps it ends the process. For addresses of mapped
/// objects, which hold no Rust value.
pub fn load(address: u64) -> u8 {
    let byte: u8;
    // SAFETY: one load by the processor, which changes nothing; no Rust value is there, and if nothing is, it traps.
    unsafe {
        std::arch::asm!("mov {0}, byte ptr [{1}]", out(reg_byte) byte, in(reg) address, options(nostack, readonly));
    }
    byte
}
