//! Signals that are meant for the program that this process runs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::Pid;

/// The process that signals are passed on to; 0 for none yet, -1 for none ever.
static TARGET: AtomicI32 = AtomicI32::new(0);
/// Whose signals are for this process itself.
static EXCEPT: AtomicI32 = AtomicI32::new(0);
/// What came while there was no target, as a bit for each.
static KEPT: AtomicU64 = AtomicU64::new(0);
/// The last signal that is to end the program, if its handler has no other idea.
static ENDS: AtomicI32 = AtomicI32::new(0);
/// Where the handler tells of it.
static EVENTFD: AtomicI32 = AtomicI32::new(-1);

/// By which a process is asked to end.
const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
/// What a thread raises by a fault of its own.
const OF_FAULTS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
const MOST_SIGNALS: i32 = 64;

/// Who has the handlers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handles {
    /// The process that users know: what comes is passed on, but for what comes from this one.
    AllBut(Pid),
    /// Its child: what is sent to their group is not for it.
    Nothing,
}

/// While this lives, signals that somebody sends to this process go to another one. Those of the terminal go nowhere:
/// it sends them to the other one by itself. Those that stop go nowhere either. Signals that were ignored before stay so. One at a time.
#[derive(Debug)]
pub struct Forward {
    before: Vec<(i32, libc::sigaction)>,
    eventfd: OwnedFd,
}

impl Forward {
    /// Handles signals: keeps them, until there is a target.
    pub fn start(handles: Handles) -> io::Result<Self> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let eventfd = rustix::event::eventfd(0, flags)?;
        KEPT.store(0, Ordering::SeqCst);
        ENDS.store(0, Ordering::SeqCst);
        EVENTFD.store(eventfd.as_raw_fd(), Ordering::SeqCst);
        let (target, except) = match handles {
            Handles::AllBut(except) => (0, except),
            Handles::Nothing => (-1, 0),
        };
        TARGET.store(target, Ordering::SeqCst);
        EXCEPT.store(except, Ordering::SeqCst);
        let mut forward = Self { before: Vec::new(), eventfd };
        for signal in 1..=MOST_SIGNALS {
            let is_of_system = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD].contains(&signal);
            // The child has handlers of its own for those of faults.
            if is_of_system || (handles == Handles::Nothing && OF_FAULTS.contains(&signal)) {
                continue;
            }
            forward.handle(signal);
        }
        Ok(forward)
    }

    fn handle(&mut self, signal: i32) {
        // SAFETY: all bytes zero are an action.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let mut before = action;
        action.sa_sigaction = pass_on as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: reads the action that is in force. Signals that the C library keeps for itself are refused.
        if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut before) } < 0
            || (before.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE)
        {
            return;
        }
        // SAFETY: the handler is async-signal-safe and lives as long as the program.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } == 0 {
            self.before.push((signal, before));
        }
    }

    /// From now on to this one; what was kept, too.
    pub fn now_to(&self, process: Pid) {
        TARGET.store(process, Ordering::SeqCst);
        let kept = KEPT.swap(0, Ordering::SeqCst);
        for signal in (1..=MOST_SIGNALS).filter(|signal| kept & (1 << (signal - 1)) != 0) {
            // SAFETY: takes numbers.
            unsafe { libc::kill(process, signal) };
        }
    }

    /// The signal by which somebody has asked the program to end since this was asked last.
    pub fn take_end(&self) -> Option<i32> {
        let mut count = [0; 8];
        // Nothing to read is an error that nobody needs.
        let _ = rustix::io::read(&self.eventfd, &mut count);
        Some(ENDS.swap(0, Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

impl AsFd for Forward {
    /// Readable when there is something to [`take_end`](Forward::take_end).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        TARGET.store(-1, Ordering::SeqCst);
        EVENTFD.store(-1, Ordering::SeqCst);
        for (signal, action) in &self.before {
            // SAFETY: puts back what was in force before.
            unsafe { libc::sigaction(*signal, action, std::ptr::null_mut()) };
        }
    }
}

extern "C" fn pass_on(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    if code > 0 && OF_FAULTS.contains(&signal) {
        // A fault of this process: it happens again, and ends it.
        // SAFETY: takes numbers.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    let target = TARGET.load(Ordering::SeqCst);
    // The other one stops and continues this process. A write to a pipe that nobody reads counts as sent by oneself.
    // SAFETY: takes nothing.
    let is_ours =
        sender > 0 && (sender == EXCEPT.load(Ordering::SeqCst) || sender == unsafe { libc::getpid() });
    let by_somebody = code <= 0 && !is_ours;
    // A shell sends those to the whole group. Another one, later, would stop a program that was continued meanwhile.
    let stops = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
    // SAFETY: errno is this thread's own; the calls take numbers and eight bytes of this stack.
    unsafe {
        let errno = *libc::__errno_location();
        if by_somebody && !stops {
            match target {
                0 => drop(KEPT.fetch_or(1 << (signal - 1), Ordering::SeqCst)),
                1.. => drop(libc::kill(target, signal)),
                _ => {}
            }
        }
        if target >= 0 && !is_ours && ENDING.contains(&signal) {
            ENDS.store(signal, Ordering::SeqCst);
            let one = 1_u64;
            libc::write(EVENTFD.load(Ordering::SeqCst), (&raw const one).cast(), size_of::<u64>());
        }
        *libc::__errno_location() = errno;
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
