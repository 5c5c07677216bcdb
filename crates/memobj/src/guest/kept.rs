//! Guests of an object whose owner has ended: what is kept of them, and how the next owner has them.
//!
//! The guest notices nothing. Its range stays registered, since somebody keeps its userfaultfd; pages that are open to
//! stores stay open, and are Dirty; whoever faults sleeps. A fault that the dead owner had read and not resolved is told of
//! once more when its sleeper is woken.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use memobj_linux::fault_loop::FaultLoop;
use memobj_linux::line::Line;
use memobj_linux::uffd::Announce;

use super::{Guest, GuestProt, Seen, system, view_of};
use crate::error::AdmitError;
use crate::object::MemoryObject;

/// What the next owner of an object needs of a guest: for a process that keeps it.
#[derive(Debug)]
pub struct KeptGuest {
    /// Its userfaultfd.
    pub faults: OwnedFd,
    /// Its process.
    pub process: OwnedFd,
    /// The end of the line to it that is the owner's: a Unix stream socket.
    pub line: OwnedFd,
    /// Its address of the first byte that it maps.
    pub start: u64,
    /// The first byte of the object that it maps.
    pub offset: u64,
    /// Bytes that it maps.
    pub length: u64,
    /// What it may do.
    pub prot: GuestProt,
}

impl Guest {
    /// What the next owner needs of it, if this one may end: for whoever [keeps](MemoryObject::keep) the object.
    ///
    /// # Errors
    ///
    /// `System`: no more descriptors.
    pub fn kept(&self) -> Result<KeptGuest, AdmitError> {
        let again = |descriptor: std::os::fd::BorrowedFd<'_>| {
            descriptor.try_clone_to_owned().map_err(system("duplicate a descriptor"))
        };
        let state = &self.state;
        Ok(KeptGuest {
            faults: again(state.uffd.as_fd())?,
            process: again(state.process.as_fd())?,
            line: again(state.line.as_fd())?,
            start: state.view.place().start as u64,
            offset: state.view.place().part.start as u64,
            length: state.view.place().part.len() as u64,
            prot: state.prot,
        })
    }
}

impl MemoryObject {
    /// Takes over a guest of an owner that has ended, and whose pages this object has [inherited](Self::inherit). What it
    /// faults on is resolved from now on. Does not block.
    ///
    /// # Errors
    ///
    /// `NotShared` if the object has inherited nothing. Otherwise as [`admit`](Self::admit); the guest's mapping traps then.
    pub fn admit_again(&self, guest: KeptGuest) -> Result<Guest, AdmitError> {
        let KeptGuest { faults, process, line, start, offset, length, prot } = guest;
        let line = Arc::new(Line::new(UnixStream::from(line)));
        let place = (start, Some((offset, length)));
        let admitted = self.take_over(faults, process, &line, place, prot);
        if admitted.is_err() {
            line.break_off();
        }
        admitted
    }

    fn take_over(
        &self,
        faults: OwnedFd,
        process: OwnedFd,
        line: &Arc<Line>,
        place: (u64, Option<(u64, u64)>),
        prot: GuestProt,
    ) -> Result<Guest, AdmitError> {
        if !self.handle().cache.shared.owner.is_this_process() {
            return Err(AdmitError::Detached);
        }
        let fault_loop = FaultLoop::of_process().map_err(system("start the event loop for faults"))?;
        let frames = self.frames(Some(Announce::Queued)).map_err(AdmitError::Map)?;
        let parts = Arc::clone(&frames.parts);
        let (Some(kept), Some(writes)) = (&parts.kept, &parts.writes) else {
            return Err(AdmitError::NotShared);
        };
        let user = match prot {
            GuestProt::ReadWrite => Some(writes.users.words().ok_or(AdmitError::InUse)?),
            GuestProt::ReadOnly | GuestProt::Private => None,
        };
        let (uffd, view) = view_of(&parts, faults, &process, place, prot, line)?;
        parts.area.lift_in(&view, &kept.may_trap).map_err(AdmitError::of_line)?;
        let seen = Seen { uffd, process, view: Arc::clone(&view), line: Arc::clone(line), prot, user };
        let guest = self.begin_guest(&frames, &fault_loop, seen)?;
        view.wake_all();
        Ok(guest)
    }
}
