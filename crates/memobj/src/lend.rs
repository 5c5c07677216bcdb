//! Frames lent to address spaces that place segments by themselves: of other processes, for example.
//!
//! ```text
//!   lent file      page i of the object is page i of the file while it is resident, and a hole otherwise
//!   borrower       maps it privately, registered with a userfaultfd for missing pages; for each fault it calls
//!                  `resolve`, and wakes the sleeper. Then the page is there, or the sleeper faults again
//!   eviction       punches a hole: the page vanishes from all who map it, but for copies they have made
//! ```

use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use memobj_core::address::{ByteRange, PageIndex, PageRange};
use memobj_linux::area::{NoFile, PageWatch};
use memobj_linux::fault_loop::Awaited;

use crate::batch::fill_missing;
use crate::demand::{Demanded, demand};
#[cfg(feature = "spaces")]
use crate::error::{ErrorKind, SupplyError};
use crate::error::{MapError, PageError};
use crate::handles::{ObjectHandle, PartsHandle};
use crate::object::MemoryObject;
use crate::options::{FrameSize, FrameVisibility, Writing};
#[cfg(feature = "spaces")]
use crate::pages::bytes_of;
use crate::parts::ObjectParts;
use crate::pins::Ask;
use crate::write::FaultFor;

/// The frames of an object, for whoever maps them without the help of this library.
///
/// A handle of the object: frames stay while it lives. Cheap to clone.
///
/// # Soundness
///
/// It hands out no memory, but a descriptor that can only be read, of a file whose length is sealed and whose mode lets no
/// other user open it for writing. A duplicate may outlive this: it reads what is there, or zeros in a hole, and changes
/// nothing that is pinned. To map it takes `unsafe`, and the rules of
/// [`lend_frames`](MemoryObject::lend_frames). Who opens it again for writing by /proc, as root or the same user can, could
/// as well write to /proc/self/mem: neither is what `unsafe` is about in Rust, and both are wrong.
///
/// ```compile_fail,E0505
/// # fn leak(lent: memobj::LentFrames) {
/// let file = lent.file();
/// drop(lent);
/// let _again = file.try_clone_to_owned();
/// # }
/// ```
#[derive(Clone)]
pub struct LentFrames {
    frames: Arc<PartsHandle>,
    file: Arc<OwnedFd>,
    // Dropped last.
    object: Arc<ObjectHandle>,
}

/// What [`LentFrames::resolve_at_once`] answers.
#[derive(Debug)]
#[non_exhaustive]
pub enum AtOnce {
    /// The page is resident.
    Resident,
    /// It has failed.
    Failed(PageError),
    /// Somebody obtains it: ask again when this is over. The time-outs and the policy of the object see to it that it
    /// comes, or fails.
    Pending(PendingPage),
}

/// A page that somebody obtains. Tells the [event loop of the process](memobj_linux::fault_loop) when that has ended.
///
/// It keeps addresses of the object, but neither its frames nor its pager.
#[derive(Debug)]
pub struct PendingPage(PageWatch);

impl Awaited for PendingPage {
    fn is_over(&self) -> bool {
        self.0.is_over()
    }
}

impl fmt::Debug for LentFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentFrames")
            .field("object", &self.object.core.name)
            .field("length", &self.len())
            .finish_non_exhaustive()
    }
}

impl MemoryObject {
    /// Lends the frames of the object, which is read only and was made with [`FrameVisibility::Shared`] and
    /// [`FrameSize::Small`].
    ///
    /// The borrower has to keep three rules, or reads zeros where bytes should be, and so do all others who map the
    /// object. It maps the file privately. Nothing may touch a mapping before it is registered with a userfaultfd for
    /// missing pages, and nothing after it is not any more: after a fork without the event, for example. And the
    /// userfaultfd stays open as long as the mapping exists.
    ///
    /// # Errors
    ///
    /// `Unsupported` for other objects, and what mapping it would say.
    pub fn lend_frames(&self) -> Result<LentFrames, MapError> {
        let object = Arc::clone(self.handle());
        if !object.cache.shared.owner.is_this_process() {
            return Err(MapError::Detached);
        }
        let options = &object.core.options;
        if (options.visibility, options.frames, options.writing)
            != (FrameVisibility::Shared, FrameSize::Small, Writing::ReadOnly)
        {
            let why = "only objects that are read only, with shared, small frames, can lend them";
            return Err(MapError::Unsupported { why });
        }
        let frames = self.frames(Some(memobj_linux::uffd::Announce::Queued))?;
        let file = frames.parts.area.file_to_load().map_err(|error| match error {
            NoFile::System(source) => {
                MapError::System { what: "open the file of frames for reading", source }
            }
            NoFile::NotShared | NoFile::InUse => {
                MapError::Unsupported { why: "the object is mapped without a file of frames" }
            }
        })?;
        Ok(LentFrames { frames, file: Arc::new(file), object })
    }
}

