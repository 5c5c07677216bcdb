//! Starting a program that is traced from its first instruction on.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Pid;
use super::filter::{self, Traced, Tracing};
use super::hand::Hands;
use super::limits::Limits;
use super::thread::Thread;
use super::wait::{self, Happened, SignalsBefore};
use memobj_linux::futex::wait_shared;
use memobj_linux::uffd::descriptor_of;

/// A program to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file, found as execvp(3) finds it.
    pub file: PathBuf,
    /// Its arguments, the name first.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// Finds the first word of `command` along PATH if it has no slash. NotFound, PermissionDenied: as execvp(3) has
    /// it.
    pub fn find(command: &[OsString]) -> io::Result<Self> {
        let name = command.first().filter(|name| !name.is_empty()).ok_or(io::ErrorKind::NotFound)?;
        let arguments = command.to_vec();
        if name.as_bytes().contains(&b'/') {
            let file = PathBuf::from(name);
            return may_run(&file).map(|()| Self { file, arguments });
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut refused = io::Error::from(io::ErrorKind::NotFound);
        for folder in std::env::split_paths(&path) {
            let file = folder.join(name);
            match may_run(&file) {
                Ok(()) => return Ok(Self { file, arguments }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = error,
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

fn may_run(file: &Path) -> io::Result<()> {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK)?;
    match file.is_dir() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A program that was started, and the memory that it needs until it runs. To be kept until then.
#[derive(Debug)]
pub struct Started {
    /// Its number.
    pub process: Pid,
    _memory: Box<Launch>,
}

/// What the child reads while it shares our memory.
#[derive(Debug)]
struct Launch {
    file: CString,
    arguments: Vec<*const libc::c_char>,
    variables: Vec<*const libc::c_char>,
    filter: Vec<libc::sock_filter>,
    limits: Limits,
    ready: OwnedFd,
    mask: u64,
    /// The number of the child's listener once it is behind the filter, and what has become of that.
    listener: AtomicU32,
    signals: SignalsBefore,
    /// The strings that the lists point to.
    _strings: Vec<CString>,
    stack: Vec<u128>,
}

const STACK_BYTES: usize = 64 << 10;
/// No descriptor, and no error number.
const NOT_YET: u32 = i32::MIN as u32;
/// Longer than a child that lives needs.
const FILTER_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts `program` with this process's environment and standard descriptors, traced by the calling thread and behind
/// the filter, and the given limits. What is heard of it first is that it runs the program, or that it has exited with
/// 126 because it could not.
///
/// The child shares this process's memory until then, as that of vfork(2) does: a copy of it takes longer than all the
/// rest.
pub fn spawn(program: &Program, tracing: Tracing, at_exit: Traced, limits: Limits) -> io::Result<Started> {
    let (ready, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut launch = Launch::new(program, tracing, limits, ready)?;
    let process = launch.clone_child()?;
    let tell = || Ok(rustix::io::write(&go, b"g").map(drop)?);
    let seized = Thread(process)
        .seize(at_exit)
        .and_then(|()| tell())
        .and_then(|()| Hands::listen(launch.take_listener(process)?))
        .and_then(|()| tell());
    if let Err(error) = seized {
        // SAFETY: takes numbers; the child is ours and has not been waited for.
        unsafe { libc::kill(process, libc::SIGKILL) };
        while let Ok(Happened::Stopped(_)) = wait::wait_for(process) {}
        return Err(error);
    }
    Ok(Started { process, _memory: launch })
}

impl Launch {
    fn new(program: &Program, tracing: Tracing, limits: Limits, ready: OwnedFd) -> io::Result<Box<Self>> {
        let arguments = program.arguments.iter().map(|word| c_string(word));
        let arguments = arguments.collect::<io::Result<Vec<_>>>()?;
        let variables = std::env::vars_os().map(|(name, value)| {
            let mut pair = name;
            pair.push("=");
            pair.push(value);
            c_string(&pair)
        });
        let variables = variables.collect::<io::Result<Vec<_>>>()?;
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        Ok(Box::new(Self {
            file: c_string(program.file.as_os_str())?,
            arguments: pointers(&arguments),
            variables: pointers(&variables),
            filter: filter::program(tracing),
            limits,
            ready,
            mask: 0,
            listener: AtomicU32::new(NOT_YET),
            signals: SignalsBefore::of_this_thread(),
            _strings: arguments.into_iter().chain(variables).collect(),
            stack: vec![0; STACK_BYTES / size_of::<u128>()],
        }))
    }

    /// Waits until the child is behind the filter, and takes the listener.
    fn take_listener(&self, child: Pid) -> io::Result<OwnedFd> {
        let until = Instant::now() + FILTER_TIMEOUT;
        loop {
            match self.listener.load(Ordering::Acquire) {
                NOT_YET if Instant::now() >= until => return Err(io::ErrorKind::TimedOut.into()),
                NOT_YET => wait_shared(&self.listener, NOT_YET, Duration::from_millis(100)),
                number if number as i32 >= 0 => return descriptor_of(child, number as RawFd),
                refused => return Err(io::Error::from_raw_os_error((refused as i32).wrapping_neg())),
            }
        }
    }

    /// Makes the child, with all signals blocked: their handlers are not to run in it.
    fn clone_child(&mut self) -> io::Result<Pid> {
        let all = u64::MAX;
        let (set, size) = (libc::SYS_rt_sigprocmask, size_of::<u64>());
        // SAFETY: the kernel reads one mask and writes the other.
        unsafe { libc::syscall(set, libc::SIG_SETMASK, &raw const all, &raw mut self.mask, size) };
        let before = self.mask;
        self.mask = self.signals.mask_of_program(self.mask);
        let top = self.stack.as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        // SAFETY: the stack is the child's own, and it and all else that the child uses lives as long as `Started`,
        // which its caller keeps. The child makes system calls only, without a library, whose errno is ours.
        let process = unsafe { libc::clone(child, top.cast(), flags, (&raw const *self).cast_mut().cast()) };
        let error = io::Error::last_os_error();
        // SAFETY: the kernel reads the mask.
        unsafe { libc::syscall(set, libc::SIG_SETMASK, &raw const before, 0, size) };
        if process < 0 { Err(error) } else { Ok(process) }
    }
}

/// A system call, of which arguments behind the fourth are zero, that changes nothing of this thread but by what it does.
///
/// # Safety
///
/// As for the call.
unsafe fn raw(number: libc::c_long, arguments: [usize; 4]) -> isize {
    let answer: isize;
    // SAFETY: the registers are those of the kernel's interface; the rest is the caller's.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") 0,
            in("r9") 0,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

extern "C" fn child(launch: *mut libc::c_void) -> libc::c_int {
    // SAFETY: it is the `Launch` that `clone_child` passed, which lives until this process runs a program.
    let launch = unsafe { &*launch.cast::<Launch>() };
    let mut letter = 0_u8;
    // SAFETY: calls on numbers, a byte of this stack, and strings and lists of `launch`, which end with null.
    unsafe {
        reset_handlers();
        if launch.signals.ignores_children {
            let ignore = [libc::SIG_IGN, 0, 0, 0];
            raw(libc::SYS_rt_sigaction, [libc::SIGCHLD as usize, &raw const ignore as usize, 0, 8]);
        }
        let wait = [launch.ready.as_raw_fd() as usize, &raw mut letter as usize, 1, 0];
        let mut goes_on = raw(libc::SYS_read, wait) == 1;
        if goes_on {
            let listener = filter::install(&launch.filter, |number, arguments| raw(number, arguments));
            launch.listener.store(listener as u32, Ordering::Release);
            let wake = libc::FUTEX_WAKE as usize;
            raw(libc::SYS_futex, [launch.listener.as_ptr() as usize, wake, 1, 0]);
            goes_on = listener >= 0 && raw(libc::SYS_read, wait) == 1;
        }
        if goes_on {
            for (resource, limit) in launch.limits.each() {
                raw(libc::SYS_prlimit64, [0, resource as usize, &raw const *limit as usize, 0]);
            }
            let mask = &raw const launch.mask;
            raw(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, mask as usize, 0, 8]);
            let (arguments, variables) = (launch.arguments.as_ptr(), launch.variables.as_ptr());
            let file = launch.file.as_ptr();
            let answer = raw(libc::SYS_execve, [file as usize, arguments as usize, variables as usize, 0]);
            if answer == -(libc::ENOEXEC as isize) {
                run_by_shell(launch);
            }
        }
        raw(libc::SYS_exit_group, [126, 0, 0, 0]);
    }
    126
}

/// Signals that somebody here handles do what they do by themselves. Ignored ones stay so, but SIGPIPE, which Rust ignores
/// from the start on, and by which programs expect to die.
///
/// # Safety
///
/// In the child, which has handlers of its own.
unsafe fn reset_handlers() {
    for signal in 1..=64_usize {
        let mut action = [0_usize; 4];
        // SAFETY: the kernel writes an action of four words, and reads one.
        unsafe {
            if raw(libc::SYS_rt_sigaction, [signal, 0, &raw mut action as usize, 8]) < 0 {
                continue;
            }
            if action[0] > libc::SIG_IGN || signal == libc::SIGPIPE as usize {
                let default = [0_usize; 4];
                raw(libc::SYS_rt_sigaction, [signal, &raw const default as usize, 0, 8]);
            }
        }
    }
}

/// A script without a first line that says by what: execvp(3) has the shell read it.
///
/// # Safety
///
/// In the child.
unsafe fn run_by_shell(launch: &Launch) {
    const MOST: usize = 256;
    let mut arguments = [std::ptr::null(); MOST];
    arguments[0] = c"/bin/sh".as_ptr();
    arguments[1] = launch.file.as_ptr();
    let rest = &launch.arguments[1..];
    if rest.len() <= MOST - 2 {
        for (place, argument) in arguments[2..].iter_mut().zip(rest) {
            *place = *argument;
        }
        let (file, variables) = (c"/bin/sh".as_ptr(), launch.variables.as_ptr());
        // SAFETY: the list ends with the null of the arguments, whose strings live on.
        unsafe {
            raw(libc::SYS_execve, [file as usize, arguments.as_ptr() as usize, variables as usize, 0]);
        }
    }
}
