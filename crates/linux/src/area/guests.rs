//! Guests: views of an object's frames in other processes.
//!
//! A guest's view is a range of its own addresses that maps the frame file, registered with a userfaultfd of its
//! own, of which this process has a duplicate. Calls on that act on the guest's addresses, so protection, opening,
//! poison and waking go over guests as over views of this process.
//!
//! A view that answers other than expected is *broken off*: its line is shut, and whoever listens there dismisses it. A
//! view that cannot be protected is dismissed at once, and whoever wanted to copy the pages is told that they may be
//! open: he tries again, without that view. A guest that has died answers ESRCH; nothing of it is left to protect.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock, Weak};
use std::time::Instant;

use memobj_core::address::PageRange;
use memobj_core::pages::BLOCK_BYTES;

use super::Home;
use crate::line::{GuestAccess, Line, Note, PATIENCE};
use crate::region::SMALL;
use crate::slots::SlotTable;
use crate::uffd::{Modes, Userfaultfd};

/// The most guests of one object. What is done to all of them, such as waking after a page has come, is a system call for each.
pub const MOST_GUESTS: usize = 4096;

/// The most notes that a guest is sent at once: there is room for them.
const MOST_LIFTS: usize = 64;

/// Which guest of an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestNumber {
    open: usize,
    /// `None`: it may load only.
    protected: Option<usize>,
}

/// Where a guest maps which part of the object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestPlace {
    /// Its address of the part's first byte.
    pub start: usize,
    /// The part: bytes of a view, in whole small pages.
    pub part: Range<usize>,
}

/// One guest's view.
#[derive(Debug)]
pub struct GuestView {
    this: Weak<GuestView>,
    uffd: Arc<Userfaultfd>,
    place: GuestPlace,
    access: GuestAccess,
    line: Arc<Line>,
    /// Where it is, once it is admitted.
    number: OnceLock<GuestNumber>,
    /// Taking it out of the tables.
    dismissal: Once,
    /// Pages that are open in it could not be protected.
    is_broken: AtomicBool,
}

impl GuestView {
    /// A view at this place; `uffd` is the guest's. Where the guest cannot store to frames nothing is ever protected.
    pub fn new(uffd: Arc<Userfaultfd>, place: GuestPlace, access: GuestAccess, line: Arc<Line>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            uffd,
            place,
            access,
            line,
            number: OnceLock::new(),
            dismissal: Once::new(),
            is_broken: AtomicBool::new(false),
        })
    }

    /// Whether it was dismissed because pages that are open in it could not be protected.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// Protects these bytes of the view. `Ok` if the guest has ended: then nobody stores.
    fn protect(&self, start: usize, end: usize) -> io::Result<()> {
        let Some((at, len)) = self.clip(start, end) else { return Ok(()) };
        match self.uffd.write_protect(at, len) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            protected => protected,
        }
    }

    /// Has all faults of the view told of again.
    pub fn wake_all(&self) {
        self.uffd.wake(self.place.start, self.place.part.len());
    }

    pub(super) fn uffd(&self) -> &Userfaultfd {
        &self.uffd
    }

    /// Where it is.
    pub fn place(&self) -> &GuestPlace {
        &self.place
    }

    /// The byte of the object that is at `address` of the guest, if the view has it.
    pub fn offset_of(&self, address: usize) -> Option<usize> {
        let inside = address.checked_sub(self.place.start).filter(|at| *at < self.place.part.len())?;
        Some(self.place.part.start + inside)
    }

    /// Address and length of what the view has of these bytes of the object; `None` if nothing.
    pub(super) fn clip(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let GuestPlace { start: address, part } = &self.place;
        let (start, end) = (start.max(part.start), end.min(part.end));
        (start < end).then(|| (address + (start - part.start), end - start))
    }

    /// Shows these bytes, which have frames, and wakes who sleeps on them: protected, if the guest could store to the frames. In
    /// a private mapping of its own the kernel copies a page before the first store to it.
    pub(super) fn show(&self, start: usize, end: usize) {
        let Some((at, len)) = self.clip(start, end) else { return };
        let _ = match self.access {
            // SAFETY: the pages lie in a view that is registered. Small pages get into the file whole, and are changed
            // afterwards by stores only, which are to be seen. The guest has no description of the file that can write: it can
            // store to copies only.
            GuestAccess::LoadAndCopy => unsafe { self.uffd.show(at, len) },
            // SAFETY: as above; a store that comes is told of first.
            GuestAccess::Load | GuestAccess::Store => unsafe { self.uffd.show_protected(at, len) },
        };
    }

    /// Shows these bytes open to stores.
    pub(super) fn open(&self, start: usize, end: usize) {
        if let (GuestAccess::Store, Some((at, len))) = (self.access, self.clip(start, end)) {
            // SAFETY: as in `show`; the caller has the pages locked to open them.
            let _ = unsafe { self.uffd.show(at, len) };
        }
    }
}

