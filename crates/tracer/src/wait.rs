//! What happened to traced threads.
//!
//! ```text
//!   wait_any      the next report of any child or traced thread: first those that were kept
//!   wait_for      the next report of one thread, while a call is made in its name. Reports of others that come
//!                 meanwhile are kept, in order, for `wait_any`
//!   Waker         ends a `wait_any` from another thread
//! ```
//!
//! The kernel is never asked about one thread only. The end of a process's first thread is told when all its other
//! threads were waited for, so a wait for the first one alone might not end.
//!
//! Reports belong to the thread that traces, as tracing itself does: each thread has its own. SIGCHLD is blocked in a
//! thread from its first wait on. It says that there may be something to wait for, and `Waker` sends it as well. A signal
//! that comes between the question and the sleep stays pending and ends the sleep, so none is missed.
//! Sources: waitpid(2), sigtimedwait(2).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Pid;
use super::beats::Beats;
use super::hand::Hands;

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
    /// It is new, or its process was continued, or it was interrupted.
    Trap,
    /// This signal is about to be delivered.
    Signal(i32),
}

/// Why [`wait_any`] has returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// This happened to this child or traced thread.
    Of(Pid, Happened),
    /// A [`Waker`] was used.
    Woken,
    /// The time is over.
    Nothing,
    /// There is no child and no traced thread.
    Nobody,
}

/// How long a thread sleeps before it asks the kernel again, at first and at most. SIGCHLD ends the sleep, unless it was
/// taken by another thread of this process that does not block it.
const ASK_AGAIN: Duration = Duration::from_millis(1);
const ASK_AGAIN_MOST: Duration = Duration::from_millis(50);

/// Whether SIGCHLD was ignored when this process was started.
static CHILDREN_WERE_IGNORED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static REPORTS: RefCell<Option<Reports>> = const { RefCell::new(None) };
}

/// What the calling thread has heard and not handled yet.
struct Reports {
    kept: VecDeque<(Pid, Happened)>,
    is_wanted: Arc<AtomicBool>,
    /// What was blocked before.
    mask: libc::sigset_t,
    beats: Option<Beats>,
    /// Readable while SIGCHLD is pending; `None` if there was no descriptor for it.
    signals: Option<OwnedFd>,
}

impl Reports {
    /// Blocks SIGCHLD in this thread, and has the kernel send it. Blocks signals by which limits of its own end others.
    fn start() -> Self {
        // SAFETY: system calls on structures of this stack. SIGCHLD ignored means that ends are not told, and nobody in
        // this process can have counted on that and wait.
        let mask = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut action);
            if action.sa_sigaction == libc::SIG_IGN {
                CHILDREN_WERE_IGNORED.store(true, Ordering::Relaxed);
                libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            }
            let mut set = child_signal();
            libc::sigaddset(&raw mut set, libc::SIGXFSZ);
            libc::sigaddset(&raw mut set, libc::SIGXCPU);
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            before
        };
        let set = child_signal();
        // SAFETY: reads a set of this stack.
        let raw = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
        let signals = (raw >= 0).then(|| unsafe { OwnedFd::from_raw_fd(raw) });
        Self { kept: VecDeque::new(), is_wanted: Arc::default(), mask, beats: None, signals }
    }
}

/// SIGCHLD alone.
fn child_signal() -> libc::sigset_t {
    // SAFETY: all bytes zero are a set; the call changes it in place.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

fn with_reports<R>(use_them: impl FnOnce(&mut Reports) -> R) -> R {
    REPORTS.with_borrow_mut(|reports| use_them(reports.get_or_insert_with(Reports::start)))
}

/// `beats` counts from now on whenever the calling thread looks for reports: at least every 50 ms, unless something
/// holds it up while it handles one.
pub fn beat_by(beats: Beats) {
    with_reports(|reports| reports.beats = Some(beats));
}

/// What a program that is started here is to find of the signals that this thread blocks.
#[derive(Clone, Copy)]
pub(super) struct SignalsBefore {
    mask: libc::sigset_t,
    pub(super) ignores_children: bool,
}

impl std::fmt::Debug for SignalsBefore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignalsBefore")
            .field("ignores_children", &self.ignores_children)
            .finish_non_exhaustive()
    }
}

impl SignalsBefore {
    pub(super) fn of_this_thread() -> Self {
        let mask = with_reports(|reports| reports.mask);
        Self { mask, ignores_children: CHILDREN_WERE_IGNORED.load(Ordering::Relaxed) }
    }

    /// `now` without those that are blocked only since then.
    pub(super) fn mask_of_program(&self, now: u64) -> u64 {
        let ours = [libc::SIGCHLD, libc::SIGXFSZ, libc::SIGXCPU].into_iter();
        // SAFETY: reads a set.
        let added = ours.filter(|signal| unsafe { libc::sigismember(&raw const self.mask, *signal) } == 0);
        added.fold(now, |mask, signal| mask & !(1 << (signal - 1)))
    }
}

/// Ends a [`wait_any`] of the thread that it was made by. Any thread may use it, at any time.
#[derive(Clone, Debug)]
pub struct Waker {
    process: Pid,
    thread: Pid,
    is_wanted: Arc<AtomicBool>,
}

