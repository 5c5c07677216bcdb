//! The filter behind which programs run: it stops them before the calls that their tracer must see.

/// The second argument of a close(2) by which injected calls say that they are done, the first one of a pidfd_getfd(2) by
/// which they ask for a descriptor, and the upper half of the descriptor that an injected mmap(2) maps, which is not
/// stopped.
pub const MARK: u32 = 0x6d65_6d6f;

/// Calls that stop the caller, beside those that map files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tracing {
    /// Calls that name a file by a path, to open it or to ask what it is.
    pub names: Traced,
    /// Calls that begin another program.
    pub programs: Traced,
}

/// Whether a kind of calls stops the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Traced {
    /// It does not.
    #[default]
    No,
    /// It does.
    Yes,
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const STOP: u32 = libc::SECCOMP_RET_TRACE;
/// Holds the call up and tells the listener.
const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;
const X86_64: u32 = 0xc000_003e;

/// Where in `struct seccomp_data` the fields are.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const fn low_half_of_argument(index: u32) -> u32 {
    16 + index * 8
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const HAS_BITS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn test(code: u16, value: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: if_true, jf: if_false, k: value }
}

fn answer(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: action }
}

/// Stops at call `number` if its argument passes the test.
fn stop_if(number: libc::c_long, argument: u32, code: u16, value: u32) -> [libc::sock_filter; 5] {
    answer_if(number, argument, code, value, STOP)
}

fn answer_if(
    number: libc::c_long,
    argument: u32,
    code: u16,
    value: u32,
    action: u32,
) -> [libc::sock_filter; 5] {
    [
        test(EQUAL, number as u32, 0, 4),
        load(low_half_of_argument(argument)),
        test(code, value, 0, 1),
        answer(action),
        answer(ALLOW),
    ]
}

fn stop_at(number: libc::c_long) -> [libc::sock_filter; 2] {
    [test(EQUAL, number as u32, 0, 1), answer(STOP)]
}

/// Calls that name a file.
const NAMES: [libc::c_long; 14] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_truncate,
];

/// Stops at an mmap of a file.
fn stop_if_maps_file() -> [libc::sock_filter; 7] {
    [
        test(EQUAL, libc::SYS_mmap as u32, 0, 6),
        load(low_half_of_argument(4) + 4),
        test(EQUAL, MARK, 3, 0),
        load(low_half_of_argument(3)),
        test(HAS_BITS, libc::MAP_ANONYMOUS as u32, 1, 0),
        answer(STOP),
        answer(ALLOW),
    ]
}

/// Stops at a call that opens a file for changes and does not wait, whose flags are this argument: what others hold of
/// the file must be given back before.
fn stop_if_opens_in_haste(number: libc::c_long, argument: u32) -> [libc::sock_filter; 6] {
    let changes = libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC;
    [
        test(EQUAL, number as u32, 0, 5),
        load(low_half_of_argument(argument)),
        test(HAS_BITS, libc::O_NONBLOCK as u32, 0, 2),
        test(HAS_BITS, changes as u32, 0, 1),
        answer(STOP),
        answer(ALLOW),
    ]
}

/// The filter's program.
pub(super) fn program(tracing: Tracing) -> Vec<libc::sock_filter> {
    let mut code = vec![load(MACHINE), test(EQUAL, X86_64, 1, 0), answer(ALLOW), load(NUMBER)];
    code.extend(stop_if_maps_file());
    code.extend(stop_if(libc::SYS_close, 1, EQUAL, MARK));
    code.extend(answer_if(libc::SYS_pidfd_getfd, 0, EQUAL, MARK, ASK));
    code.extend(stop_if(libc::SYS_prctl, 0, EQUAL, libc::PR_SET_SECCOMP as u32));
    // Without an old length it duplicates a shared mapping.
    code.extend(stop_if(libc::SYS_mremap, 1, EQUAL, 0));
    code.extend(stop_if(libc::SYS_mlockall, 0, HAS_BITS, libc::MCL_FUTURE as u32));
    code.extend(stop_at(libc::SYS_seccomp));
    // Both may ask for a child that is not traced.
    code.extend(stop_if(libc::SYS_clone, 0, HAS_BITS, libc::CLONE_UNTRACED as u32));
    code.extend(stop_at(libc::SYS_clone3));
    if tracing.programs == Traced::Yes {
        code.extend([libc::SYS_execve, libc::SYS_execveat].into_iter().flat_map(stop_at));
    }
    if tracing.names == Traced::Yes {
        code.extend(NAMES.into_iter().flat_map(stop_at));
    } else {
        code.extend(stop_if_opens_in_haste(libc::SYS_open, 1));
        code.extend(stop_if_opens_in_haste(libc::SYS_openat, 2));
        code.extend(stop_at(libc::SYS_openat2));
    }
    code.push(answer(ALLOW));
    code
}

/// Puts the calling thread behind `program`, and so all that it starts, by system calls that `call` makes. Returns the
/// number of the listener, or something negative.
pub(super) fn install(
    program: &[libc::sock_filter],
    call: impl Fn(libc::c_long, [usize; 4]) -> isize,
) -> isize {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    match call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0]) {
        0 => {
            let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as usize;
            let filter = &raw const filter as usize;
            call(libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER as usize, flags, filter, 0])
        }
        refused => refused.min(-1),
    }
}
