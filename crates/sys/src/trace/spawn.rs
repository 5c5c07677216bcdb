//! Starting a program that is traced from its first instruction on.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::filter::{self, Traced, Tracing};
use super::thread::Thread;
use super::wait::Pid;

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

/// How many descriptors a process may have.
#[derive(Clone, Copy, Debug)]
pub struct DescriptorLimit(libc::rlimit);

impl DescriptorLimit {
    /// Takes as many as this process may, and returns what it had.
    pub fn raise() -> io::Result<Self> {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes the structure.
        if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let most = libc::rlimit { rlim_cur: before.rlim_max.min(1 << 20), ..before };
        // SAFETY: the kernel reads the structure.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const most) };
        Ok(Self(before))
    }
}

/// Starts `program` with this process's environment and standard descriptors, traced by the calling thread and behind
/// the filter, and the given limit. What is heard of it first is that it runs the program, or that it has exited with 126 because it
/// could not.
pub fn spawn(
    program: &Program,
    tracing: Tracing,
    at_exit: Traced,
    limit: DescriptorLimit,
) -> io::Result<Pid> {
    let file = c_string(program.file.as_os_str())?;
    let arguments = program.arguments.iter().map(|word| c_string(word)).collect::<io::Result<Vec<_>>>()?;
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
    let image = Image {
        file: &file,
        arguments: &pointers(&arguments),
        variables: &pointers(&variables),
        filter: &filter::program(tracing),
        limit,
    };
    let (ready, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child only makes async-signal-safe calls, on memory that was prepared before.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => become_program(&image, &ready, &go),
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => {
            drop(ready);
            let seized =
                Thread(pid).seize(at_exit).and_then(|()| Ok(rustix::io::write(&go, b"g").map(drop)?));
            if let Err(error) = seized {
                // SAFETY: takes numbers; the child is ours and has not been waited for.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                let _ = super::wait_for(pid);
                return Err(error);
            }
            Ok(pid)
        }
    }
}

/// What the child needs, prepared so that it need not allocate.
struct Image<'a> {
    file: &'a CString,
    arguments: &'a [*const libc::c_char],
    variables: &'a [*const libc::c_char],
    filter: &'a [libc::sock_filter],
    limit: DescriptorLimit,
}

fn become_program(image: &Image<'_>, ready: &OwnedFd, go: &OwnedFd) -> ! {
    let mut letter = 0_u8;
    // SAFETY: async-signal-safe calls on numbers, a byte of this stack, and strings and pointers that live on; pointer
    // lists end with null.
    unsafe {
        libc::close(go.as_raw_fd());
        // Rust ignores it from the start on; programs expect to die by it.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const image.limit.0);
        let told = libc::read(ready.as_raw_fd(), (&raw mut letter).cast(), 1);
        if told == 1 && filter::install(image.filter).is_ok() {
            libc::execve(image.file.as_ptr(), image.arguments.as_ptr(), image.variables.as_ptr());
            if *libc::__errno_location() == libc::ENOEXEC {
                run_by_shell(image);
            }
        }
        libc::_exit(126)
    }
}

/// A script without a first line that says by what: execvp(3) has the shell read it.
///
/// # Safety
///
/// In the child of fork: the pointers are as `become_program` says.
unsafe fn run_by_shell(image: &Image<'_>) {
    const MOST: usize = 256;
    let mut arguments = [std::ptr::null(); MOST];
    arguments[0] = c"/bin/sh".as_ptr();
    arguments[1] = image.file.as_ptr();
    let rest = &image.arguments[1..];
    if rest.len() <= MOST - 2 {
        arguments[2..2 + rest.len()].copy_from_slice(rest);
        // SAFETY: as the caller promises; the list ends with the null of `image.arguments`.
        unsafe { libc::execve(c"/bin/sh".as_ptr(), arguments.as_ptr(), image.variables.as_ptr()) };
    }
}
