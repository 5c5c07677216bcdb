//! What the owner's threads share about a guest.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar};

use memobj_linux::area::{GuestNumber, GuestView, Viewer};
use memobj_linux::line::Line;
use memobj_linux::uffd::Userfaultfd;

use super::ObjectParts;
use crate::locks::RankedMutex;
use crate::write::User;

/// What a guest may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GuestProt {
    /// Load.
    ReadOnly,
    /// Load; what it stores to is a copy of its own, which nobody else sees. It maps the frames privately.
    Private,
    /// Load and store. While it is attached nothing of the object can be pinned for writing.
    #[default]
    ReadWrite,
}

/// How it ended with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestEnd {
    /// It dropped its mapping, hung up, or its process ended.
    Left,
    /// It did something that guests do not do; it was dismissed.
    Broken,
    /// This process dismissed it, by dropping the [`Guest`](crate::Guest).
    Dismissed,
}

/// What the owner's threads share about a guest.
#[derive(Debug)]
pub(crate) struct GuestState {
    pub(crate) parts: Arc<ObjectParts>,
    pub(crate) uffd: Arc<Userfaultfd>,
    pub(crate) prot: GuestProt,
    pub(crate) line: Arc<Line>,
    pub(crate) process: OwnedFd,
    pub(crate) view: Arc<GuestView>,
    pub(crate) number: GuestNumber,
    /// Of one that may store, while it is attached: keeps pins for writing out.
    pub(crate) user: RankedMutex<Option<User>>,
    pub(crate) is_ending: AtomicBool,
    pub(crate) end: RankedMutex<Option<GuestEnd>>,
    pub(crate) ended: Condvar,
}

impl GuestState {
    /// The view in which this guest's faults are.
    pub(crate) fn viewer(&self) -> Viewer {
        Viewer::Guest(self.number)
    }

    /// Takes the guest's view out, once.
    pub(crate) fn end(&self, end: GuestEnd) {
        if self.is_ending.swap(true, Ordering::AcqRel) {
            return;
        }
        self.parts.area.dismiss(&self.view);
        drop(self.user.lock().take());
        let end = if self.view.is_broken() { GuestEnd::Broken } else { end };
        *self.end.lock() = Some(end);
        self.ended.notify_all();
    }
}
