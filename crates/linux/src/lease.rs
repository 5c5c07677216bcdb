//! Read leases: the kernel asks before it lets anybody change a file (F_SETLEASE in fcntl(2)).
//!
//! ```text
//!   take        granted while nobody can write: no descriptor for writing, no writable shared mapping
//!   a writer    opens the file or cuts it off by its name: it sleeps in that call
//!   next        tells the holder, which does what must be done before the bytes change
//!   give_back   the writer goes on
//! ```
//!
//! After `/proc/sys/fs/lease-break-time` seconds the kernel takes a lease that was not given back. A lease belongs to an
//! open file description. Renames and removed names break none: they change no bytes.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// `F_SETSIG` and `F_SETOWN_EX` with its `F_OWNER_TID`, which the bindings lack.
const SET_SIGNAL: libc::c_int = 10;
const SET_OWNER: libc::c_int = 15;
const OWNER_IS_THREAD: libc::c_int = 0;

#[repr(C)]
struct LeaseOwner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// The signal that comes with the descriptor whose lease is to be broken. Real-time signals queue.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 6
}

/// The thread that is told of leases that are to be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakReader(libc::pid_t);

/// Receives the news of leases that are to be broken, on the thread that made it.
#[derive(Debug)]
pub struct BreakNews {
    thread: libc::pid_t,
    // Signals are blocked in that thread only.
    _bound: PhantomData<*const ()>,
}

/// What came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// Somebody waits for the lease of this descriptor, or there is something to read from it.
    Breaks(RawFd),
    /// Some lease may be waited for: too many signals came at once to tell which.
    Some,
    /// [`BreakReader::wake`] was called.
    Woken,
}

/// Why there is no lease.
#[derive(Debug)]
pub enum Refused {
    /// Somebody has the file open for writing, or mapped for shared stores.
    Written,
    /// This user may take none: the file is another user's.
    NotOurs,
    /// The file system has none, or something else is wrong.
    Other(io::Error),
}

impl BreakNews {
    /// Readies the calling thread.
    pub fn listen() -> Self {
        // SAFETY: calls on numbers and a set of this stack.
        let thread = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, signal());
            // What comes in place of the signal when its queue is full.
            libc::sigaddset(&raw mut set, libc::SIGIO);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::gettid()
        };
        Self { thread, _bound: PhantomData }
    }

    /// Where leases are to tell of themselves so that this hears of it.
    pub fn reader(&self) -> BreakReader {
        BreakReader(self.thread)
    }

    /// Waits for news, for at most `limit`; `None`: none came.
    pub fn next(&self, limit: Duration) -> Option<News> {
        let timeout =
            libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        // SAFETY: the kernel reads the set and the time, and writes the description, all of this stack.
        let (got, info) = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, signal());
            libc::sigaddset(&raw mut set, libc::SIGIO);
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (libc::sigtimedwait(&raw const set, &raw mut info, &raw const timeout), info)
        };
        if got < 0 {
            return None;
        }
        if got != signal() {
            return Some(News::Some);
        }
        if info.si_code <= 0 {
            return Some(News::Woken);
        }
        /// What the kernel adds to signals of descriptors: a band of events, and the descriptor.
        #[repr(C)]
        struct Polled {
            header: [libc::c_int; 4],
            band: libc::c_long,
            descriptor: libc::c_int,
        }
        // SAFETY: of a signal of F_SETSIG with a positive code these fields are filled in; the union is larger.
        let polled = unsafe { std::ptr::from_ref(&info).cast::<Polled>().read() };
        Some(News::Breaks(polled.descriptor))
    }
}

impl BreakReader {
    /// Has the next [`BreakNews::next`] return.
    pub fn wake(self) {
        // SAFETY: takes numbers. The thread blocks the signal; one that has ended gets none.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, signal()) };
    }
}

/// Has `descriptor` tell `reader`, as leases do, when there is something to read (O_ASYNC in fcntl(2)).
pub fn tell_when_readable(descriptor: &impl AsFd, reader: BreakReader) -> io::Result<()> {
    let number = descriptor.as_fd().as_raw_fd();
    let owner = LeaseOwner { kind: OWNER_IS_THREAD, id: reader.0 };
    // SAFETY: takes numbers, and a structure that lives across the call.
    let told = unsafe {
        let flags = libc::fcntl(number, libc::F_GETFL);
        flags >= 0
            && libc::fcntl(number, SET_SIGNAL, signal()) >= 0
            && libc::fcntl(number, SET_OWNER, &raw const owner) >= 0
            && libc::fcntl(number, libc::F_SETFL, flags | libc::O_ASYNC) >= 0
    };
    if told { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a lease on `file`, which is open for reading only. `reader` hears when it is to be broken.
///
/// # Errors
///
/// See [`Refused`].
pub fn take(file: &impl AsFd, reader: BreakReader) -> Result<(), Refused> {
    let descriptor = file.as_fd().as_raw_fd();
    let owner = LeaseOwner { kind: OWNER_IS_THREAD, id: reader.0 };
    // SAFETY: takes numbers, and a structure that lives across the call.
    let taken = unsafe {
        libc::fcntl(descriptor, SET_SIGNAL, signal()) >= 0
            && libc::fcntl(descriptor, SET_OWNER, &raw const owner) >= 0
            && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_RDLCK) >= 0
    };
    if taken {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::EAGAIN) => Refused::Written,
        Some(libc::EACCES | libc::EPERM) => Refused::NotOurs,
        _ => Refused::Other(error),
    })
}

/// Whether `file` has its lease, and nobody waits for it.
pub fn is_held(file: &impl AsFd) -> bool {
    // SAFETY: takes numbers.
    unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLEASE) == libc::F_RDLCK }
}

/// Gives the lease of `file` back: who waits for it goes on.
pub fn give_back(file: &impl AsFd) {
    // SAFETY: takes numbers; it fails where there is none.
    unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
}

/// How long the kernel waits for a lease to be given back.
pub fn break_time() -> Duration {
    let text = std::fs::read_to_string("/proc/sys/fs/lease-break-time").unwrap_or_default();
    Duration::from_secs(text.trim().parse().unwrap_or(45))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(100);

    #[test]
    fn a_writer_waits_until_the_lease_is_given_back() {
        let news = BreakNews::listen();
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = std::fs::File::open(file.path()).unwrap();
        // `file` itself is open for writing.
        assert!(matches!(take(&reader, news.reader()), Err(Refused::Written)));
        let path = file.into_temp_path();
        match take(&reader, news.reader()) {
            Ok(()) => {}
            Err(refused) => {
                println!("skipped: no leases on this file system ({refused:?})");
                return;
            }
        }
        assert!(is_held(&reader));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| std::fs::OpenOptions::new().write(true).open(&path).map(drop));
            assert_eq!(news.next(LONG), Some(News::Breaks(reader.as_raw_fd())));
            assert!(!is_held(&reader) && !writer.is_finished());
            give_back(&reader);
            writer.join().unwrap().unwrap();
        });
    }

    #[test]
    fn the_reader_is_woken() {
        let news = BreakNews::listen();
        news.reader().wake();
        assert_eq!(news.next(LONG), Some(News::Woken));
        assert_eq!(news.next(Duration::ZERO), None);
    }
}
