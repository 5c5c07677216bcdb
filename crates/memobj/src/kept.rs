//! Objects whose pages outlive the process that owns them.
//!
//! ```text
//!   first owner         keeper                     next owner
//!   keep     ---------> KeptObject: frames,   ---> inherit: the same pages, also those that are Dirty
//!   admit    ---------> KeptGuest: faults,    ---> admit_again: faults are resolved again
//!   killed              line, process
//! ```
//!
//! Page words, and what is noted beside them, are in a memory file. Each step of the protocol leaves words from which
//! the next owner can tell what is right (`memobj_core::pages::Legacy`), so the first may end at any moment: killed, too.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use memobj_linux::area::{Kept, Mark, Storage};

use crate::error::MapError;
use crate::handles::{Keeping, PartsHandle, capacity};
use crate::object::MemoryObject;
use crate::options::{FrameVisibility, Writing};

/// Bytes of a page that is kept.
const PAGE: u64 = 4096;

/// The pages of an object, for a process that keeps them while their owner ends and another begins.
///
/// Whoever has the descriptors can read and change all bytes, and what the owner believes of its pages. Nobody but the keeper
/// and the next owner may have them.
#[derive(Debug)]
pub struct KeptObject {
    /// The file of frames.
    pub frames: OwnedFd,
    /// The file of page words and marks.
    pub tables: OwnedFd,
    /// Bytes of the object.
    pub length: u64,
    /// The most bytes that it can grow to.
    pub capacity: u64,
}

/// What [`MemoryObject::inherit`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Inheritance {
    /// Bytes of pages that are in memory.
    pub resident_bytes: u64,
    /// Bytes of those that the pager does not have yet.
    pub dirty_bytes: u64,
    /// Bytes of changes that were lost before: each sync says so until `discard`.
    pub lost_bytes: u64,
}

impl MemoryObject {
    /// Places the object's frames and page words in files that can outlive this process, and returns these for `keeper`, the
    /// process that keeps them, by its pidfd. Mappings of [guests](Self::admit) end when that process ends, not when this one
    /// does. The object may not be mapped yet.
    ///
    /// Changes that are not written back are in the files at each moment. What the pager has taken and not made durable is
    /// noted there, and is offered to it again.
    ///
    /// # Errors
    ///
    /// `Unsupported` unless the object can be written in place, with [`FrameVisibility::Shared`], and is not mapped; what mapping
    /// it would say.
    pub fn keep(&self, keeper: Arc<OwnedFd>) -> Result<KeptObject, MapError> {
        let capacity = self.capacity_to_keep()?;
        let tables = Kept::new(pages_of(capacity)).map_err(system("make a file for page words"))?;
        let parts = self.placed(Storage::Kept(tables), keeper)?;
        let (frames, tables) =
            parts.parts.area.kept_files().map_err(system("duplicate the files of pages"))?;
        Ok(KeptObject { frames, tables, length: parts.parts.area.length(), capacity })
    }

    /// Takes over the pages of an owner that has ended. This object is of the same bytes, is as long, and is not mapped yet.
    /// Then as [`keep`](Self::keep). Calls no pager; takes time for each page that is in memory.
    ///
    /// What was Dirty is Dirty, and what the pager may have lost with the owner is Dirty again. Pages that had failed are
    /// asked for again, unless their changes are lost. If the budget is smaller now, Clean pages are dropped; Dirty
    /// ones are kept, even beyond it, until they are written.
    ///
    /// Guests of the owner before have pages open to stores. Until they are [admitted again](Self::admit_again), and
    /// [`guests_are_back`](Self::guests_are_back) is called, nothing is written back, and a sync waits: what was written could
    /// be stored to unseen.
    ///
    /// That the object has the bytes that it had is for the caller to know: of a read-only one by its version.
    ///
    /// # Errors
    ///
    /// As [`keep`](Self::keep); `System` with `InvalidData` if the files are of another object. Then nothing has changed.
    pub fn inherit(&self, kept: KeptObject, keeper: Arc<OwnedFd>) -> Result<Inheritance, MapError> {
        let capacity = self.capacity_to_keep()?;
        let other = |what| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, what);
            MapError::System { what: "take over the pages of a process that has ended", source }
        };
        if (kept.length, kept.capacity) != (self.len(), capacity) {
            return Err(other("the object has another length than its pages"));
        }
        let tables =
            Kept::open(kept.tables, pages_of(capacity)).map_err(system("open a file of page words"))?;
        let said = tables.marked(Mark::Lost).map_err(system("read what was lost"))?;
        let storage = Storage::Inherited { tables, frames: Arc::new(kept.frames) };
        let parts = self.placed(storage, keeper)?;
        let area = &parts.parts.area;
        // Others have had the file, and may have it still.
        drop(area.file_to_store());
        let found = parts.parts.kept.as_ref().map(|kept| kept.lost.clone()).unwrap_or_default();
        let lost_bytes = parts.parts.errors.inherit(&found, &said);
        Ok(Inheritance {
            resident_bytes: area.resident_pages() * PAGE,
            dirty_bytes: area.unclean_pages() * PAGE,
            lost_bytes,
        })
    }

    /// All guests of the owner before are admitted again, or have ended: changes are written back from now on. For an object
    /// that has [inherited](Self::inherit) its pages. Does not block.
    pub fn guests_are_back(&self) {
        if let Some(writes) = self.writes() {
            writes.hold_back(false);
        }
    }

    fn capacity_to_keep(&self) -> Result<u64, MapError> {
        let core = &self.handle().core;
        let options = &core.options;
        if !self.handle().cache.shared.owner.is_this_process() {
            return Err(MapError::Detached);
        }
        if (options.writing, options.visibility) != (Writing::InPlace, FrameVisibility::Shared) {
            let why = "only objects that are written in place, with shared frames, can be kept";
            return Err(MapError::Unsupported { why });
        }
        Ok(capacity(core))
    }

    fn placed(&self, storage: Storage, keeper: Arc<OwnedFd>) -> Result<Arc<PartsHandle>, MapError> {
        let placed = self.frames_kept(Keeping { storage, keeper })?;
        placed.ok_or(MapError::Unsupported { why: "an object that is mapped cannot be kept any more" })
    }
}

/// Pages that have tables. An empty object has those of one.
fn pages_of(capacity: u64) -> u64 {
    capacity.div_ceil(PAGE).max(1)
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> MapError {
    move |source| MapError::System { what, source }
}
