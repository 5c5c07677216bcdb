//! Standard output, and the other descriptors that a command is started with.

use std::io::{self, Write, stdout};

use memobj_linux::standard::{Standard, was_closed};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr, write};

use crate::failure::Failure;

/// Standard output without a buffer. Every write that fails says so; the standard library's keeps quiet about a
/// descriptor that cannot be written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match retry_on_intr(|| write(stdout(), bytes)) {
                Err(Errno::AGAIN) => {
                    let out = stdout();
                    retry_on_intr(|| poll(&mut [PollFd::new(&out, PollFlags::OUT)], None))?;
                }
                other => return Ok(other?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of `bytes` to standard output.
pub(crate) fn put(bytes: &[u8]) -> Result<(), Failure> {
    Output.write_all(bytes).map_err(|error| Failure::stdout(&error))
}

/// Fails if the command was started without a standard output.
pub(crate) fn check() -> Result<(), Failure> {
    need(Standard::Output, "write standard output")
}

/// Fails if the command was started without a standard input.
pub(crate) fn check_input() -> Result<(), Failure> {
    need(Standard::Input, "read standard input")
}

/// Fails if the command was started without a standard error.
pub(crate) fn check_error() -> Result<(), Failure> {
    need(Standard::Error, "write standard error")
}

fn need(which: Standard, what: &str) -> Result<(), Failure> {
    match was_closed(which) {
        true => Err(Failure::io(what, &Errno::BADF.into())),
        false => Ok(()),
    }
}

/// A program that is started has those descriptors closed that this process was started without.
pub(crate) fn pass_on_what_is_closed() -> Result<(), Failure> {
    use rustix::io::{FdFlags, fcntl_setfd};
    let all = [(Standard::Input, rustix::stdio::stdin()), (Standard::Output, rustix::stdio::stdout())];
    for (which, descriptor) in all.into_iter().chain([(Standard::Error, rustix::stdio::stderr())]) {
        if was_closed(which) {
            let set = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
            set.map_err(|error| Failure::io("close a descriptor", &error.into()))?;
        }
    }
    Ok(())
}
