//! Mappings of objects that another process owns.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memobj_linux::area::GuestAccess;
use memobj_linux::fork::MakerProcess;
use memobj_linux::line::{Answer, Line, Note, Offer};
use memobj_linux::remote::RemoteView;
use memobj_linux::signal;
use memobj_linux::uffd::Announce;

use crate::error::{AdmitError, Classified, as_io_error};
use crate::fault;
use crate::guest::own_process;
use crate::mapping::SharedWords;
use crate::place::{self, Home};
use crate::threads::{self, Serves};

/// All of an object that another process owns, which has [admitted](crate::MemoryObject::admit) this one as a guest.
///
/// Loads and stores fault on demand, and the owner resolves the faults: pages, budget, write-back and errors are the
/// owner's. Every store is seen at once by all mappings of the object, in the owner and in other guests; the owner's
/// `sync` makes it durable.
///
/// When the owner ends, hangs up or dismisses this guest, *all* of the mapping traps (SIGBUS), also pages that were
/// there: nobody would keep what is stored to them. Calls answer [`RemoteError::OwnerGone`]. No load ever
/// reads zeros for want of the owner. An owner that is alive and stopped makes faults wait.
///
/// A child of fork has none of the mapped memory, and every call there answers `Detached`.
///
/// # Soundness
///
/// The owner changes this memory at any time, so no reference into it is ever made. Copies are loads and stores in
/// assembly, words are atomic, and the two addresses take `unsafe`. Words borrow the mapping, whose addresses stay mapped
/// as long as it lives; when the owner is gone something that traps is mapped there:
///
/// ```compile_fail,E0505
/// # fn leak(remote: memobj::RemoteMapping) -> Result<(), memobj::RemoteError> {
/// let words = remote.shared_words()?;
/// drop(remote);
/// words.store(0, 1);
/// # Ok(())
/// # }
/// ```
pub struct RemoteMapping {
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl fmt::Debug for RemoteMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteMapping")
            .field("length", &self.len())
            .field("is_attached", &self.is_attached())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    view: RemoteView,
    line: Line,
    /// Whose end is the end of the mapping.
    process: OwnedFd,
    length: AtomicU64,
    access: GuestAccess,
    /// The owner is gone: what traps from now on traps for that reason.
    is_ending: AtomicBool,
    /// All of it traps.
    is_over: AtomicBool,
    owner: MakerProcess,
}

/// Why bytes of a remote mapping could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteError {
    /// The range ends past the object.
    OutOfRange {
        /// The range asked for.
        range: Range<u64>,
        /// Bytes of the object.
        length: u64,
    },
    /// A page could not be supplied, or could not be stored to; the owner has the error. Bytes before it were copied.
    Failed {
        /// The first byte that could not be had.
        offset: u64,
    },
    /// The owner has ended, or has dismissed this guest. Of what was stored, the owner has kept what it could: if its
    /// process ended, what it had written back or synced before.
    OwnerGone,
    /// This guest may only load.
    ReadOnly,
    /// The mapping belongs to another process: this one was forked from it.
    Detached,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { range, length } => {
                write!(f, "access [{}, {}): the object has {length} bytes", range.start, range.end)
            }
            Self::Failed { offset } => {
                write!(f, "byte {offset} cannot be had; the owner of the object knows why")
            }
            Self::OwnerGone => f.write_str("the owner of the object is gone"),
            Self::ReadOnly => f.write_str("this process may only read the object"),
            Self::Detached => f.write_str("the mapping belongs to the process that this one was forked from"),
        }
    }
}

impl Error for RemoteError {}

as_io_error!(RemoteError);

impl Classified for RemoteError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::OutOfRange { .. } => io::ErrorKind::InvalidInput,
            Self::Failed { .. } => io::ErrorKind::Other,
            Self::OwnerGone => io::ErrorKind::ConnectionAborted,
            Self::ReadOnly => io::ErrorKind::PermissionDenied,
            Self::Detached => io::ErrorKind::NotConnected,
        }
    }

    /// A page that failed can be there once its owner has retried it.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

impl RemoteMapping {
    /// Maps all of the object that the process at the other end of `stream` admits this one to. Blocks, at most
    /// `timeout`, for the other side. Installs the SIGBUS handler of the library, and starts a thread that hears of
    /// the owner's end.
    pub fn attach(stream: UnixStream, timeout: Duration) -> Result<Self, AdmitError> {
        Self::attach_where(stream, timeout, None)
    }

    /// As [`attach`](Self::attach), at this address, a multiple of 2 MiB. If it cannot be had, the error is `Map`, as of a
    /// mapping [at an address](crate::MapOptions::at).
    pub fn attach_at(stream: UnixStream, timeout: Duration, address: usize) -> Result<Self, AdmitError> {
        let home = Home::new(Some(Announce::Queued), address, 0).map_err(AdmitError::Map)?;
        Self::attach_where(stream, timeout, Some(home))
    }

