//! For tests only: what safe code cannot ask of the system.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a child process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// The exit code of a child that panicked.
pub const PANICKED: i32 = 101;

/// Runs `child` in a forked child process and waits for its end.
///
/// To be called while no other thread runs that could hold a lock which `child` needs; the lock of the allocator
/// is taken care of by the C library. A child that does not end within ten times `limit_seconds`, which are plenty on a
/// machine with nothing else to do, is killed by SIGALRM.
pub fn fork(limit_seconds: u32, child: impl FnOnce() -> i32) -> std::io::Result<Ended> {
    // SAFETY: fork(2) takes nothing; the child runs `child` only, under the condition above, and ends by _exit.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(std::io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: alarm(2) takes a number and touches no memory.
        unsafe { libc::alarm(limit_seconds.saturating_mul(10)) };
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one integer that lives across the call.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(match libc::WIFSIGNALED(status) {
        true => Ended::Killed(libc::WTERMSIG(status)),
        false => Ended::Exited(libc::WEXITSTATUS(status)),
    })
}

/// Takes userfaultfd away from the calling thread and those that it starts, as a container's filter of system calls
/// does: by either way the answer is EPERM.
pub fn deny_userfaultfd() -> std::io::Result<()> {
    const NEW_BY_DEVICE: u32 = 0xaa00;
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let is = |value, yes, no| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no);
    let answer = |value| statement(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    // Offsets in `struct seccomp_data`: the call's number, and the low half of its second argument.
    let mut filter = [
        load(0),
        is(libc::SYS_userfaultfd as u32, 3, 0),
        is(libc::SYS_ioctl as u32, 0, 3),
        load(24),
        is(NEW_BY_DEVICE, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls take numbers and a filter that lives across the call; they change what later system calls
    // answer, and no memory.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// A plain load of one byte, as any code does one: of an address that traps it ends the process. For addresses of mapped
/// objects, which hold no Rust value.
pub fn load(address: u64) -> u8 {
    let byte: u8;
    // SAFETY: one load by the processor, which changes nothing; no Rust value is there, and if nothing is, it traps.
    unsafe {
        std::arch::asm!("mov {0}, byte ptr [{1}]", out(reg_byte) byte, in(reg) address, options(nostack, readonly));
    }
    byte
}

/// As [`load`], but `None` where the address traps. For addresses of mapped objects, of which one was touched already by
/// `touch_at`.
pub fn load_trapping(address: u64) -> Option<u8> {
    let mut byte = [0];
    // SAFETY: no Rust value is there, and the caller says that the address is mapped.
    let copied = unsafe { crate::signal::copy_trapping(&mut byte, address as *const u8) };
    (copied == 1).then_some(byte[0])
}

/// Ends the registration of `[start, start + len)` with the userfaultfd `faults`, as a guest does that breaks its word.
pub fn unregister(faults: std::os::fd::BorrowedFd<'_>, start: usize, len: usize) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    // _IOR(0xAA, 0x01, struct uffdio_range)
    const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_aa01;
    let mut range = [start as u64, len as u64];
    // SAFETY: the kernel reads one structure of two numbers, which lives across the call; no memory changes.
    let answer = unsafe { libc::ioctl(faults.as_raw_fd(), UFFDIO_UNREGISTER, range.as_mut_ptr()) };
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the userfaultfd `faults` tell of missing pages in `len` bytes of new memory, too, as a guest does that breaks its
/// word. Returns their address; they stay mapped for good.
pub fn register_elsewhere(faults: std::os::fd::BorrowedFd<'_>, len: usize) -> std::io::Result<usize> {
    use std::os::fd::AsRawFd;
    // _IOWR(0xAA, 0x00, struct uffdio_register)
    const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
    const MISSING: u64 = 1;
    let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel maps unused addresses; nobody else knows them.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    let mut argument = [start as u64, len as u64, MISSING, 0];
    // SAFETY: the kernel reads and writes one structure of four numbers, which lives across the call.
    let answer = unsafe { libc::ioctl(faults.as_raw_fd(), UFFDIO_REGISTER, argument.as_mut_ptr()) };
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(start as usize) }
}

/// Drops the memory behind `[address, address + len)` as a stray madvise(2) of anybody does: private memory with
/// MADV_DONTNEED, that of a file with MADV_REMOVE, which makes a hole in the file. For addresses of mapped objects, which
/// hold no Rust value.
pub fn drop_memory(address: u64, len: usize) -> std::io::Result<()> {
    for advice in [libc::MADV_REMOVE, libc::MADV_DONTNEED] {
        // SAFETY: no Rust value is there. Pins of mapped objects may be: that is what tests find out about.
        let answer = unsafe { libc::madvise(address as *mut libc::c_void, len, advice) };
        let error = std::io::Error::last_os_error();
        // Private memory has no file to make a hole in.
        if answer < 0 && !(advice == libc::MADV_REMOVE && error.raw_os_error() == Some(libc::EINVAL)) {
            return Err(error);
        }
    }
    Ok(())
}

/// Runs `body` with an alternate signal stack of `len` bytes for this thread, with a page below it that traps. Returns
/// how many bytes of the stack were used.
pub fn on_alternate_stack(len: usize, body: impl FnOnce()) -> std::io::Result<usize> {
    const PAGE: usize = 4096;
    let len = len.next_multiple_of(PAGE);
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory, of which the lowest page becomes inaccessible before anybody knows of it.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), PAGE + len, prot, flags, -1, 0) };
    // SAFETY: as above.
    if start == libc::MAP_FAILED || unsafe { libc::mprotect(start, PAGE, libc::PROT_NONE) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let bottom = start.cast::<u8>().wrapping_add(PAGE);
    let new = libc::stack_t { ss_sp: bottom.cast(), ss_flags: 0, ss_size: len };
    let mut old = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: the stack lives until the old one is back.
    if unsafe { libc::sigaltstack(&new, &mut old) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    body();
    // SAFETY: puts back what was there, which its owner keeps; this thread is not on an alternate stack.
    unsafe { libc::sigaltstack(&old, std::ptr::null_mut()) };
    // SAFETY: the stack is ours again, and initialised, since the system fills new memory with zeros.
    let bytes = unsafe { std::slice::from_raw_parts(bottom, len) };
    let unused = bytes.iter().take_while(|byte| **byte == 0).count();
    // SAFETY: nobody has references into it any more.
    unsafe { libc::munmap(start, PAGE + len) };
    Ok(len - unused)
}

/// What the kernel puts on the stack for a signal, at most, in bytes (AT_MINSIGSTKSZ).
pub fn signal_frame_bytes() -> usize {
    const AT_MINSIGSTKSZ: libc::c_ulong = 51;
    // SAFETY: takes a number.
    let told = unsafe { libc::getauxval(AT_MINSIGSTKSZ) } as usize;
    if told == 0 { libc::MINSIGSTKSZ } else { told }
}

/// Drops the frame of the page at `address`, as a stray madvise(2) does. For addresses of mapped objects.
pub fn drop_page(address: u64) -> std::io::Result<()> {
    let page = (address & !0xfff) as usize as *mut libc::c_void;
    // SAFETY: the page is one of a mapped object that nobody has references into, as the test sees to; what is read there
    // next is what the engine puts there.
    match unsafe { libc::madvise(page, 4096, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
