//! Guests: views of an object's frames in other processes.
//!
//! A guest's view is a range of its own addresses that maps the frame file, registered with a userfaultfd of its
//! own, of which this process has a duplicate. Calls on that act on the guest's addresses, so protection, opening,
//! poison and waking go over guests as over views of this process.
//!
//! A view that answers other than expected is *broken off*: its line is shut, and whoever listens there dismisses it. A
//! guest that has died answers ESRCH; nothing of it is left to protect.

use std::io;
use std::sync::Arc;

use memobj_core::address::PageRange;

use super::Area;
use crate::line::{Line, Note};
use crate::slots::SlotTable;
use crate::uffd::{Modes, Userfaultfd};

/// The most guests of one object.
const MOST_GUESTS: usize = 64;

/// Which guest of an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestNumber {
    open: usize,
    protected: usize,
}

/// One guest's view.
#[derive(Debug)]
pub struct GuestView {
    uffd: Arc<Userfaultfd>,
    start: usize,
    line: Arc<Line>,
}

impl GuestView {
    /// A view that begins at the guest's address `start`; `uffd` is the guest's.
    pub fn new(uffd: Arc<Userfaultfd>, start: usize, line: Arc<Line>) -> Self {
        Self { uffd, start, line }
    }

    pub(super) fn uffd(&self) -> &Userfaultfd {
        &self.uffd
    }

    /// The guest's address of the first byte.
    pub fn start(&self) -> usize {
        self.start
    }
}

/// The guests of one area.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// Views in which pages can be open to stores: what is protected is protected in these.
    protected: SlotTable<GuestView>,
    /// Views in which pages are shown and opened. A guest that is dismissed leaves these first, so that what is
    /// protected afterwards stays so.
    open: SlotTable<GuestView>,
}

impl Guests {
    fn insert(&self, view: Arc<GuestView>) -> Option<GuestNumber> {
        let protected = self.protected.insert(Arc::clone(&view)).ok()?;
        let number = self.open.insert(view).ok().map(|open| GuestNumber { open, protected });
        if number.is_none_or(|number| number.open >= MOST_GUESTS) {
            self.protected.remove(protected);
            number.map(|number| self.open.remove(number.open));
            return None;
        }
        number
    }

    pub(super) fn with_open<R>(
        &self,
        guest: GuestNumber,
        act: impl FnOnce(&Userfaultfd, usize) -> R,
    ) -> Option<R> {
        self.open.with(guest.open, |view| act(&view.uffd, view.start))
    }

    /// Calls `act` with every guest; one with which it fails is broken off. Safe in a signal handler, if `act` is.
    pub(super) fn each(&self, act: impl Fn(&GuestView) -> io::Result<()>) {
        each(&self.open, act);
    }

    pub(super) fn wake(&self, start: usize, end: usize) {
        self.each(|view| {
            view.uffd.wake(view.start + start, end - start);
            Ok(())
        });
    }

    pub(super) fn protect(&self, start: usize, end: usize) {
        each(&self.protected, |view| view.uffd.write_protect(view.start + start, end - start));
    }

    pub(super) fn unprotect(&self, start: usize, end: usize) {
        self.each(|view| view.uffd.unprotect(view.start + start, end - start));
    }

    /// The poison of a range cannot be lifted from here.
    pub(super) fn tell_to_lift(&self, start: usize, len: usize) {
        self.tell(Note::Lift { start: start as u64, len: len as u64 });
    }

    fn tell(&self, note: Note) {
        self.each(|view| view.line.tell(note));
    }
}

fn each(table: &SlotTable<GuestView>, act: impl Fn(&GuestView) -> io::Result<()>) {
    for slot in 0..table.end() {
        table.with(slot, |view| {
            if act(view).is_err() {
                view.line.break_off();
            }
        });
    }
}

impl Area {
    /// Bytes of addresses that each view takes.
    pub fn view_bytes(&self) -> usize {
        self.views[0].region.len()
    }

    /// The file that holds the frames, if there is one.
    pub fn frame_file(&self) -> Option<&crate::frame_file::FrameFile> {
        self.frame_file.as_ref()
    }

    /// Registers all of a guest's view, so that none of its accesses goes unnoticed.
    ///
    /// EINVAL, ENOMEM, EPERM: the guest has nothing mapped there that can be registered. ESRCH: it has ended.
    pub fn register_guest(&self, view: &GuestView) -> io::Result<()> {
        view.uffd.register(
            view.start,
            self.view_bytes(),
            Modes::MISSING | Modes::MINOR | Modes::WRITE_PROTECT,
        )
    }

    /// Adds a guest's view that was registered, and tells the guest of the length. `None`: there are too many guests,
    /// or the area takes none; then the guest's line is shut.
    pub fn admit(&self, view: Arc<GuestView>) -> Option<GuestNumber> {
        let line = Arc::clone(&view.line);
        let number = self.guests.as_ref().and_then(|guests| guests.insert(view));
        if number.is_none() || line.tell(Note::Length(self.length())).is_err() {
            line.break_off();
        }
        number
    }

    /// Takes a guest's view out. Pages that are open in it are protected before, so that it cannot store unnoticed
    /// to what is written back later: such stores sleep, until the guest hears that its line is shut.
    pub fn dismiss(&self, guest: GuestNumber) {
        let Some(guests) = &self.guests else { return };
        let Some(view) = guests.open.remove(guest.open) else { return };
        // Nothing is opened in it any more, and what is open is Dirty or about to be.
        let mut from = 0;
        while let Some(block) = self.next_unclean_block(from) {
            let pages: PageRange = self.block_range(block);
            let (start, end) = (self.offset_in_view(pages.start), self.offset_in_view(pages.end));
            if view.uffd.write_protect(view.start + start, end - start).is_err() {
                // It has ended, or has unmapped the range.
                break;
            }
            from = block + 1;
        }
        guests.protected.remove(guest.protected);
        view.line.break_off();
    }

    /// Tells guests of the length.
    pub(super) fn tell_length(&self, length: u64) {
        if let Some(guests) = &self.guests {
            guests.tell(Note::Length(length));
        }
    }
}
