//! Descriptors of this process that are handed to programs.
//!
//! ```text
//!   a stopped thread      offered descriptors by its tracer, it makes calls in which it asks for them, one by one
//!   filter                holds such a call up, and tells whoever waits for reports (seccomp user notification)
//!   who waits             puts the descriptor into the program's table, as the same open file; its number is the answer
//! ```
//!
//! A program gets what it was offered and nothing else: who asks without an offer is answered as the kernel would. That
//! the file is the same open file matters: the kernel joins neighbouring mappings only of one open file. And no name is
//! looked up: a program in other namespaces, or with other rights, is handed the descriptor all the same.
//! Source: seccomp_unotify(2).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

use rustix::event::epoll;

use super::Pid;
use memobj_linux::locks::{Rank, RankedMutex};

/// `struct seccomp_notif`: who asks, and for what.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    thread: u32,
    flags: u32,
    number: i32,
    machine: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct Add {
    id: u64,
    flags: u32,
    source: u32,
    new: u32,
    new_flags: u32,
}

const fn number(direction: libc::c_ulong, index: libc::c_ulong, size: usize) -> libc::c_ulong {
    direction << 30 | (size as libc::c_ulong) << 16 | (b'!' as libc::c_ulong) << 8 | index
}
const RECEIVE: libc::c_ulong = number(3, 0, size_of::<Notification>());
const SEND: libc::c_ulong = number(3, 1, size_of::<Answer>());
const ADD: libc::c_ulong = number(1, 3, size_of::<Add>());
const SET_FLAGS: libc::c_ulong = number(1, 4, size_of::<u64>());
/// Of ADD: the descriptor is the answer, in one step.
const ANSWERS: u32 = 2;
/// Of SET_FLAGS: whoever is woken runs next.
const SYNC_WAKE_UP: u64 = 1;

/// Hands descriptors to the threads that were offered some. One for the process.
#[derive(Debug)]
pub(super) struct Hands {
    poll: OwnedFd,
    /// Whoever serves. A call that takes a question blocks if another thread has taken it since it was announced.
    turn: RankedMutex<()>,
    listeners: RankedMutex<Vec<Arc<OwnedFd>>>,
    offers: RankedMutex<HashMap<Pid, VecDeque<RawFd>>>,
}

impl Hands {
    /// That of this process, if there is one.
    pub(super) fn of_this_process() -> Option<&'static Self> {
        HANDS.get()
    }

    /// That of this process, which is made if there is none.
    fn start() -> io::Result<&'static Self> {
        if let Some(hands) = HANDS.get() {
            return Ok(hands);
        }
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(HANDS.get_or_init(|| Self {
            poll,
            turn: RankedMutex::new(Rank::HandTurn, ()),
            listeners: RankedMutex::new(Rank::HandListeners, Vec::new()),
            offers: RankedMutex::new(Rank::HandOffers, HashMap::new()),
        }))
    }

    /// Readable while somebody asks.
    pub(super) fn descriptor() -> Option<RawFd> {
        HANDS.get().map(|hands| hands.poll.as_raw_fd())
    }

    /// Answers who asks now. Does not block.
    pub(super) fn serve_now() {
        if let Some(hands) = HANDS.get() {
            hands.serve();
        }
    }

    /// Serves those behind the filter whose listener this is.
    pub(super) fn listen(listener: OwnedFd) -> io::Result<()> {
        let hands = Self::start()?;
        let flags = SYNC_WAKE_UP;
        // SAFETY: takes numbers. Before Linux 6.6 there is no such flag, and all works without.
        unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, flags) };
        let mut listeners = hands.listeners.lock();
        let data = epoll::EventData::new_u64(listener.as_raw_fd() as u64);
        epoll::add(&hands.poll, &listener, data, epoll::EventFlags::IN)?;
        listeners.push(Arc::new(listener));
        Ok(())
    }

    /// Offers `descriptors`, which stay open until the offer is withdrawn, to a stopped thread. It gets them in this order.
    pub(super) fn offer(&self, thread: Pid, descriptors: &[RawFd]) -> Offer<'_> {
        self.offers.lock().insert(thread, descriptors.iter().copied().collect());
        Offer { hands: self, thread }
    }

    fn serve(&self) {
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut ready = [none; 4];
        let at_once = rustix::event::Timespec::default();
        let _turn = self.turn.lock();
        let Ok(count) = epoll::wait(&self.poll, &mut ready, Some(&at_once)) else { return };
        for event in &ready[..count] {
            let (number, flags) = (event.data.u64() as RawFd, event.flags);
            let listener = self.listeners.lock().iter().find(|it| it.as_raw_fd() == number).cloned();
            let Some(listener) = listener else { continue };
            if flags.contains(epoll::EventFlags::IN) {
                self.hand(&listener);
            } else {
                // Nobody is behind the filter any more.
                let _ = epoll::delete(&self.poll, &listener);
                self.listeners.lock().retain(|it| !Arc::ptr_eq(it, &listener));
            }
        }
    }

    fn hand(&self, listener: &OwnedFd) {
        let mut asked = Notification::default();
        // SAFETY: the kernel writes the structure, which lives across the call. ENOENT: who asked was killed.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked) } < 0 {
            return;
        }
        // Held across the answer: a descriptor is handed while it is offered, and so while it is open.
        let mut offers = self.offers.lock();
        let offered = offers.get_mut(&(asked.thread as Pid)).and_then(VecDeque::pop_front);
        let refusal = match offered {
            None => libc::EBADF,
            Some(descriptor) => {
                let new_flags = libc::O_CLOEXEC as u32;
                let add = Add { id: asked.id, flags: ANSWERS, source: descriptor as u32, new: 0, new_flags };
                // SAFETY: the kernel reads the structure, which lives across the call.
                if unsafe { libc::ioctl(listener.as_raw_fd(), ADD, &raw const add) } >= 0 {
                    return;
                }
                io::Error::last_os_error().raw_os_error().unwrap_or(libc::EMFILE)
            }
        };
        drop(offers);
        let answer = Answer { id: asked.id, value: 0, error: -refusal, flags: 0 };
        // SAFETY: the kernel reads the structure, which lives across the call. ENOENT: who asked was killed.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) };
    }
}

static HANDS: OnceLock<Hands> = OnceLock::new();

/// Whether descriptor `number` of a stopped process is the same open file as descriptor `ours` of this one (kcmp(2)).
pub fn is_same_file(process: Pid, number: RawFd, ours: RawFd) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: takes numbers.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            process,
            std::process::id(),
            KCMP_FILE,
            number as libc::c_ulong,
            ours as libc::c_ulong,
        )
    };
    order == 0
}

/// What a thread is offered, until this is dropped.
#[derive(Debug)]
pub(super) struct Offer<'a> {
    hands: &'a Hands,
    thread: Pid,
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        self.hands.offers.lock().remove(&self.thread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers_are_those_of_the_header() {
        assert_eq!(RECEIVE, 0xc050_2100);
        assert_eq!(SEND, 0xc018_2101);
        assert_eq!(ADD, 0x4018_2103);
        assert_eq!(SET_FLAGS, 0x4008_2104);
    }
}
