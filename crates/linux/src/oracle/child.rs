//! What the forked processes do. Nothing here allocates, locks or panics on purpose.

use super::shared::{Region, Slot};
use super::{Detail, Order, Process, Rights, Window, bytes_mark, probe, trap_mark};
use std::sync::atomic::Ordering;

const PAGE: u64 = 4096;
/// One past the highest address of a process on x86-64.
const TOP: u64 = 0x7fff_ffff_f000;

/// Carries out orders until there are none, and ends.
pub(super) fn main(window: Window, rights: Rights, region: &Region) -> ! {
    // SAFETY: alarm(2) takes a number.
    unsafe { libc::alarm(rights.limit_seconds) };
    probe::catch();
    drop_rights(rights);
    fill(window, region);
    let mut me: Process = 0;
    let orders = region.orders();
    loop {
        let turn = region.turn().load(Ordering::Acquire);
        let index = turn as usize;
        let Some(&(who, order)) = orders.get(index) else { end() };
        if who != me {
            wait(region, turn);
            continue;
        }
        if order == Order::Fork {
            // SAFETY: this process has one thread; the child goes on in this function.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                me = 1;
                // SAFETY: alarm(2) takes a number; the parent's is not inherited.
                unsafe { libc::alarm(rights.limit_seconds) };
                wait(region, turn);
                continue;
            }
            region.put(index, plain(i64::from(pid > 0) - 1));
        } else {
            region.put(index, carry_out(order, window, region));
        }
        pass(region, turn + 1);
        if order == Order::Exit {
            end();
        }
    }
}

