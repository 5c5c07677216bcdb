//! userfaultfd: who is told of a fault, and how it is resolved.
//!
//! Two kinds exist, and a range belongs to one of them: **queued** faults are read from the descriptor while
//! the faulting thread sleeps; **signalled** faults raise SIGBUS in the faulting thread itself. Of which faults
//! a range tells is up to its [`Modes`]:
//!
//! ```text
//!   MISSING        no page is there             COPY, MOVE, POISON, or a write to the file and WAKE
//!   MINOR          the file has the page, the   CONTINUE
//!                  mapping does not show it
//!   WRITE_PROTECT  a store to a protected page  WRITEPROTECT, which lifts the protection
//! ```
//!
//! Sources: ioctl_userfaultfd(2), userfaultfd(2), and the header quoted in `abi`.

mod abi;
mod foreign;
mod minor;
mod modes;
mod others;
mod private;
mod protect;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use foreign::{Forks, address_space_lives, forks_can_be_told, is_process};
pub use memobj_core::pages::Wake;
pub use modes::Modes;
pub use others::{ForeignFaults, Shows, descriptor_of};
pub use private::{EventLog, LOG_WORDS, MOST_EVENTS, NotPlaced, PrivateEvent, PrivateMemory};

/// `USERFAULTFD_IOC_NEW`, the call on /dev/userfaultfd that opens one.
#[cfg(target_arch = "x86_64")]
pub const NEW_OF_DEVICE: u64 = abi::NEW;

/// How often a call that the kernel asks to try again is tried again without any progress.
const MOST_IDLE_ROUNDS: u32 = 1000;

/// How a fault on a registered range is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announce {
    /// As an event to read; the faulting thread sleeps in the kernel.
    Queued,
    /// As SIGBUS to the faulting thread.
    Signalled,
}

/// What the kernel's userfaultfd can do for this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Faults raised inside system calls are announced too.
    pub kernel_faults: bool,
    /// A page can be made to trap.
    pub poison: bool,
    /// Anonymous frames can be moved instead of copied.
    pub move_frames: bool,
    /// Ranges that map memory files can be registered for minor faults.
    pub minor_faults: bool,
    /// Private anonymous ranges can be registered for write protection.
    pub write_protect: bool,
    /// Ranges that map memory files can be registered for write protection.
    pub write_protect_files: bool,
    /// Events name the faulting thread.
    pub thread_ids: bool,
}

impl Features {
    fn new(bits: u64, kernel_faults: bool) -> Self {
        Self {
            kernel_faults,
            poison: bits & abi::FEATURE_POISON != 0,
            move_frames: bits & abi::FEATURE_MOVE != 0,
            minor_faults: bits & abi::FEATURE_MINOR_SHMEM != 0,
            write_protect: bits & abi::FEATURE_PAGEFAULT_FLAG_WP != 0,
            write_protect_files: bits & abi::FEATURE_WP_HUGETLBFS_SHMEM != 0,
            thread_ids: bits & abi::FEATURE_THREAD_ID != 0,
        }
    }

    /// What [`Userfaultfd::open`] asks for: of the offered features those that add calls and change none.
    fn bits(self) -> u64 {
        let ask = |offered: bool, bit: u64| if offered { bit } else { 0 };
        ask(self.poison, abi::FEATURE_POISON)
            | ask(self.move_frames, abi::FEATURE_MOVE)
            | ask(self.minor_faults, abi::FEATURE_MINOR_SHMEM)
            | ask(self.write_protect, abi::FEATURE_PAGEFAULT_FLAG_WP)
            | ask(self.write_protect_files, abi::FEATURE_WP_HUGETLBFS_SHMEM)
            | ask(self.thread_ids, abi::FEATURE_THREAD_ID)
    }
}

/// One open userfaultfd.
#[derive(Debug)]
pub struct Userfaultfd {
    descriptor: OwnedFd,
    announce: Announce,
    features: Features,
}

/// Why an access was blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// There is no page.
    Missing,
    /// The file has the page, but the range does not show it.
    Minor,
    /// It was a store, and the page is write-protected.
    WriteProtect,
}

impl FaultKind {
    fn new(flags: u64) -> Self {
        if flags & abi::FAULT_WP != 0 {
            return Self::WriteProtect;
        }
        if flags & abi::FAULT_MINOR != 0 { Self::Minor } else { Self::Missing }
    }
}

/// A fault that was read from the descriptor.
#[derive(Clone, Copy, Debug)]
pub struct FaultEvent {
    /// The address that was accessed, rounded down to 4 KiB.
    pub address: usize,
    /// Why it was blocked.
    pub kind: FaultKind,
    /// Whether it was a store.
    pub is_write: bool,
    /// The number of the thread that sleeps on it, in its process; 0 if the kernel does not say.
    pub thread: u32,
}