/// References into the frames, and other processes that can store to them as they like: never both.
///
/// A process that was given a description of the file that can write keeps it as long as it likes, and may hand it on. So
/// once one was given, no reference is ever made again: bytes are copied.
#[derive(Debug, Default)]
pub(super) struct References(AtomicU64);

/// The lowest bit: a description that can write was given away. The others count references.
const GIVEN: u64 = 1;
const ONE: u64 = 2;

impl References {
    /// Counts one more reference, unless there may be none.
    pub(super) fn enter(&self) -> bool {
        let next = |count: u64| (count & GIVEN == 0).then_some(count + ONE);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    pub(super) fn leave(&self) {
        self.0.fetch_sub(ONE, Ordering::AcqRel);
    }

    /// From now on there are no references; refused while there are some.
    fn end(&self) -> bool {
        let next = |count: u64| (count & !GIVEN == 0).then_some(GIVEN);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    fn have_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) & GIVEN != 0
    }
}

/// Why the file of frames is not to be had.
#[derive(Debug)]
pub enum NoFile {
    /// The frames are in none, or the area is read only where they are to be stored to.
    NotShared,
    /// Something is pinned: there are references into the frames.
    InUse,
    /// The system refused a descriptor.
    System(io::Error),
}

/// The guests of one area.
#[derive(Debug, Default)]
pub(super) struct Guests {
    pub(super) references: References,
    /// Views in which pages can be open to stores: what is protected is protected in these.
    protected: SlotTable<GuestView>,
    /// Views in which pages are shown and opened. A guest that is dismissed leaves these first, so that what is
    /// protected afterwards stays so.
    open: SlotTable<GuestView>,
}

impl Guests {
    fn insert(&self, view: Arc<GuestView>) -> Option<GuestNumber> {
        let protected = match view.access {
            GuestAccess::Store => Some(self.protected.insert(Arc::clone(&view)).ok()?),
            GuestAccess::Load | GuestAccess::LoadAndCopy => None,
        };
        let open = self.open.insert(Arc::clone(&view)).ok();
        match open.filter(|open| *open < MOST_GUESTS) {
            Some(open) => {
                let number = GuestNumber { open, protected };
                let _ = view.number.set(number);
                Some(number)
            }
            None => {
                open.map(|open| self.open.remove(open));
                protected.map(|protected| self.protected.remove(protected));
                None
            }
        }
    }

    pub(super) fn with_open<R>(&self, guest: GuestNumber, act: impl FnOnce(&GuestView) -> R) -> Option<R> {
        self.open.with(guest.open, act)
    }

    /// Calls `act` with every guest; one with which it fails is broken off. Safe in a signal handler, if `act` is.
    pub(super) fn each(&self, act: impl Fn(&GuestView) -> io::Result<()>) {
        each(&self.open, act);
    }

    pub(super) fn wake(&self, start: usize, end: usize) {
        self.each(|view| {
            if let Some((at, len)) = view.clip(start, end) {
                view.uffd.wake(at, len);
            }
            Ok(())
        });
    }

    /// Protects these bytes in all views; those in which that failed come back, and why it did.
    fn protect(&self, start: usize, end: usize) -> Vec<(Arc<GuestView>, io::Error)> {
        let mut failed = Vec::new();
        for slot in 0..self.protected.end() {
            self.protected.with(slot, |view| {
                if let (Err(error), Some(view)) = (view.protect(start, end), view.this.upgrade()) {
                    failed.push((view, error));
                }
            });
        }
        failed
    }

    /// Lets stores to these bytes pass, in the views that can store.
    pub(super) fn unprotect(&self, start: usize, end: usize) {
        self.each(|view| match (view.access, view.clip(start, end)) {
            (GuestAccess::Store, Some((at, len))) => view.uffd.unprotect(at, len),
            _ => Ok(()),
        });
    }