fn end() -> ! {
    loop {
        // SAFETY: waits for children, if there are any, without storing anything.
        if unsafe { libc::wait(std::ptr::null_mut()) } < 0 {
            // SAFETY: ends the process without running the parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
    }
}

fn wait(region: &Region, turn: u32) {
    let (call, none) = (libc::SYS_futex, std::ptr::null::<libc::timespec>());
    // SAFETY: the word is in shared memory that lives as long as the process; the kernel only reads it.
    unsafe { libc::syscall(call, region.turn().as_ptr(), libc::FUTEX_WAIT, turn, none) };
}

fn pass(region: &Region, turn: u32) {
    region.turn().store(turn, Ordering::Release);
    // SAFETY: wakes whoever waits on the word, and touches no memory.
    unsafe { libc::syscall(libc::SYS_futex, region.turn().as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Makes an ordinary user of a privileged one, and limits what it may lock.
fn drop_rights(rights: Rights) {
    const NOBODY: libc::uid_t = 65534;
    let limit = libc::rlimit { rlim_cur: rights.locked_bytes, rlim_max: rights.locked_bytes };
    // SAFETY: these calls take numbers and a struct that lives across the call. The process may be looked at by
    // itself afterwards, which /proc/self needs.
    unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        if libc::geteuid() == 0 {
            libc::setresuid(NOBODY, NOBODY, NOBODY);
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
        }
    }
}

/// Maps all addresses that are free, but for the window, so that nothing can be placed elsewhere.
fn fill(window: Window, region: &Region) {
    let (text, _, room) = region.room();
    let length = read_file(c"/proc/self/maps", text, room);
    // SAFETY: `length` bytes at `text` were just read, and nobody writes them while this slice is used.
    let table = unsafe { std::slice::from_raw_parts(text, length) };
    let mut free_from = PAGE;
    let mut window_done = false;
    for line in table.split(|&byte| byte == b'\n') {
        let Some((start, end)) = range_of(line) else { continue };
        if !window_done && start >= window.start + window.length {
            block(free_from, window.start);
            free_from = window.start + window.length;
            window_done = true;
        }
        block(free_from, start.min(TOP));
        free_from = free_from.max(end);
    }
    block(free_from, TOP);
}

/// Maps `[start, end)` for no access. What it is told about dumps keeps it apart from what the orders map.
fn block(start: u64, end: u64) {
    if start >= end {
        return;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the addresses are free, by the table of the process and by MAP_FIXED_NOREPLACE.
    unsafe {
        let at = start as *mut libc::c_void;
        libc::mmap(at, (end - start) as usize, libc::PROT_NONE, flags, -1, 0);
        libc::madvise(at, (end - start) as usize, libc::MADV_DONTDUMP);
    }
}

fn range_of(line: &[u8]) -> Option<(u64, u64)> {
    let (mut value, mut start) = (0_u64, None);
    for &byte in line {
        match (byte as char).to_digit(16) {
            Some(digit) => value = value << 4 | u64::from(digit),
            None if byte == b'-' && start.is_none() => start = Some(std::mem::take(&mut value)),
            None if byte == b' ' => return start.map(|start| (start, value)),
            None => return None,
        }
    }
    None
}

/// Reads a file of /proc, as far as there is room, and says how many bytes.
fn read_file(path: &std::ffi::CStr, into: *mut u8, room: usize) -> usize {
    // SAFETY: the path ends with a zero, and the kernel writes at most `room` bytes where the caller has them.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let mut done = 0;
        while done < room {
            let count = libc::read(file, into.add(done).cast(), room - done);
            match usize::try_from(count) {
                Ok(count) if count > 0 => done += count,
                _ => break,
            }
        }
        libc::close(file);
        done
    }
}

fn plain(value: i64) -> Slot {
    Slot { value, signal: None, data: (0, 0) }
}

fn returned(value: i64) -> Slot {
    // SAFETY: reads this thread's error number.
    plain(if value == -1 { -i64::from(unsafe { *libc::__errno_location() }) } else { value })
}

fn accessed(access: Result<i64, super::Signal>) -> Slot {
    match access {
        Ok(value) => plain(value),
        Err(signal) => Slot { value: 0, signal: Some(signal), data: (0, 0) },
    }
}

fn carry_out(order: Order, window: Window, region: &Region) -> Slot {
    match order {
        Order::Load { address } => accessed(probe::load(address)),
        Order::Store { address, byte } => accessed(probe::store(address, byte)),
        Order::Execute { address } => accessed(probe::execute(address)),
        Order::CopyOut { .. } | Order::CopyIn { .. } | Order::Pwrite { .. } | Order::Pread { .. } => {
            transfer(order, region)
        }
        Order::Digest => digest(window, region),
        Order::Table { detail } => table(detail, region),
        Order::Fork | Order::Exit => plain(0),
        call => returned(system_call(call, region)),
    }
}

fn system_call(order: Order, region: &Region) -> i64 {
    let file = |index| region.file(index) as i64;
    match order {
        Order::Mmap { address, length, prot, flags, file: index, offset } => {
            let numbers = [address, length, prot.into(), flags.into(), file(index) as u64, offset];
            call(libc::SYS_mmap, numbers)
        }
        Order::Munmap { address, length } => call(libc::SYS_munmap, [address, length, 0, 0, 0, 0]),
        Order::Mprotect { address, length, prot } => {
            call(libc::SYS_mprotect, [address, length, prot.into(), 0, 0, 0])
        }
        Order::Mremap { address, old, new, flags, to } => {
            call(libc::SYS_mremap, [address, old, new, flags.into(), to, 0])
        }
        Order::Madvise { address, length, advice } => {
            call(libc::SYS_madvise, [address, length, advice as u64, 0, 0, 0])
        }
        Order::Mlock { address, length, flags } => {
            call(libc::SYS_mlock2, [address, length, flags.into(), 0, 0, 0])
        }
        Order::Munlock { address, length } => call(libc::SYS_munlock, [address, length, 0, 0, 0, 0]),
        Order::Msync { address, length, flags } => {
            call(libc::SYS_msync, [address, length, flags as u64, 0, 0, 0])
        }
        Order::Truncate { file: index, length } => {
            call(libc::SYS_ftruncate, [file(index) as u64, length, 0, 0, 0, 0])
        }
        Order::Punch { file: index, offset, length } => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            call(libc::SYS_fallocate, [file(index) as u64, mode as u64, offset, length, 0, 0])
        }
        _ => 0,
    }
}

/// A system call on addresses of the window. All numbers have 64 bits: half a register is not passed on whole.
fn call(number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    // SAFETY: every address is one of the window's, of nothing, or a wrong one: the window holds no Rust object, all
    // other free addresses are blocked, and the orders map nothing at addresses outside the window that are in use.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

/// Reads and writes between memory, files and the data of answers. The last file is a scratch file in memory.
fn transfer(order: Order, region: &Region) -> Slot {
    let (data, offset, room) = region.room();
    let scratch = region.file(region_last(region));
    let fits = |length: u64| (length as usize).min(room);
    // SAFETY: `data` has `room` bytes that nobody else uses; other addresses are as in `system_call`.
    unsafe {
        match order {
            Order::Pread { file, offset: at, length } => {
                let count = libc::pread(region.file(file), data.cast(), fits(length), at as i64);
                let kept = usize::try_from(count).unwrap_or(0);
                region.keep(kept);
                Slot { data: (offset, kept), ..returned(count as i64) }
            }
            Order::Pwrite { file, offset: at, length, byte } => {
                data.write_bytes(byte, fits(length));
                returned(libc::pwrite(region.file(file), data.cast(), fits(length), at as i64) as i64)
            }
            Order::CopyIn { address, length, byte } => {
                data.write_bytes(byte, fits(length));
                libc::pwrite(scratch, data.cast(), fits(length), 0);
                returned(call(libc::SYS_pread64, [scratch as u64, address, length, 0, 0, 0]))
            }
            Order::CopyOut { address, length } => {
                let count = call(libc::SYS_pwrite64, [scratch as u64, address, length, 0, 0, 0]);
                let kept = usize::try_from(count).unwrap_or(0).min(room);
                libc::pread(scratch, data.cast(), kept, 0);
                region.keep(kept);
                Slot { data: (offset, kept), ..returned(count) }
            }
            _ => plain(0),
        }
    }
}

fn region_last(region: &Region) -> i32 {
    (0..64).rev().find(|&index| region.file(index) >= 0).unwrap_or(-1)
}

fn digest(window: Window, region: &Region) -> Slot {
    let (data, offset, room) = region.room();
    let bytes = ((window.length / PAGE) as usize * 8).min(room);
    for index in 0..bytes / 8 {
        let page = window.start + index as u64 * PAGE;
        let mark = match probe::load(page) {
            Ok(_) => hash(page),
            Err(signal) => trap_mark(signal.number, signal.code),
        };
        // SAFETY: inside the room; unaligned, since answers before may have any length.
        unsafe { data.add(index * 8).cast::<u64>().write_unaligned(mark) };
    }
    region.keep(bytes);
    Slot { data: (offset, bytes), ..plain(0) }
}

/// The mark of a page that can be loaded from.
fn hash(page: u64) -> u64 {
    // SAFETY: the page was just loaded from, and nobody else changes mappings while it is this process's turn.
    let word = |index: u64| unsafe { ((page + index * 8) as *const u64).read_volatile() };
    bytes_mark((0..PAGE / 8).map(word))
}

fn table(detail: Detail, region: &Region) -> Slot {
    let (data, offset, room) = region.room();
    // What is below the window is two lines; a table that is cut off is noticed by whoever reads it.
    let (path, most) = match detail {
        Detail::Flags => (c"/proc/self/smaps", 160 << 10),
        Detail::Lines => (c"/proc/self/maps", 24 << 10),
    };
    let length = read_file(path, data, room.min(most));
    region.keep(length);
    Slot { data: (offset, length), ..plain(0) }
}
