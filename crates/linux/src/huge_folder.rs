//! A file system in memory whose files are made of 2 MiB pages, attached nowhere in the file tree.
//!
//! Memory files (memfd) have 4 KiB pages unless the machine's owner has set otherwise; files of a tmpfs with
//! `huge=always` have 2 MiB pages. To mount one takes CAP_SYS_ADMIN. Without it, a child process makes itself a
//! user namespace in which it has that right, mounts there, and hands the mount over:
//!
//! ```text
//!   this process                          child
//!   ------------                          -----
//!   socket pair, clone(user + mount  ->   uid_map, gid_map
//!     namespace)                          fsopen, fsconfig, fsmount
//!   receive, with a time-out         <-   send the mount (SCM_RIGHTS), exit
//!   end and reap the child
//! ```
//!
//! The mount lives as long as its descriptor and the files made in it. Sources: fsopen(2), user_namespaces(7),
//! Documentation/filesystems/tmpfs.rst.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, openat};

mod helper;
#[cfg(test)]
mod tests;

/// The root of the file system, open.
#[derive(Debug)]
pub struct HugeFolder {
    root: OwnedFd,
}

/// What was being done when it went wrong; the child can say no more than this and an errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
enum Step {
    Fsopen,
    Huge,
    Size,
    Inodes,
    Mode,
    Create,
    Fsmount,
    Clone,
    Setgroups,
    UidMap,
    GidMap,
    Send,
    Answer,
}

impl Step {
    const ALL: [Step; 13] = [
        Step::Fsopen,
        Step::Huge,
        Step::Size,
        Step::Inodes,
        Step::Mode,
        Step::Create,
        Step::Fsmount,
        Step::Clone,
        Step::Setgroups,
        Step::UidMap,
        Step::GidMap,
        Step::Send,
        Step::Answer,
    ];

    fn text(self) -> &'static str {
        match self {
            Step::Fsopen => "open a tmpfs",
            Step::Huge => "ask the tmpfs for huge pages",
            Step::Size => "lift the limit of the tmpfs on bytes",
            Step::Inodes => "lift the limit of the tmpfs on files",
            Step::Mode => "restrict the tmpfs to its user",
            Step::Create => "create a tmpfs",
            Step::Fsmount => "mount a tmpfs",
            Step::Clone => "start a process in a user namespace of its own",
            Step::Setgroups => "give up setgroups in a user namespace",
            Step::UidMap => "map the user in a user namespace",
            Step::GidMap => "map the group in a user namespace",
            Step::Send => "send the mount",
            Step::Answer => "wait for the process that mounts",
        }
    }
}

/// A step that failed.
#[derive(Clone, Copy, Debug)]
struct Failure {
    step: Step,
    errno: i32,
}

impl Failure {
    /// Of the system call that failed just now. Does not allocate.
    fn now(step: Step) -> Self {
        // SAFETY: the C library's errno of this thread is always readable.
        Self { step, errno: unsafe { *libc::__errno_location() } }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let source = io::Error::from_raw_os_error(failure.errno);
        io::Error::new(source.kind(), format!("{}: {source}", failure.step.text()))
    }
}

impl HugeFolder {
    /// Mounts it, with the rights of this process or else in a user namespace. Takes a millisecond or so; in the
    /// second case, a child process runs meanwhile and no signal is taken. Not for signal handlers.
    pub fn new() -> io::Result<Self> {
        match mount() {
            Err(failure) if failure.errno == libc::EPERM => Ok(Self { root: helper::mount()? }),
            Err(failure) => Err(failure.into()),
            // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
            Ok(raw) => Ok(Self { root: unsafe { OwnedFd::from_raw_fd(raw) } }),
        }
    }

    /// A new file without a name.
    pub(crate) fn file(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(openat(&self.root, c".", flags, Mode::RUSR | Mode::WUSR)?)
    }
}

const FSCONFIG_SET_STRING: i32 = 1;
const FSCONFIG_CMD_CREATE: i32 = 6;
const CLOEXEC: i32 = 1;

/// Mounts; the descriptor is the caller's. Only system calls, no allocation and no lock: a child of fork may call it.
fn mount() -> Result<RawFd, Failure> {
    // SAFETY: fsopen reads a string that lives across the call.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), CLOEXEC) } as RawFd;
    if context < 0 {
        return Err(Failure::now(Step::Fsopen));
    }
    let mounted = configure(context);
    // SAFETY: the descriptor is this function's own.
    unsafe { libc::close(context) };
    mounted
}

fn configure(context: RawFd) -> Result<RawFd, Failure> {
    // Without limits, as memfds have none: the budget bounds the bytes, and the length of a file is no promise.
    let settings = [
        (Step::Huge, c"huge", c"always"),
        (Step::Size, c"size", c"0"),
        (Step::Inodes, c"nr_inodes", c"0"),
        (Step::Mode, c"mode", c"0700"),
    ];
    for (step, key, value) in settings {
        fsconfig(context, FSCONFIG_SET_STRING, Some((key, value)), step)?;
    }
    fsconfig(context, FSCONFIG_CMD_CREATE, None, Step::Create)?;
    // SAFETY: fsmount takes integers and touches no memory of ours.
    let root = unsafe { libc::syscall(libc::SYS_fsmount, context, CLOEXEC, 0) } as RawFd;
    if root < 0 { Err(Failure::now(Step::Fsmount)) } else { Ok(root) }
}

fn fsconfig(
    context: RawFd,
    command: i32,
    setting: Option<(&CStr, &CStr)>,
    step: Step,
) -> Result<(), Failure> {
    let (key, value) = match setting {
        Some((key, value)) => (key.as_ptr(), value.as_ptr()),
        None => (std::ptr::null(), std::ptr::null()),
    };
    // SAFETY: fsconfig reads two strings, or none, that live across the call.
    let answer = unsafe { libc::syscall(libc::SYS_fsconfig, context, command, key, value, 0) };
    if answer < 0 { Err(Failure::now(step)) } else { Ok(()) }
}

impl std::os::fd::AsFd for HugeFolder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl AsRawFd for HugeFolder {
    fn as_raw_fd(&self) -> RawFd {
        self.root.as_raw_fd()
    }
}