impl LentFrames {
    fn parts(&self) -> &ObjectParts {
        &self.frames.parts
    }

    /// The file of frames, opened for reading.
    pub fn file(&self) -> BorrowedFd<'_> {
        (*self.file).as_fd()
    }

    /// Bytes of the object.
    pub fn len(&self) -> u64 {
        self.parts().area.length()
    }

    /// Whether the object has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the page at `offset` has its bytes in a frame now. It may lose it at any time.
    pub fn is_resident(&self, offset: u64) -> bool {
        let area = &self.parts().area;
        let page = self.page_of(offset);
        page.0 < area.pages() && area.word(page).is_resident()
    }

    /// Obtains the page at `offset`, which lies in the object, and blocks until it is resident, or has failed as the
    /// policy of the object says. On the way absent pages of `around` are obtained, too, in the same large reads;
    /// what fails of them is told to whoever comes to them.
    ///
    /// With `Ok` the page was resident at some moment during the call.
    ///
    /// # Errors
    ///
    /// What [`Mapping::populate`](crate::Mapping::populate) says.
    pub fn resolve(&self, offset: u64, around: Range<u64>) -> Result<(), PageError> {
        self.resolve_while(offset, around, &|| true)
    }

    /// As [`resolve`](Self::resolve), but gives up waiting for others, with `Ok`, once `goes_on` says no.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resolve_while(
        &self,
        offset: u64,
        around: Range<u64>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), PageError> {
        let (parts, page, around) = (self.parts(), self.page_of(offset), self.pages_of(&around));
        // The borrower was told that it is missing.
        parts.errors.look(page, offset);
        if parts.area.word(page).is_absent() && around.len() > 1 {
            fill_missing(&parts.fill, &[around], &mut |_| {});
        }
        parts.waits.populate_while(PageRange::one(page), goes_on)
    }

    /// As [`resolve`](Self::resolve), for an event loop: waits neither for the page nor for its pager, but has somebody
    /// obtain it.
    ///
    /// With `Resident` the page was resident at some moment during the call.
    pub fn resolve_at_once(&self, offset: u64, around: Range<u64>) -> AtOnce {
        let (parts, page, around) = (&self.frames.parts, self.page_of(offset), self.pages_of(&around));
        parts.errors.look(page, offset);
        loop {
            match demand(parts, page, around, FaultFor::Load) {
                Demanded::There => return AtOnce::Resident,
                Demanded::Pending(watch) => return AtOnce::Pending(PendingPage(watch)),
                Demanded::Failed => {
                    // Without an error it was retried meanwhile.
                    if let Some(error) = parts.errors.of(page) {
                        return AtOnce::Failed(error);
                    }
                }
            }
        }
    }

    /// Why the page at `offset`, which lies in the object, has failed; `None` if it has not, or not any more.
    #[cfg(feature = "spaces")]
    pub(crate) fn failure(&self, offset: u64) -> Option<PageError> {
        let (parts, page) = (self.parts(), self.page_of(offset));
        let has_failed = parts.area.word(page).has_failed();
        has_failed.then(|| parts.errors.of(page)).flatten()
    }

    /// Why the page at `offset` traps if the thread that was to obtain it has panicked.
    #[cfg(feature = "spaces")]
    pub(crate) fn ended_error(&self, offset: u64) -> PageError {
        let parts = self.parts();
        let why = std::io::Error::other("a thread of the space has ended by a panic");
        let bytes = bytes_of(&parts.area, self.page_of(offset));
        parts.errors.error(bytes, &SupplyError::because(ErrorKind::Detached, why), 0)
    }

    /// Which object this is of: the same number for all who borrow from it while any of them does.
    #[cfg(feature = "spaces")]
    pub(crate) fn key(&self) -> usize {
        self.object.key()
    }

    /// Asks for the pages of `ranges` in the background, in this order, as
    /// [`Mapping::prefetch`](crate::Mapping::prefetch) does.
    pub fn prefetch(&self, ranges: &[Range<u64>]) {
        for pages in ranges.iter().map(|range| self.pages_of(range)).filter(|pages| !pages.is_empty()) {
            self.parts().waits.driver.ask(Ask::Prefetch(pages));
        }
    }

    /// Lets the Failed pages of `range` be tried again; how many there were. Their poison in other address spaces is
    /// the borrower's to lift.
    pub fn retry(&self, range: Range<u64>) -> u64 {
        self.parts().errors.retry(self.pages_of(&range))
    }

    /// Frames in use, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let area = &self.parts().area;
        area.resident_pages() << area.page_size().shift()
    }

    fn pages_of(&self, range: &Range<u64>) -> PageRange {
        let end = range.end.min(self.len());
        self.parts().area.page_size().pages_of(ByteRange { start: range.start.min(end), end })
    }

    fn page_of(&self, offset: u64) -> PageIndex {
        PageIndex(offset >> self.parts().area.page_size().shift())
    }
}
