//! Numbers and structures of `linux/userfaultfd.h`, as of Linux 6.18.

use std::ffi::c_ulong;

pub const API: u64 = 0xaa;
/// `USERFAULTFD_IOC_NEW`, on /dev/userfaultfd.
pub const NEW: c_ulong = 0xaa00;
/// Faults raised inside system calls are not delivered; needs no privilege.
pub const USER_MODE_ONLY: i32 = 1;

pub const REGISTER_MISSING: u64 = 1;
pub const REGISTER_WP: u64 = 1 << 1;
pub const REGISTER_MINOR: u64 = 1 << 2;

pub const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1;
/// The call that drops pages sleeps until its event was read.
#[cfg(test)]
pub const FEATURE_EVENT_REMOVE: u64 = 1 << 3;
/// A fork registers what the child inherits, with a userfaultfd of its own; it sleeps until its event was read.
pub const FEATURE_EVENT_FORK: u64 = 1 << 1;
/// Moved ranges stay registered; the call that moves them sleeps until its event was read.
pub const FEATURE_EVENT_REMAP: u64 = 1 << 2;
/// Ranges that map memory files can be registered for missing pages.
pub const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
pub const FEATURE_SIGBUS: u64 = 1 << 7;
pub const FEATURE_THREAD_ID: u64 = 1 << 8;
pub const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
pub const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
pub const FEATURE_POISON: u64 = 1 << 14;
pub const FEATURE_MOVE: u64 = 1 << 16;

pub const EVENT_PAGEFAULT: u8 = 0x12;
/// With a new userfaultfd, which belongs to whoever reads the event.
pub const EVENT_FORK: u8 = 0x13;
/// Pages were given up; the call that does so sleeps until this is read.
pub const EVENT_REMOVE: u8 = 0x15;
pub const FAULT_WRITE: u64 = 1;
pub const FAULT_WP: u64 = 1 << 1;
pub const FAULT_MINOR: u64 = 1 << 2;

/// Of COPY: sleepers are not woken.
pub const COPY_DONTWAKE: u64 = 1;
/// Of COPY: the page is put in place write-protected.
pub const COPY_WP: u64 = 1 << 1;
/// Of CONTINUE: the page is shown write-protected.
pub const CONTINUE_WP: u64 = 1 << 1;
/// Of WRITEPROTECT: protects; without it, lifts the protection.
pub const WRITEPROTECT_WP: u64 = 1;

const fn request(number: c_ulong, size: usize) -> c_ulong {
    (3 << 30) | ((size as c_ulong) << 16) | (0xaa << 8) | number
}

const fn request_read(number: c_ulong, size: usize) -> c_ulong {
    (2 << 30) | ((size as c_ulong) << 16) | (0xaa << 8) | number
}

#[repr(C)]
#[derive(Default)]
pub struct ApiArgument {
    pub api: u64,
    pub features: u64,
    pub ioctls: u64,
}
pub const UFFDIO_API: c_ulong = request(0x3f, size_of::<ApiArgument>());

#[repr(C)]
#[derive(Default, Clone, Copy)]
pub struct Range {
    pub start: u64,
    pub len: u64,
}
pub const UFFDIO_WAKE: c_ulong = request_read(0x02, size_of::<Range>());

#[repr(C)]
#[derive(Default)]
pub struct Register {
    pub range: Range,
    pub mode: u64,
    pub ioctls: u64,
}
pub const UFFDIO_REGISTER: c_ulong = request(0x00, size_of::<Register>());

/// The argument of COPY and of MOVE, which differ in number only.
#[repr(C)]
#[derive(Default)]
pub struct Transfer {
    pub dst: u64,
    pub src: u64,
    pub len: u64,
    pub mode: u64,
    pub done: i64,
}
pub const UFFDIO_COPY: c_ulong = request(0x03, size_of::<Transfer>());
pub const UFFDIO_MOVE: c_ulong = request(0x05, size_of::<Transfer>());

#[repr(C)]
#[derive(Default)]
pub struct ZeroPage {
    pub range: Range,
    pub mode: u64,
    pub done: i64,
}
pub const UFFDIO_ZEROPAGE: c_ulong = request(0x04, size_of::<ZeroPage>());

#[repr(C)]
#[derive(Default)]
pub struct WriteProtect {
    pub range: Range,
    pub mode: u64,
}
pub const UFFDIO_WRITEPROTECT: c_ulong = request(0x06, size_of::<WriteProtect>());

#[repr(C)]
#[derive(Default)]
pub struct Continue {
    pub range: Range,
    pub mode: u64,
    pub mapped: i64,
}
pub const UFFDIO_CONTINUE: c_ulong = request(0x07, size_of::<Continue>());

#[repr(C)]
#[derive(Default)]
pub struct Poison {
    pub range: Range,
    pub mode: u64,
    pub updated: i64,
}
pub const UFFDIO_POISON: c_ulong = request(0x08, size_of::<Poison>());

/// One `struct uffd_msg`; only the page-fault arm is read.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub struct Message {
    pub event: u8,
    pub reserved: [u8; 7],
    pub flags: u64,
    pub address: u64,
    pub thread: u32,
    pub padding: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers_are_those_of_the_header() {
        assert_eq!(size_of::<Message>(), 32);
        assert_eq!(UFFDIO_API, 0xc018_aa3f);
        assert_eq!(UFFDIO_REGISTER, 0xc020_aa00);
        assert_eq!(UFFDIO_WAKE, 0x8010_aa02);
        assert_eq!(UFFDIO_COPY, 0xc028_aa03);
        assert_eq!(UFFDIO_MOVE, 0xc028_aa05);
        assert_eq!(UFFDIO_WRITEPROTECT, 0xc018_aa06);
        assert_eq!(UFFDIO_CONTINUE, 0xc020_aa07);
        assert_eq!(UFFDIO_POISON, 0xc020_aa08);
    }
}
