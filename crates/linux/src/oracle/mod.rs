//! For tests only: the kernel of this machine as an oracle of mapping.
//!
//! A list of [`Order`]s is carried out in a forked process whose address space is full but for a window: the kernel
//! has no choice but to place mappings there, so where it places them can be compared, too. The process allocates
//! nothing and writes its answers to shared memory. One more fork can be among the orders; then the two processes
//! take turns, as the orders say.

mod child;
mod probe;
mod shared;

use std::io;
use std::os::fd::RawFd;
use std::sync::Once;

pub use shared::{Answer, Signal};

/// The window that is left free.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its first address, a multiple of the page size.
    pub start: u64,
    /// Its bytes, a multiple of the page size.
    pub length: u64,
}

/// What the processes may do.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// RLIMIT_MEMLOCK, in bytes. They have no privileges.
    pub locked_bytes: u64,
    /// After how long they are killed.
    pub limit_seconds: u32,
}

/// One thing to do. Addresses and numbers go to the kernel as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are the arguments of the system calls")]
pub enum Order {
    Mmap {
        address: u64,
        length: u64,
        prot: u32,
        flags: u32,
        file: i32,
        offset: u64,
    },
    Munmap {
        address: u64,
        length: u64,
    },
    Mprotect {
        address: u64,
        length: u64,
        prot: u32,
    },
    Mremap {
        address: u64,
        old: u64,
        new: u64,
        flags: u32,
        to: u64,
    },
    Madvise {
        address: u64,
        length: u64,
        advice: i32,
    },
    Mlock {
        address: u64,
        length: u64,
        flags: u32,
    },
    Munlock {
        address: u64,
        length: u64,
    },
    Msync {
        address: u64,
        length: u64,
        flags: i32,
    },
    Load {
        address: u64,
    },
    Store {
        address: u64,
        byte: u8,
    },
    Execute {
        address: u64,
    },
    /// write(2) from memory.
    CopyOut {
        address: u64,
        length: u64,
    },
    /// read(2) of as many times this byte into memory.
    CopyIn {
        address: u64,
        length: u64,
        byte: u8,
    },
    Pwrite {
        file: i32,
        offset: u64,
        length: u64,
        byte: u8,
    },
    Pread {
        file: i32,
        offset: u64,
        length: u64,
    },
    Truncate {
        file: i32,
        length: u64,
    },
    Punch {
        file: i32,
        offset: u64,
        length: u64,
    },
    /// What a load from each page of the window gives: [`Answer::data`] has eight bytes for each.
    Digest,
    /// The table of mappings as text, cut off somewhere above the window.
    Table {
        detail: Detail,
    },
    Fork,
    Exit,
}

/// How much a table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// /proc/self/maps.
    Lines,
    /// /proc/self/smaps, whose flags tell locks, advice and the most that a mapping can be protected to.
    Flags,
}

/// What [`Order::Digest`] says of a page of these words.
pub fn bytes_mark(words: impl Iterator<Item = u64>) -> u64 {
    let step = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0x100_0000_01b3);
        hash ^ hash >> 29
    };
    words.fold(0xcbf2_9ce4_8422_2325, step) >> 4
}

/// What [`Order::Digest`] says of a page that raises this signal.
pub fn trap_mark(number: i32, code: i32) -> u64 {
    0xffff_ffff_0000_0000 | (number as u64) << 8 | code as u64
}

/// Who carries an order out: 0, or 1 after [`Order::Fork`].
pub type Process = u32;

/// One access to an address of this process that holds no Rust object, or a value that the process does not look at
/// otherwise: for mappings made by the crates above. What it raises is told, and is nobody else's to handle.
pub fn access(order: Order) -> Result<i64, Signal> {
    static CATCH: Once = Once::new();
    CATCH.call_once(probe::catch);
    match order {
        Order::Load { address } => probe::load(address),
        Order::Store { address, byte } => probe::store(address, byte),
        Order::Execute { address } => probe::execute(address),
        _ => Ok(0),
    }
}

/// Carries out `orders` in a process of its own, with `files` as the files that they name by index.
///
/// An error if the process does not come to the end of the orders; its cause is what the error says.
pub fn run(
    window: Window,
    rights: Rights,
    orders: &[(Process, Order)],
    files: &[RawFd],
) -> io::Result<Vec<Answer>> {
    let region = shared::Region::new(orders, files)?;
    // SAFETY: fork(2) takes nothing; the child runs `child::main` only, which allocates nothing, takes no lock, and
    // ends by _exit.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => child::main(window, rights, &region),
        _ => {
            wait(pid)?;
            region.answers()
        }
    }
}

fn wait(pid: i32) -> io::Result<()> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one integer that lives across the call.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
