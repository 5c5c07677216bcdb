//! Signals that are meant for the program that this process runs.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

use super::wait::Pid;

/// The process that signals are passed on to; 0 for none.
static TARGET: AtomicI32 = AtomicI32::new(0);

const PASSED_ON: [i32; 13] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
    libc::SIGPIPE,
];

/// While this lives, signals that somebody sends to this process go to another one. Those of the terminal go nowhere:
/// it sends them to the other one by itself. Those that stop go nowhere either. Signals that were ignored before stay so. One at a time.
#[derive(Debug)]
pub struct Forward {
    before: Vec<(i32, libc::sigaction)>,
}

impl Forward {
    /// Passes signals on to `process`; 0 for nobody yet.
    pub fn to(process: Pid) -> io::Result<Self> {
        TARGET.store(process, Ordering::SeqCst);
        let mut forward = Self { before: Vec::new() };
        for signal in PASSED_ON {
            // SAFETY: all bytes zero are an action.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            let mut before = action;
            action.sa_sigaction =
                pass_on as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            // SAFETY: reads the action that is in force.
            if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut before) } < 0 {
                return Err(io::Error::last_os_error());
            }
            if before.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE {
                continue;
            }
            // SAFETY: the handler is async-signal-safe and lives as long as the program.
            if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } < 0 {
                return Err(io::Error::last_os_error());
            }
            forward.before.push((signal, before));
        }
        Ok(forward)
    }

    /// From now on to this one.
    pub fn now_to(&self, process: Pid) {
        TARGET.store(process, Ordering::SeqCst);
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        TARGET.store(0, Ordering::SeqCst);
        for (signal, action) in &self.before {
            // SAFETY: puts back what was in force before.
            unsafe { libc::sigaction(*signal, action, std::ptr::null_mut()) };
        }
    }
}

extern "C" fn pass_on(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let target = TARGET.load(Ordering::SeqCst);
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    // The target continues this process when it goes on itself.
    let by_somebody = code <= 0 && sender != target;
    // A shell sends those to the whole group. Another one, later, would stop a program that was continued meanwhile.
    let stops = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
    if target > 0 && by_somebody && !stops && signal != libc::SIGPIPE {
        // SAFETY: errno is this thread's own; kill takes numbers.
        unsafe {
            let errno = *libc::__errno_location();
            libc::kill(target, signal);
            *libc::__errno_location() = errno;
        }
    }
}

/// Ends this process by `signal`, without a core file: as the program that it ran was ended.
pub fn die_by(signal: i32) -> ! {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: calls on numbers and structures of this stack; the process ends here.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::kill(libc::getpid(), signal);
        libc::_exit(128 + signal)
    }
}
