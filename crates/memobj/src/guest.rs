//! Guests: other processes that map an object of this one, the owner.
//!
//! ```text
//!   owner: MemoryObject::admit                      guest: RemoteMapping::attach
//!     offer: frames, own process, length   ----->     map the frames, make a userfaultfd, keep it open
//!     check, register, note the view       <-----   answer: userfaultfd, own process, address
//!     done                                 ----->   may touch
//!     resolve the guest's faults (`faults`)
//!     tell of lifted poison, new lengths   ----->   a thread listens; hears the end, and makes all of it trap
//! ```

mod faults;
mod kept;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

use memobj_linux::area::{GuestAccess, GuestPlace, GuestView, NoFile};
use memobj_linux::fault_loop::{FaultLoop, Registration};
use memobj_linux::line::{Answer, Line, Offer};
use memobj_linux::region::SMALL;
use memobj_linux::uffd::{Announce, Userfaultfd, is_process};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::error::AdmitError;
use crate::handles::{ObjectHandle, PartsHandle};
use crate::locks::{Rank, RankedMutex};
use crate::object::MemoryObject;
use crate::options::setters;
pub use crate::parts::{GuestEnd, GuestProt};
use crate::parts::{GuestState, ObjectParts};
use crate::write::User;
use faults::GuestFaults;
pub use kept::KeptGuest;

/// One past the highest address that a process has.
const END_OF_ADDRESSES: u64 = 1 << 47;

/// For [`MemoryObject::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmitOptions {
    /// What the guest may do.
    pub prot: GuestProt,
    /// How long the guest may take to attach.
    pub timeout: Duration,
}

impl Default for AdmitOptions {
    /// Loads and stores, 5 s.
    fn default() -> Self {
        Self { prot: GuestProt::ReadWrite, timeout: Duration::from_secs(5) }
    }
}

setters!(AdmitOptions { prot: GuestProt, timeout: Duration });

/// A guest, as the owner sees it. Dropping this dismisses the guest: all of its mapping traps from then on.
///
/// It is a handle of the object: frames stay while it lives.
pub struct Guest {
    state: Arc<GuestState>,
    faults: Option<Registration>,
    _frames: Arc<PartsHandle>,
    // Dropped last.
    object: Arc<ObjectHandle>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("object", &self.object.core.name)
            .field("prot", &self.state.prot)
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

impl Guest {
    /// How it ended; `None` while the guest is attached. What a guest stored is part of the object, however it ended.
    pub fn end(&self) -> Option<GuestEnd> {
        *self.state.end.lock()
    }

