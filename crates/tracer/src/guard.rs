//! A process that keeps descriptors open until nobody needs them any more.
//!
//! When the last descriptor of a userfaultfd goes, loads of pages that are not there read zeros. Traced threads die with
//! their tracer, but a moment after its descriptors have gone. So those are shared with a second process, which outlives
//! the tracer by that moment.

use std::io;

use super::Pid;

/// The second process. It ends by itself when the calling thread and all whose faults are told of here have ended, or
/// when this is dropped, and nothing is traced any more.
#[derive(Debug)]
pub struct Guard {
    process: Pid,
}

/// How often the guard looks whether somebody still runs.
const LOOK_AGAIN_NS: i64 = 5_000_000;

impl Guard {
    /// Starts it. It shares all descriptors, those opened later as well.
    pub fn start() -> io::Result<Self> {
        let tracer = std::process::id() as Pid;
        let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
        // SAFETY: a child with a copy of this memory, which makes raw system calls only.
        let process = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        match process {
            0 => stand(tracer),
            process if process < 0 => Err(io::Error::last_os_error()),
            process => Ok(Self { process: process as Pid }),
        }
    }

    /// Its number.
    pub fn process(&self) -> Pid {
        self.process
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The tracer may end with programs that still run.
            return;
        }
        // SAFETY: calls on numbers; the process is our child and was not waited for, or the calls fail.
        unsafe {
            libc::kill(self.process, libc::SIGKILL);
            libc::waitpid(self.process, std::ptr::null_mut(), libc::__WALL);
        }
    }
}

/// From now on no other process of this user has access to this one's memory and descriptors, unless it may trace
/// everybody's (PR_SET_DUMPABLE). Programs that were started are not concerned.
pub fn close_to_others() {
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

fn stand(tracer: Pid) -> ! {
    // SAFETY: system calls on numbers and structures of this stack.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, c"memobj-guard".as_ptr());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
        let mut term: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut term, libc::SIGTERM);
        while libc::getppid() == tracer {
            let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            libc::sigtimedwait(&raw const term, std::ptr::null_mut(), &raw const second);
        }
        // The tracer answers them, and nobody else does: programs that wait for it could not end.
        close_fuse_devices();
        while somebody_runs() {
            let wait = libc::timespec { tv_sec: 0, tv_nsec: LOOK_AGAIN_NS };
            libc::nanosleep(&raw const wait, std::ptr::null_mut());
        }
        libc::_exit(0)
    }
}

/// Whether an address space lives of which there is a userfaultfd here.
fn somebody_runs() -> bool {
    numbers().any(memobj_linux::uffd::address_space_lives)
}

/// Closes the devices at which the tracer answered for file systems in user space (fuse(4)). What waits for an answer fails.
fn close_fuse_devices() {
    /// Of /dev/fuse: admin-guide/devices.txt.
    const MAJOR: u32 = 10;
    const MINOR: u32 = 229;
    for number in numbers() {
        // SAFETY: calls on numbers and a structure of this stack.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            let is_device = libc::fstat(number, &raw mut stat) == 0
                && stat.st_mode & libc::S_IFMT == libc::S_IFCHR
                && stat.st_rdev == libc::makedev(MAJOR, MINOR);
            if is_device {
                libc::close(number);
            }
        }
    }
}

/// All numbers that descriptors can have.
fn numbers() -> std::ops::Range<i32> {
    // SAFETY: a call on a structure of this stack.
    let limit = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur
    };
    0..i32::try_from(limit).unwrap_or(i32::MAX).min(1 << 20)
}