    fn attach_where(stream: UnixStream, timeout: Duration, home: Option<Home>) -> Result<Self, AdmitError> {
        let deadline = Instant::now() + timeout;
        let system = |what| move |source| AdmitError::System { what, source };
        signal::install(fault::resolve).map_err(system("install the SIGBUS handler"))?;
        let line = Line::new(stream);
        let Offer { frames, process, length, view_bytes, access } =
            line.receive_offer(deadline).map_err(AdmitError::of_line)?;
        let view = match home {
            Some(_) => {
                place::at_home(home, view_bytes, |start| RemoteView::new(&frames, view_bytes, access, start))
                    .map_err(AdmitError::Map)?
            }
            None => RemoteView::new(&frames, view_bytes, access, None)
                .map_err(system("map the frames of the owner"))?,
        };
        let faults = view.faults().try_clone_to_owned().map_err(system("duplicate a userfaultfd"))?;
        let answer = Answer { faults, process: own_process()?, start: view.start() as u64, part: None };
        line.answer(&answer, deadline).map_err(AdmitError::of_line)?;
        line.receive_finish(deadline).map_err(AdmitError::of_line)?;
        let shared = Arc::new(Shared {
            view,
            line,
            process,
            length: AtomicU64::new(length.min(view_bytes)),
            access,
            is_ending: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            owner: MakerProcess::new().map_err(system("mark the process"))?,
        });
        let listening = Arc::clone(&shared);
        let listener = threads::start("memobj-guest", Serves::One, move || listening.listen());
        let listener = Some(listener.map_err(system("start a thread"))?);
        Ok(Self { shared, listener })
    }

    /// Bytes of the object, as far as this process has heard.
    pub fn len(&self) -> u64 {
        self.shared.length.load(Ordering::Acquire)
    }

    /// Whether the object has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the owner is there; once it is not, all of the mapping traps, for good.
    pub fn is_attached(&self) -> bool {
        if !self.shared.is_ending.load(Ordering::Acquire) {
            return true;
        }
        // For the time of a system call; a child of fork has nobody who makes it.
        while self.shared.owner.is_this_process() && !self.shared.is_over.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        false
    }

    fn check(&self, offset: u64, length: usize) -> Result<(), RemoteError> {
        if !self.shared.owner.is_this_process() {
            return Err(RemoteError::Detached);
        }
        let end = offset.saturating_add(length as u64);
        if end > self.len() {
            return Err(RemoteError::OutOfRange { range: offset..end, length: self.len() });
        }
        Ok(())
    }

    fn trapped(&self, offset: u64) -> RemoteError {
        match self.shared.is_ending.load(Ordering::Acquire) {
            true => RemoteError::OwnerGone,
            false => RemoteError::Failed { offset },
        }
    }

    /// Copies the bytes from `offset` on into `buffer`. Blocks until they are there.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), RemoteError> {
        self.check(offset, buffer.len())?;
        self.shared.view.load(offset, buffer).map_err(|offset| self.trapped(offset))
    }

    /// Copies `bytes` to `offset`, by plain stores, which nobody else sees if the mapping is
    /// [private](crate::GuestProt::Private): who loads meanwhile can see a part of them. Blocks while too much of
    /// the owner's memory is Dirty, and while the owner pins a page.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), RemoteError> {
        self.check(offset, bytes.len())?;
        if self.shared.access == GuestAccess::Load {
            return Err(RemoteError::ReadOnly);
        }
        self.shared.view.store(offset, bytes).map_err(|offset| self.trapped(offset))
    }

    /// The words of the object, for loads and stores by atomic steps, which fault on demand, and trap on failed pages
    /// and when the owner is gone. A length that is no multiple of eight leaves its last bytes out.
    pub fn shared_words(&self) -> Result<SharedWords<'_>, RemoteError> {
        self.check(0, 0)?;
        let words = self.shared.view.shared_words(self.len() / 8).ok_or(RemoteError::ReadOnly)?;
        Ok(SharedWords::new(words, None))
    }

    /// The address of the first byte, for plain loads, which fault and trap as said above. Good while this lives.
    pub fn as_ptr(&self) -> *const u8 {
        self.shared.view.pointer(0)
    }

    /// The same, for stores; null if this guest may only load.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        if self.shared.access != GuestAccess::Load { self.as_ptr().cast_mut() } else { std::ptr::null_mut() }
    }
}

impl Shared {
    /// Until the owner is gone.
    fn listen(&self) {
        loop {
            match self.line.next_note(&self.process) {
                // What is malformed is refused, and leaves a page that traps.
                Ok(Some(Note::Lift { start, len })) => drop(self.view.lift_poison(start, len)),
                Ok(Some(Note::Length(length))) => {
                    self.length.store(length.min(self.view.len() as u64), Ordering::Release);
                }
                Ok(None) | Err(_) => break,
            }
        }
        self.is_ending.store(true, Ordering::Release);
        self.view.trap_all();
        self.is_over.store(true, Ordering::Release);
        self.line.break_off();
    }
}

impl Drop for RemoteMapping {
    fn drop(&mut self) {
        if !self.shared.owner.is_this_process() {
            // A child of fork has neither the memory nor the thread, and the line is its parent's.
            std::mem::forget(Arc::clone(&self.shared));
            std::mem::forget(self.listener.take());
            return;
        }
        self.shared.line.break_off();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}