impl Waker {
    /// For the calling thread, in which it blocks SIGCHLD.
    pub fn of_this_thread() -> Self {
        let is_wanted = with_reports(|reports| Arc::clone(&reports.is_wanted));
        // SAFETY: takes nothing.
        Self { process: std::process::id() as Pid, thread: unsafe { libc::gettid() }, is_wanted }
    }

    /// The next `wait_any` returns [`Heard::Woken`], and one that goes on does. Several uses may count as one.
    pub fn wake(&self) {
        if !self.is_wanted.swap(true, Ordering::AcqRel) {
            // SAFETY: takes numbers. A thread that has ended is an error that nobody needs.
            unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, libc::SIGCHLD) };
        }
    }
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

/// Waits for a report of any child or traced thread of the calling thread, until `until`, if it is given.
pub fn wait_any(until: Option<Instant>) -> io::Result<Heard> {
    let (is_wanted, beats) = with_reports(|reports| (Arc::clone(&reports.is_wanted), reports.beats));
    let (mut most, mut spin) = (ASK_AGAIN, Spin::of(SHORTLY));
    loop {
        if let Some(beats) = beats {
            beats.beat();
        }
        if is_wanted.swap(false, Ordering::AcqRel) {
            return Ok(Heard::Woken);
        }
        if let Some((pid, happened)) = with_reports(|reports| reports.kept.pop_front()) {
            return Ok(Heard::Of(pid, happened));
        }
        match ask()? {
            Answer::Report(pid, happened) => return Ok(Heard::Of(pid, happened)),
            Answer::Nobody => return Ok(Heard::Nobody),
            Answer::NotYet if until.is_some_and(|until| Instant::now() >= until) => {
                return Ok(Heard::Nothing);
            }
            Answer::NotYet if spin.goes_on() => {}
            Answer::NotYet => sleep(until, &mut most),
        }
    }
}

/// Waits for the next report of `thread`, which was resumed. Keeps those of others.
pub(super) fn wait_for(thread: Pid) -> io::Result<Happened> {
    let (mut most, mut spin) = (ASK_AGAIN, Spin::of(A_CALL));
    loop {
        match ask()? {
            Answer::Report(pid, happened) if pid == thread => return Ok(happened),
            Answer::Report(pid, happened) => with_reports(|reports| reports.kept.push_back((pid, happened))),
            Answer::Nobody => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            Answer::NotYet if spin.goes_on() => {}
            Answer::NotYet => sleep(None, &mut most),
        }
    }
}

/// The next `wait_any` is to return this report, which was taken early.
pub(super) fn keep(thread: Pid, happened: Happened) {
    with_reports(|reports| reports.kept.push_front((thread, happened)));
}

/// Whether there is a report of `thread` that was kept. It must not be resumed: who handles the report does that.
pub fn is_reported(thread: Pid) -> bool {
    with_reports(|reports| reports.kept.iter().any(|(pid, _)| *pid == thread))
}

enum Answer {
    Report(Pid, Happened),
    NotYet,
    Nobody,
}

/// Asks without blocking.
fn ask() -> io::Result<Answer> {
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes the status.
        let pid =
            unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
        match pid {
            0 => return Ok(Answer::NotYet),
            1.. => return Ok(Answer::Report(pid, happened(status))),
            _ => {}
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ECHILD) => return Ok(Answer::Nobody),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

/// How long it is asked again and again before the thread sleeps: a processor that has gone to sleep takes longer to wake
/// than most calls that are made in a thread's name, and than many programs take to the next.
const A_CALL: Duration = Duration::from_micros(100);
const SHORTLY: Duration = Duration::from_micros(20);

/// Asks again without sleeping, for a while.
struct Spin {
    begun: Option<Instant>,
    limit: Duration,
}

impl Spin {
    fn of(limit: Duration) -> Self {
        Self { begun: None, limit }
    }

    /// Lets others have the processor, and hands out what is asked for.
    fn goes_on(&mut self) -> bool {
        if self.begun.get_or_insert_with(Instant::now).elapsed() >= self.limit {
            return false;
        }
        Hands::serve_now();
        std::thread::yield_now();
        true
    }
}

/// Sleeps until there may be something to ask for, or something is asked for: for `most`, which grows, or until `until`.
fn sleep(until: Option<Instant>, most: &mut Duration) {
    let left = until.map_or(*most, |until| until.saturating_duration_since(Instant::now())).min(*most);
    *most = (*most * 2).min(ASK_AGAIN_MOST);
    let time = |time: Duration| libc::timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    };
    let (set, wait, at_once) = (child_signal(), time(left), time(Duration::ZERO));
    let signals = with_reports(|reports| reports.signals.as_ref().map(AsRawFd::as_raw_fd));
    let Some(signals) = signals else {
        // SAFETY: reads structures that live across the call. Whatever it answers, the kernel is asked again.
        unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const wait) };
        return Hands::serve_now();
    };
    let polled = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // One that is negative is passed over.
    let mut both = [polled(signals), polled(Hands::descriptor().unwrap_or(-1))];
    // SAFETY: reads and writes structures that live across the calls. The signal is taken, so that it is not met again.
    unsafe {
        libc::ppoll(both.as_mut_ptr(), both.len() as libc::nfds_t, &raw const wait, std::ptr::null());
        libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const at_once);
    }
    Hands::serve_now();
}