    /// Waits until the guest has left, at most `limit`; then as [`end`](Self::end).
    pub fn wait(&self, limit: Duration) -> Option<GuestEnd> {
        let end = self.state.end.lock();
        *end.wait_while(&self.state.ended, limit, |end| end.is_none())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let shared = &self.object.cache.shared;
        if shared.owner.is_this_process() {
            self.state.end(GuestEnd::Dismissed);
            // A turn of it may wait for its process.
            if let Some(faults) = self.faults.take() {
                faults.end_later();
            }
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> AdmitError {
    move |source| AdmitError::System { what, source }
}

impl MemoryObject {
    /// Lets the process at the other end of `stream`, which calls
    /// [`RemoteMapping::attach`](crate::RemoteMapping::attach), map the object. Blocks until it has, at most as long as
    /// the options say.
    ///
    /// The object can be written and has [`FrameVisibility::Shared`](crate::FrameVisibility::Shared). Its pages are this process's: they
    /// stay within the budget of the cache, are evicted and written back as all others, and a store of the guest makes
    /// a page Dirty as one of this process does. Each sees the stores of the other at once. `sync` and `commit` have
    /// what the guest stored before.
    ///
    /// A guest that may store is trusted with the bytes of the object: it has a descriptor of the file of frames, and can
    /// change them unseen if it wants, also after it was dismissed. So from then on the owner has copies only: a
    /// [`Pinned`](crate::Pinned) or [`PinnedMut`](crate::PinnedMut) of the object is a copy of its pages. A guest that may
    /// only load has a descriptor that can only be read. What guests send otherwise is checked.
    ///
    /// # Errors
    ///
    /// `InUse` for a guest that is to store, while something of the object is pinned.
    ///
    /// # Soundness
    ///
    /// What another process can do to the memory is no data race here, because this process has no references into it: they
    /// end before a descriptor that can write is given away, and there are none afterwards. Loads and stores of this
    /// process are atomic, or in assembly. A guest that only loads cannot change a byte.
    pub fn admit(&self, stream: UnixStream, options: AdmitOptions) -> Result<Guest, AdmitError> {
        let object = Arc::clone(self.handle());
        if !object.cache.shared.owner.is_this_process() {
            return Err(AdmitError::Detached);
        }
        let deadline = Instant::now() + options.timeout;
        let fault_loop = FaultLoop::of_process().map_err(system("start the event loop for faults"))?;
        let frames = self.frames(Some(Announce::Queued)).map_err(AdmitError::Map)?;
        let parts = Arc::clone(&frames.parts);
        let Some(writes) = &parts.writes else { return Err(AdmitError::NotShared) };
        let user = match options.prot {
            GuestProt::ReadWrite => Some(writes.users.words().ok_or(AdmitError::InUse)?),
            GuestProt::ReadOnly | GuestProt::Private => None,
        };
        let line = Arc::new(Line::new(stream));
        let attached = attach(&parts, &line, options.prot, deadline);
        if attached.is_err() {
            // Whoever waits at the other end must not wait for ever.
            line.break_off();
        }
        let (uffd, process, view) = attached?;
        let seen = Seen { uffd, process, view, line, prot: options.prot, user };
        self.begin_guest(&frames, &fault_loop, seen)
    }

    /// Has the faults of a view that is registered resolved from now on.
    fn begin_guest(
        &self,
        frames: &Arc<PartsHandle>,
        fault_loop: &Arc<FaultLoop>,
        seen: Seen,
    ) -> Result<Guest, AdmitError> {
        let object = Arc::clone(self.handle());
        let parts = Arc::clone(&frames.parts);
        let Seen { uffd, process, view, line, prot, user } = seen;
        let number = parts.area.admit(Arc::clone(&view)).ok_or(AdmitError::TooManyGuests)?;
        let state = Arc::new(GuestState {
            parts,
            uffd,
            prot,
            line,
            process,
            view,
            number,
            user: RankedMutex::new(Rank::GuestEnd, user),
            is_ending: AtomicBool::new(false),
            end: RankedMutex::new(Rank::GuestEnd, None),
            ended: Condvar::new(),
        });
        let health = Arc::clone(&object.cache.shared.health);
        let faults = fault_loop.add(Arc::new(GuestFaults { guest: Arc::clone(&state), health }));
        // Else its faults would sleep for ever.
        let faults = faults.inspect_err(|_| state.end(GuestEnd::Broken)).map_err(system("watch a guest"))?;
        Ok(Guest { state, faults: Some(faults), _frames: Arc::clone(frames), object })
    }
}

/// A view of a guest that is registered, and all that belongs to it.
struct Seen {
    uffd: Arc<Userfaultfd>,
    process: OwnedFd,
    view: Arc<GuestView>,
    line: Arc<Line>,
    prot: GuestProt,
    user: Option<User>,
}

type Attached = (Arc<Userfaultfd>, OwnedFd, Arc<GuestView>);

/// The owner's part of the conversation.
fn attach(
    parts: &ObjectParts,
    line: &Arc<Line>,
    prot: GuestProt,
    deadline: Instant,
) -> Result<Attached, AdmitError> {
    let frames = match prot {
        GuestProt::ReadOnly | GuestProt::Private => parts.area.file_to_load(),
        GuestProt::ReadWrite => parts.area.file_to_store(),
    };
    let offer = Offer {
        frames: frames.map_err(no_file)?,
        process: match &parts.kept {
            Some(kept) => kept.keeper.try_clone().map_err(system("duplicate a descriptor"))?,
            None => own_process()?,
        },
        length: parts.area.length(),
        view_bytes: parts.area.view_bytes() as u64,
        access: access_of(prot),
    };
    line.offer(&offer, deadline).map_err(AdmitError::of_line)?;
    let Answer { faults, process, start, part } =
        line.receive_answer(deadline).map_err(AdmitError::of_line)?;
    let part = part.map(|part| (part.offset, part.length));
    let (uffd, view) = view_of(parts, faults, &process, (start, part), prot, line)?;
    parts
        .area
        .register_guest(&view)
        .map_err(|error| AdmitError::Peer { why: format!("a range that cannot be registered ({error})") })?;
    line.finish(deadline).map_err(AdmitError::of_line)?;
    Ok((uffd, process, view))
}

/// What the other side says is its view, looked at: its address, and offset and length of a part, if it is one.
fn view_of(
    parts: &ObjectParts,
    faults: OwnedFd,
    process: &OwnedFd,
    (start, part): (u64, Option<(u64, u64)>),
    prot: GuestProt,
    line: &Arc<Line>,
) -> Result<(Arc<Userfaultfd>, Arc<GuestView>), AdmitError> {
    let uffd = Arc::new(Userfaultfd::adopt(faults).map_err(AdmitError::of_line)?);
    if !is_process(process).map_err(system("look at a descriptor"))? {
        return Err(AdmitError::Peer { why: "a descriptor that is no process".into() });
    }
    let peer = |why: &str| AdmitError::Peer { why: why.into() };
    let all = parts.area.view_bytes() as u64;
    let (offset, length) = part.unwrap_or((0, all));
    let aligned = [start, offset, length].iter().all(|at| at.is_multiple_of(SMALL as u64));
    let ends_in = |from: u64, most: u64| from.checked_add(length).is_some_and(|end| end <= most);
    if start == 0 || length == 0 || !aligned || !ends_in(start, END_OF_ADDRESSES) {
        return Err(peer("a range that no process has"));
    }
    if !ends_in(offset, all) {
        return Err(peer("a part that the object does not have"));
    }
    let place = GuestPlace { start: start as usize, part: offset as usize..(offset + length) as usize };
    let view = GuestView::new(Arc::clone(&uffd), place, access_of(prot), Arc::clone(line));
    Ok((uffd, view))
}

fn access_of(prot: GuestProt) -> GuestAccess {
    match prot {
        GuestProt::ReadOnly => GuestAccess::Load,
        GuestProt::Private => GuestAccess::LoadAndCopy,
        GuestProt::ReadWrite => GuestAccess::Store,
    }
}

fn no_file(error: NoFile) -> AdmitError {
    match error {
        NoFile::NotShared => AdmitError::NotShared,
        NoFile::InUse => AdmitError::InUse,
        NoFile::System(source) => AdmitError::System { what: "duplicate the file of frames", source },
    }
}

/// A descriptor of this process, by which the other hears of its end even if children keep the line open.
pub(crate) fn own_process() -> Result<OwnedFd, AdmitError> {
    pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| system("open this process")(error.into()))
}