/// Room for the events of one read.
pub struct EventBuffer {
    messages: [abi::Message; 32],
    /// How many of them one read may fill.
    most: usize,
}

impl Default for EventBuffer {
    /// For as many as there can be.
    fn default() -> Self {
        Self::for_events(usize::MAX)
    }
}

fn new_descriptor() -> io::Result<(OwnedFd, bool)> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let own = |raw: libc::c_long| {
        // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
        unsafe { OwnedFd::from_raw_fd(raw as i32) }
    };
    // SAFETY: userfaultfd takes one integer and touches no memory of ours.
    let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    if raw >= 0 {
        return Ok((own(raw), true));
    }
    if let Ok(device) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd") {
        // SAFETY: USERFAULTFD_IOC_NEW takes one integer and touches no memory of ours.
        let raw = unsafe { libc::ioctl(device.as_raw_fd(), abi::NEW, flags) };
        if raw >= 0 {
            return Ok((own(raw.into()), true));
        }
    }
    // SAFETY: as above.
    let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, flags | abi::USER_MODE_ONLY) };
    if raw >= 0 {
        return Ok((own(raw), false));
    }
    Err(io::Error::last_os_error())
}

/// Whether userfaultfd(2) gives this process one that tells of faults inside system calls; if not, /dev/userfaultfd may.
pub fn may_open_by_call() -> bool {
    // SAFETY: takes one integer and touches no memory of ours.
    let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    raw >= 0 && unsafe { OwnedFd::from_raw_fd(raw as i32) }.as_raw_fd() >= 0
}

/// Which features the kernel offers; a descriptor can be asked only once, so this uses one of its own.
pub fn probe() -> io::Result<Features> {
    let (descriptor, kernel_faults) = new_descriptor()?;
    let mut api = abi::ApiArgument { api: abi::API, ..Default::default() };
    control(&descriptor, abi::UFFDIO_API, &mut api)?;
    Ok(Features::new(api.features, kernel_faults))
}