    /// The poison of a range cannot be lifted from here.
    pub(super) fn tell_to_lift(&self, start: usize, len: usize) {
        self.tell(Note::Lift { start: start as u64, len: len as u64 });
    }

    /// All guests have the same time to make room, so that many that do not read take no longer than one.
    fn tell(&self, note: Note) {
        let deadline = Instant::now() + PATIENCE;
        self.each(|view| view.line.tell_until(note, deadline));
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

impl Home {
    /// Counts a reference into the frames. `false`: there may be none, others can store to them.
    #[inline]
    pub(super) fn enter_reference(&self) -> bool {
        self.guests.as_ref().is_none_or(|guests| guests.references.enter())
    }

    #[inline]
    pub(super) fn leave_reference(&self) {
        if let Some(guests) = &self.guests {
            guests.references.leave();
        }
    }

    /// Bytes of addresses that each view takes.
    pub fn view_bytes(&self) -> usize {
        self.views[0].region.len()
    }

    /// The file that holds the frames, for a process that is to load only.
    pub fn file_to_load(&self) -> Result<OwnedFd, NoFile> {
        self.frame_file.as_ref().ok_or(NoFile::NotShared)?.for_reading().map_err(NoFile::System)
    }

    /// The file that holds the frames, for a process that is to store. It can store by any means, at any time, for ever:
    /// pins are copies from now on. `InUse` while there are pins that are none.
    pub fn file_to_store(&self) -> Result<OwnedFd, NoFile> {
        let (Some(file), Some(guests)) = (&self.frame_file, &self.guests) else {
            return Err(NoFile::NotShared);
        };
        if !guests.references.end() {
            return Err(NoFile::InUse);
        }
        file.for_writing().map_err(NoFile::System)
    }

    /// Whether pins are copies, because others can store to the frames by any means. Once they are they stay so.
    pub fn pins_are_copies(&self) -> bool {
        self.guests.as_ref().is_some_and(|guests| guests.references.have_ended())
    }

    /// Registers all of a guest's view, so that none of its accesses goes unnoticed.
    ///
    /// EINVAL, ENOMEM, EPERM: the guest has nothing mapped there that can be registered. ESRCH: it has ended.
    pub fn register_guest(&self, view: &GuestView) -> io::Result<()> {
        let modes = match view.access {
            GuestAccess::LoadAndCopy => Modes::MISSING | Modes::MINOR,
            GuestAccess::Load | GuestAccess::Store => Modes::MISSING | Modes::MINOR | Modes::WRITE_PROTECT,
        };
        view.uffd.register(view.place.start, view.place.part.len(), modes)
    }

    /// Has a guest's view, which another owner has left, lift the poison of `pages`, which ascend. Of many runs what lies between
    /// them is dropped from the view, too, and faults once more.
    pub fn lift_in(&self, view: &GuestView, pages: &[PageRange]) -> io::Result<()> {
        let all = match (pages.first(), pages.last()) {
            (Some(first), Some(last)) => PageRange { start: first.start, end: last.end },
            _ => return Ok(()),
        };
        let pages = if pages.len() > MOST_LIFTS { std::slice::from_ref(&all) } else { pages };
        pages.iter().try_for_each(|run| {
            let (start, len) = (self.offset_in_view(run.start) as u64, self.mapped_len(*run) as u64);
            view.line.tell(Note::Lift { start, len })
        })
    }

    /// Adds a guest's view that was registered, and tells the guest of the length. `None`: there are too many guests,
    /// or the area takes none; then the guest's line is shut.
    pub fn admit(&self, view: Arc<GuestView>) -> Option<GuestNumber> {
        let line = Arc::clone(&view.line);
        let number = self.guests.as_ref().and_then(|guests| guests.insert(view));
        if number.is_none() || line.tell(Note::Length(self.length.load(Ordering::Acquire))).is_err() {
            line.break_off();
        }
        number
    }

    /// Makes stores of guests to these bytes trap from now on. A guest with which that fails is dismissed, and this
    /// fails: what was to be copied may be open in it. The next call goes without that guest.
    pub(super) fn protect_in_guests(&self, start: usize, end: usize) -> io::Result<()> {
        let Some(guests) = &self.guests else { return Ok(()) };
        let mut first = None;
        for (view, error) in guests.protect(start, end) {
            // One that has hung up has unmapped the range, mostly.
            view.is_broken.fetch_or(!view.line.is_shut(), Ordering::AcqRel);
            self.dismiss(&view);
            first.get_or_insert(error);
        }
        first.map_or(Ok(()), Err)
    }

    /// Takes a guest's view out; a second call waits for the first. Pages that are open in it are protected before, so
    /// that it cannot store unnoticed to what is written back later: such stores sleep, until the guest hears that its
    /// line is shut.
    pub fn dismiss(&self, view: &GuestView) {
        view.dismissal.call_once(|| {
            let (Some(guests), Some(number)) = (&self.guests, view.number.get()) else { return };
            guests.open.remove(number.open);
            let Some(protected) = number.protected else {
                view.line.break_off();
                return;
            };
            // Nothing is opened in it any more, and what is open is Dirty or about to be.
            let mut from = 0;
            while let Some(block) = self.unclean.next(from) {
                self.protect_for_good(view, block);
                from = block + 1;
            }
            guests.protected.remove(protected);
            view.line.break_off();
        });
    }

    /// Protects what can be protected of `block` in a view that is dismissed.
    fn protect_for_good(&self, view: &GuestView, block: u64) {
        let start = block as usize * BLOCK_BYTES as usize;
        let end = (start + BLOCK_BYTES as usize).min(self.view_bytes());
        if view.protect(start, end).is_ok() {
            return;
        }
        for at in (start..end).step_by(SMALL) {
            // What fails now is mapped by the guest for itself, or not at all: nobody can protect it.
            let _ = view.protect(at, at + SMALL);
        }
    }

    /// Tells guests of the length.
    pub(super) fn tell_length(&self, length: u64) {
        if let Some(guests) = &self.guests {
            guests.tell(Note::Length(length));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::uffd::Announce;

    #[test]
    fn there_are_so_many_and_places_come_back() {
        let uffd = match Userfaultfd::open(Announce::Queued) {
            Ok(uffd) => Arc::new(uffd),
            Err(error) => return println!("skipped: no userfaultfd: {error}"),
        };
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let line = Arc::new(Line::new(ours));
        let guests = Guests::default();
        let place = GuestPlace { start: SMALL, part: 0..SMALL };
        let view = |access| GuestView::new(Arc::clone(&uffd), place.clone(), access, Arc::clone(&line));
        let writes = |number| if number % 2 == 0 { GuestAccess::Store } else { GuestAccess::Load };
        let numbers: Vec<_> =
            (0..MOST_GUESTS).map(|number| guests.insert(view(writes(number))).unwrap()).collect();
        assert_eq!(guests.insert(view(GuestAccess::Store)), None);
        assert_eq!(guests.insert(view(GuestAccess::Load)), None);
        // Only those that can store are protected.
        assert!(guests.protected.end() <= MOST_GUESTS / 2 + 1, "{}", guests.protected.end());
        let [stores, loads] = [numbers[0], numbers[1]];
        assert!(stores.protected.is_some() && loads.protected.is_none());
        drop(guests.open.remove(loads.open));
        assert_eq!(guests.insert(view(GuestAccess::Load)).map(|number| number.open), Some(loads.open));
    }

    #[test]
    fn a_view_of_a_part_has_nothing_else() {
        let uffd = match Userfaultfd::open(Announce::Queued) {
            Ok(uffd) => Arc::new(uffd),
            Err(error) => return println!("skipped: no userfaultfd: {error}"),
        };
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let place = GuestPlace { start: 10 * SMALL, part: 4 * SMALL..6 * SMALL };
        let view = GuestView::new(uffd, place, GuestAccess::Load, Arc::new(Line::new(ours)));
        let clip = |start: usize, end: usize| view.clip(start * SMALL, end * SMALL);
        assert_eq!((clip(0, 4), clip(6, 9), clip(5, 5)), (None, None, None));
        assert_eq!(clip(0, 5), Some((10 * SMALL, SMALL)));
        assert_eq!(clip(5, 9), Some((11 * SMALL, SMALL)));
        assert_eq!(clip(0, usize::MAX / SMALL), Some((10 * SMALL, 2 * SMALL)));
        assert_eq!(view.offset_of(10 * SMALL + 1), Some(4 * SMALL + 1));
        assert_eq!((view.offset_of(10 * SMALL - 1), view.offset_of(12 * SMALL)), (None, None));
    }
}
