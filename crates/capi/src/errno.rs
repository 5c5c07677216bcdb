//! Errors as C has them.

use std::ffi::c_int;
use std::io;

use memobj::image::{ImageError, MapImageError};

/// Sets this thread's `errno`.
pub(crate) fn set(number: c_int) {
    // SAFETY: the C library's `errno` of this thread is always there for it.
    unsafe { *libc::__errno_location() = number };
}

/// The number of `error`.
pub(crate) fn of(error: &MapImageError) -> c_int {
    match error {
        MapImageError::NotOpen => libc::EBADF,
        MapImageError::NotReadable | MapImageError::NoExec => libc::EACCES,
        MapImageError::NotMappable => libc::ENODEV,
        MapImageError::Plan(error) => of_plan(error),
        MapImageError::InUse { .. } => libc::EADDRINUSE,
        MapImageError::NoRoom { .. } => libc::ENOMEM,
        MapImageError::Locked => libc::EAGAIN,
        MapImageError::FileEnds { .. } => libc::EFAULT,
        MapImageError::Read(source) | MapImageError::Map { source, .. } => of_system(source),
        _ => libc::EIO,
    }
}

fn of_plan(error: &ImageError) -> c_int {
    match error {
        ImageError::PaddingTooLarge { .. } | ImageError::NoRoom => libc::ENOMEM,
        ImageError::TooFewRecords { .. } => libc::E2BIG,
        ImageError::Empty => libc::EINVAL,
        ImageError::NoExec => libc::EACCES,
        ImageError::Unsupported(_) => libc::ENOTSUP,
        // The table that is cut off, too: what could not be read.
        _ => libc::EIO,
    }
}

fn of_system(error: &io::Error) -> c_int {
    error.raw_os_error().unwrap_or(libc::EIO)
}