fn control<T>(descriptor: &OwnedFd, number: std::ffi::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: every caller in this module passes the structure that belongs to `number`; the kernel reads and
    // writes only that structure, which lives across the call, and memory that the callers' contracts cover.
    let answer = unsafe { libc::ioctl(descriptor.as_raw_fd(), number, argument as *mut T) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Userfaultfd {
    /// Opens one, with the most that this process may have: faults of system calls too if privileges or
    /// /dev/userfaultfd allow, else faults of user code only.
    pub fn open(announce: Announce) -> io::Result<Self> {
        Self::open_with(announce, 0)
    }

    fn open_with(announce: Announce, more_features: u64) -> io::Result<Self> {
        let offered = probe()?;
        if !offered.poison {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "userfaultfd without UFFDIO_POISON (Linux 6.6)",
            ));
        }
        let (descriptor, kernel_faults) = new_descriptor()?;
        let mut wanted = offered.bits() | more_features;
        if announce == Announce::Signalled {
            wanted |= abi::FEATURE_SIGBUS;
        }
        let mut api = abi::ApiArgument { api: abi::API, features: wanted, ioctls: 0 };
        control(&descriptor, abi::UFFDIO_API, &mut api)?;
        Ok(Self { descriptor, announce, features: Features { kernel_faults, ..offered } })
    }

    /// How faults are announced.
    pub fn announce(&self) -> Announce {
        self.announce
    }

    /// What it can do.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Registers a page-aligned range for the faults that `modes` names; other faults the kernel resolves.
    /// EINVAL where the kernel does not offer a mode for this kind of memory.
    pub(crate) fn register(&self, start: usize, len: usize, modes: Modes) -> io::Result<()> {
        let range = abi::Range { start: start as u64, len: len as u64 };
        let mut argument = abi::Register { range, mode: modes.bits(), ioctls: 0 };
        control(&self.descriptor, abi::UFFDIO_REGISTER, &mut argument)
    }

    /// Lets sleepers on the range try again.
    pub(crate) fn wake(&self, start: usize, len: usize) {
        let mut range = abi::Range { start: start as u64, len: len as u64 };
        // It fails for a malformed range only, which the area never forms.
        let _ = control(&self.descriptor, abi::UFFDIO_WAKE, &mut range);
    }

    /// Puts copies of `len` bytes at `src` in place at `dst` and wakes sleepers. On error, says how many bytes
    /// are in place.
    ///
    /// # Safety
    ///
    /// * `dst..dst + len` lies in a range of an area that is registered here, and the caller owns those pages;
    /// * `src..src + len` is readable memory.
    pub(crate) unsafe fn copy(
        &self,
        dst: usize,
        src: *const u8,
        len: usize,
    ) -> Result<(), (usize, io::Error)> {
        self.transfer(abi::UFFDIO_COPY, dst, src as usize, len, 0)
    }

    /// As `copy`, but the pages are in place write-protected: there is no moment at which they could
    /// be written unnoticed. The range is registered for [`Modes::WRITE_PROTECT`] too. Sleepers are woken as `wake`
    /// says.
    ///
    /// # Safety
    ///
    /// As for `copy`: the caller owns the pages, which lie in a range that is registered here, and the source is
    /// readable.
    pub unsafe fn copy_protected(
        &self,
        dst: usize,
        src: *const u8,
        len: usize,
        wake: Wake,
    ) -> Result<(), (usize, io::Error)> {
        let mode = match wake {
            Wake::AtOnce => abi::COPY_WP,
            Wake::Later => abi::COPY_WP | abi::COPY_DONTWAKE,
        };
        self.transfer(abi::UFFDIO_COPY, dst, src as usize, len, mode)
    }

    /// Moves the frames of `src` to `dst` and wakes sleepers. On error, says how many bytes have moved.
    ///
    /// # Safety
    ///
    /// * `dst..dst + len` lies in a range that is registered here, and the caller owns those pages;
    /// * `src..src + len` is anonymous memory of which the caller is the only user.
    pub(crate) unsafe fn move_frames(
        &self,
        dst: usize,
        src: usize,
        len: usize,
    ) -> Result<(), (usize, io::Error)> {
        self.transfer(abi::UFFDIO_MOVE, dst, src, len, 0)
    }

    fn transfer(
        &self,
        number: std::ffi::c_ulong,
        dst: usize,
        src: usize,
        len: usize,
        mode: u64,
    ) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        let mut idle_rounds = 0;
        while done < len {
            let mut argument = abi::Transfer {
                dst: (dst + done) as u64,
                src: (src + done) as u64,
                len: (len - done) as u64,
                mode,
                done: 0,
            };
            let answer = control(&self.descriptor, number, &mut argument);
            let progress = usize::try_from(argument.done).unwrap_or(0);
            done += progress;
            let Err(error) = answer else { continue };
            idle_rounds = if progress > 0 { 0 } else { idle_rounds + 1 };
            let may_pass = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY));
            if !may_pass || idle_rounds > MOST_IDLE_ROUNDS {
                return Err((done, error));
            }
        }
        Ok(())
    }

    /// Makes absent pages trap and wakes sleepers, who then trap.
    pub(crate) fn poison(&self, start: usize, len: usize) -> io::Result<()> {
        let range = abi::Range { start: start as u64, len: len as u64 };
        let mut argument = abi::Poison { range, mode: 0, updated: 0 };
        control(&self.descriptor, abi::UFFDIO_POISON, &mut argument)
    }

    /// Reads the events that wait, without blocking, and returns how many `buffer` holds now.
    pub fn read_events(&self, buffer: &mut EventBuffer) -> io::Result<usize> {
        let size = size_of_val(&buffer.messages[..buffer.most]);
        // SAFETY: the kernel writes at most `size` bytes into the array, and any bytes are valid messages.
        let got =
            unsafe { libc::read(self.descriptor.as_raw_fd(), buffer.messages.as_mut_ptr().cast(), size) };
        if got < 0 {
            let error = io::Error::last_os_error();
            let nothing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            return if nothing { Ok(0) } else { Err(error) };
        }
        Ok(got as usize / size_of::<abi::Message>())
    }
}

impl EventBuffer {
    /// For `most` events at most.
    pub fn for_events(most: usize) -> Self {
        let messages = [abi::Message::default(); 32];
        Self { messages, most: most.clamp(1, messages.len()) }
    }

    /// The first `count` events; events other than faults, which are never asked for, are passed over.
    pub fn faults(&self, count: usize) -> impl Iterator<Item = FaultEvent> + '_ {
        self.messages[..count].iter().filter(|message| message.event == abi::EVENT_PAGEFAULT).map(|message| {
            FaultEvent {
                address: message.address as usize & !0xfff,
                kind: FaultKind::new(message.flags),
                is_write: message.flags & abi::FAULT_WRITE != 0,
                thread: message.thread,
            }
        })
    }

    /// How many events one read can return.
    pub const fn capacity(&self) -> usize {
        self.most
    }
}

impl AsFd for Userfaultfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
