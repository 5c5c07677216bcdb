//! The child process that mounts in a user namespace of its own.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::{Failure, Step};

/// For the child, which makes a dozen system calls.
const TIME_OUT: Duration = Duration::from_secs(5);

/// A string for the child, which must not allocate: zero-terminated.
type Text = [u8; 32];

/// What the child needs, made before it exists.
pub(super) struct Plan {
    pub(super) socket: RawFd,
    pub(super) uid_map: Text,
    pub(super) gid_map: Text,
}

/// The answer beside the descriptor; errno 0 is success.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Answer {
    step: i32,
    errno: i32,
}

/// One descriptor as ancillary data, laid out as CMSG_SPACE(4) demands.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptor: RawFd,
    padding: i32,
}

impl Control {
    fn new(descriptor: RawFd) -> Self {
        let len = size_of::<libc::cmsghdr>() + size_of::<RawFd>();
        let header =
            libc::cmsghdr { cmsg_len: len, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
        Self { header, descriptor, padding: 0 }
    }
}

/// Mounts through a child, which is gone when this returns.
pub(super) fn mount() -> Result<OwnedFd, Failure> {
    let (ours, theirs) = socket_pair()?;
    // SAFETY: these take nothing and cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let text = |id: u32| {
        let mut text = [0; 32];
        // Two numbers of at most ten digits fit.
        let _ = write!(&mut text[..31], "0 {id} 1");
        text
    };
    let plan = Plan { socket: theirs.as_raw_fd(), uid_map: text(user), gid_map: text(group) };
    let child = start(&plan, run)?;
    drop(theirs);
    let answer = receive(&ours, TIME_OUT);
    end(&child);
    answer
}

pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    let mut pair = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two integers that live across the call.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) } < 0 {
        return Err(Failure::now(Step::Clone));
    }
    // SAFETY: the kernel has just returned these descriptors, and nobody else knows them.
    Ok(unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) })
}

/// Starts a child that runs `body` and returns a descriptor of it. Its end raises no signal, and nobody's wait(2)
/// takes it. `body` makes system calls only.
pub(super) fn start(plan: &Plan, body: fn(&Plan) -> !) -> Result<OwnedFd, Failure> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_PIDFD;
    // SAFETY: all zero bits are a valid signal set.
    let (mut all, mut before) = unsafe { std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>() };
    // The child must not run the handlers of this process: signals wait until it is made, and in it for ever.
    // SAFETY: the sets live across the calls. clone without CLONE_VM is fork: the child goes on with a copy of
    // this memory, in which other threads may hold any lock; `body` makes system calls only, and never returns.
    let raw = unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let raw = libc::syscall(libc::SYS_clone, flags, 0, &mut pidfd as *mut RawFd, 0, 0);
        if raw == 0 {
            body(plan);
        }
        raw
    };
    let failure = Failure::now(Step::Clone);
    // SAFETY: the set lives across the call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    if raw < 0 {
        return Err(failure);
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// The child, from its first to its last instruction.
fn run(plan: &Plan) -> ! {
    let mounted = map_ids(plan).and_then(|()| super::mount());
    let (answer, root) = match mounted {
        Ok(root) => (Answer::default(), root),
        Err(failure) => (Answer { step: failure.step as i32, errno: failure.errno }, -1),
    };
    let sent = send(plan.socket, answer, root);
    // SAFETY: ends the child at once; nothing of the parent's is run or flushed.
    unsafe { libc::syscall(libc::SYS_exit_group, i32::from(!sent)) };
    unreachable!("exit_group returned");
}

fn map_ids(plan: &Plan) -> Result<(), Failure> {
    write_file(c"/proc/self/setgroups", b"deny", Step::Setgroups)?;
    write_file(c"/proc/self/uid_map", &plan.uid_map, Step::UidMap)?;
    write_file(c"/proc/self/gid_map", &plan.gid_map, Step::GidMap)
}

/// Writes `text`, up to its first zero.
fn write_file(path: &CStr, text: &[u8], step: Step) -> Result<(), Failure> {
    let len = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    // SAFETY: the path and the text live across the calls; the descriptor is this function's own.
    let written = unsafe {
        let file = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_WRONLY, 0);
        if file < 0 {
            return Err(Failure::now(step));
        }
        libc::syscall(libc::SYS_write, file, text.as_ptr(), len)
    };
    // The descriptor goes with the child.
    if written == len as i64 { Ok(()) } else { Err(Failure::now(step)) }
}

fn send(socket: RawFd, mut answer: Answer, root: RawFd) -> bool {
    let mut control = Control::new(root);
    let mut part = libc::iovec { iov_base: (&raw mut answer).cast(), iov_len: size_of::<Answer>() };
    // SAFETY: all zero bits are a valid message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    if root >= 0 {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>();
    }
    // SAFETY: the header and all it points to live across the call.
    unsafe { libc::syscall(libc::SYS_sendmsg, socket, &message, libc::MSG_NOSIGNAL) >= 0 }
}

pub(super) fn receive(socket: &OwnedFd, time_out: Duration) -> Result<OwnedFd, Failure> {
    let failed = |errno| Failure { step: Step::Answer, errno };
    wait_readable(socket, time_out)?;
    let mut answer = Answer::default();
    let mut control = Control::new(-1);
    let mut part = libc::iovec { iov_base: (&raw mut answer).cast(), iov_len: size_of::<Answer>() };
    // SAFETY: all zero bits are a valid message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the header and all it points to live across the call and are ours to write.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
    if got < 0 {
        return Err(Failure::now(Step::Answer));
    }
    let has_descriptor = message.msg_controllen >= size_of::<libc::cmsghdr>() + size_of::<RawFd>()
        && control.header.cmsg_type == libc::SCM_RIGHTS
        && control.descriptor >= 0;
    if has_descriptor {
        // SAFETY: the kernel has just installed this descriptor, and nobody else knows it.
        return Ok(unsafe { OwnedFd::from_raw_fd(control.descriptor) });
    }
    // An answer of no length is the end of a child that was killed.
    let step = Step::ALL.into_iter().find(|step| *step as i32 == answer.step);
    match step.filter(|_| got as usize == size_of::<Answer>() && answer.errno != 0) {
        Some(step) => Err(Failure { step, errno: answer.errno }),
        None => Err(failed(libc::EPIPE)),
    }
}

fn wait_readable(socket: &OwnedFd, time_out: Duration) -> Result<(), Failure> {
    let end = Instant::now() + time_out;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure { step: Step::Answer, errno: libc::ETIMEDOUT });
        }
        let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry that lives across the call.
        let ready = unsafe { libc::poll(&mut entry, 1, left.as_millis() as i32 + 1) };
        if ready > 0 {
            return Ok(());
        }
        let failure = Failure::now(Step::Answer);
        if ready < 0 && failure.errno != libc::EINTR {
            return Err(failure);
        }
    }
}

/// Ends the child, if it has not ended by itself, and reaps it.
pub(super) fn end(child: &OwnedFd) {
    let raw = child.as_raw_fd();
    loop {
        // SAFETY: the descriptor is the child's own; the kernel is asked to write nothing.
        let reaped = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, raw, libc::SIGKILL, std::ptr::null::<u8>(), 0);
            let options = libc::WEXITED | libc::__WALL;
            libc::waitid(libc::P_PIDFD, raw as libc::id_t, std::ptr::null_mut(), options)
        };
        if reaped == 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return;
        }
    }
}
