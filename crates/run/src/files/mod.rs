//! The files that programs map, as memory objects.
//!
//! ```text
//!   find     the object of a file that a program maps, made when the file is mapped first. None: the kernel maps it
//!   Hold     what makes an object one version of its file, for as long as it is current
//!     Lease    nobody can change the file before the lease is given back
//!     Watch    where there is no lease and this user cannot write: inotify tells of changes that have happened
//!   broken   a writer waits, or has written: the tracer hands the object's mappings over to the kernel (`handover`),
//!            and gives the lease back. New mappings of the file are the kernel's while there are writers
//!   idle     an object that nobody maps is closed: its frames, its file, its lease
//! ```
//!
//! A file that is mapped both privately and shared is two objects. So the frames of a mapping tell which it is, wherever
//! the program has moved it. An object of a pager has no writers: it is one object for both, and is always current.

mod guardian;
mod idle;
mod make;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use memobj::pagers;
use memobj_linux::locks::{Rank, RankedMutex, RankedRwLock};

use self::guardian::Guardian;
use crate::frames::FrameSource;
use crate::history_builder::HistoryBuilder;
use crate::lender::Lender;
use crate::objects::{ObjectFiles, Opened};
use crate::options::Options;

pub(crate) use crate::frames::MappingKind;

pub(crate) use self::guardian::{LostPage, Post, time_to_hand_over};

/// Which file of frames: device, major and minor, and inode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FramesId {
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
}

/// Which file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct FileId {
    device: u64,
    inode: u64,
}

/// The bytes of a file at one moment, as far as its attributes tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Version {
    size: u64,
    modified: (i64, i64),
}

impl Version {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// What makes an object one version of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    /// A lease, which tells of itself by this descriptor.
    Lease(RawFd),
    /// A watch of this number.
    Watch(i32),
}

/// Its mappings are segments of the object.
const CURRENT: u8 = 0;
/// The file changes: its mappings are being handed over to the kernel, new ones are the kernel's.
const BROKEN: u8 = 1;
/// They were handed over.
const RETIRED: u8 = 2;

/// A file that programs map in one way, as a memory object.
#[derive(Debug)]
pub(crate) struct MappedObject {
    /// The index in the history.
    pub(crate) file: usize,
    pub(crate) lent: Box<dyn FrameSource>,
    pub(crate) frames: FramesId,
    pub(crate) mapping_kind: MappingKind,
    id: FileId,
    origin: Origin,
    state: AtomicU8,
    /// At how many looks in a row nobody mapped it.
    idle_looks: AtomicU32,
}

/// Where the bytes of a mapped object come from.
#[derive(Debug)]
enum Origin {
    /// A local file. Others may change it.
    Local(LocalFile),
    /// An object of a pager, one version of it: nobody changes it.
    Object(FarFile),
}

/// A local file that is mapped.
#[derive(Debug)]
struct LocalFile {
    source: Arc<pagers::File>,
    version: Version,
    hold: Hold,
}

/// An object of a pager that is mapped as a file.
#[derive(Debug)]
struct FarFile {
    opened: Arc<Opened>,
    objects: Arc<ObjectFiles>,
    /// The file itself, opened when it is handed over to the kernel.
    file: OnceLock<OwnedFd>,
}

impl LocalFile {
    /// Lets whoever waits for the file's lease go on.
    fn give_way(&self) {
        if matches!(self.hold, Hold::Lease(_)) {
            memobj_linux::lease::give_back(&*self.source);
        }
    }
}

impl FarFile {
    fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        if self.file.get().is_none() {
            let opened = self.objects.open_file(&self.opened)?;
            // Another thread may have been faster.
            let _ = self.file.set(opened);
        }
        self.file.get().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl MappedObject {
    /// The descriptor of the file of frames.
    pub(crate) fn frames_descriptor(&self) -> RawFd {
        self.lent.file().as_raw_fd()
    }

    /// The descriptor of the file itself, open for reading.
    pub(crate) fn file_descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.origin {
            Origin::Local(file) => Ok(file.source.as_fd()),
            Origin::Object(object) => object.descriptor(),
        }
    }

    /// Whether some mapping of it can be one that the program made shared.
    pub(crate) fn may_be_shared(&self) -> bool {
        self.mapping_kind == MappingKind::Shared || matches!(self.origin, Origin::Object(_))
    }

    /// The local file that it is of.
    fn local(&self) -> Option<&LocalFile> {
        match &self.origin {
            Origin::Local(file) => Some(file),
            Origin::Object(_) => None,
        }
    }

    /// Whether its file has not changed since it was made.
    pub(crate) fn is_current(&self) -> bool {
        self.state.load(Ordering::Acquire) == CURRENT
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Files {
    lender: Lender,
    options: Options,
    history_builder: Arc<HistoryBuilder>,
    current: RankedMutex<HashMap<(FileId, MappingKind), Arc<MappedObject>>>,
    /// All that have not been closed, also those that are not current any more.
    by_frames: RankedRwLock<HashMap<FramesId, Arc<MappedObject>>>,
    guardian: Guardian,
}

impl Files {
    /// `post` hands work to the tracer.
    pub(crate) fn new(
        lender: Lender,
        options: Options,
        history_builder: Arc<HistoryBuilder>,
        post: Box<dyn Post>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            lender,
            options,
            history_builder,
            current: RankedMutex::new(Rank::CurrentFiles, HashMap::new()),
            by_frames: RankedRwLock::new(Rank::FilesByFrames, HashMap::new()),
            guardian: Guardian::new(this.clone(), post),
        })
    }

    pub(crate) fn lender(&self) -> &Lender {
        &self.lender
    }

    /// How many files are open.
    pub(crate) fn count(&self) -> usize {
        self.by_frames.read().len()
    }

    /// The object whose frames are in this file.
    pub(crate) fn of_frames(&self, frames: FramesId) -> Option<Arc<MappedObject>> {
        self.by_frames.read().get(&frames).cloned()
    }

    /// The object for the file at `path`, which names it for this process: /proc/PID/fd/N, for example. `None`: the
    /// kernel is to map it. Opens the file; blocks as long as its file system does.
    pub(crate) fn find(&self, path: &Path, mapping_kind: MappingKind) -> Option<Arc<MappedObject>> {
        if !make::may_be_served(path) {
            return None;
        }
        let metadata = std::fs::metadata(path).ok()?;
        if !metadata.file_type().is_file() || metadata.size() == 0 {
            return None;
        }
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
        let known = self.current.lock().get(&(id, mapping_kind)).cloned();
        let object = match known {
            Some(object) => object,
            None => self.make(path, id, mapping_kind)?,
        };
        object.idle_looks.store(0, Ordering::Relaxed);
        let is_changed =
            |file: &LocalFile| matches!(file.hold, Hold::Watch(_)) && file.version != Version::of(&metadata);
        if object.local().is_some_and(is_changed) {
            self.has_broken(&object);
        }
        object.is_current().then_some(object)
    }

    /// The current objects of a local file.
    pub(crate) fn of_file(&self, metadata: &std::fs::Metadata) -> Vec<Arc<MappedObject>> {
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
        let current = self.current.lock();
        [MappingKind::Private, MappingKind::Shared]
            .iter()
            .filter_map(|mapping_kind| current.get(&(id, *mapping_kind)).cloned())
            .filter(|object| object.local().is_some())
            .collect()
    }

    /// Nothing of `object` is mapped anew: the tracer hands it over.
    pub(crate) fn breaks(&self, object: &MappedObject) {
        object.state.store(BROKEN, Ordering::Release);
    }

    /// The file of `object` is about to change, or has changed: its mappings are handed over to the kernel.
    fn has_broken(&self, object: &Arc<MappedObject>) {
        let first =
            object.state.compare_exchange(CURRENT, BROKEN, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            self.guardian.hand_over(object);
        }
    }

    /// Who lends the frames of `object` is gone: its file takes the place of what is missing.
    pub(crate) fn lender_is_gone(&self, object: &Arc<MappedObject>, page: LostPage) {
        self.guardian.supply_lost(page);
        self.has_broken(object);
    }

    /// What people call the file.
    pub(crate) fn name(&self, object: &MappedObject) -> String {
        self.history_builder.name_of(object.file)
    }

    /// The mappings of `object` are the kernel's now.
    pub(crate) fn retire(&self, object: &Arc<MappedObject>) {
        object.state.store(RETIRED, Ordering::Release);
        let mut current = self.current.lock();
        if current.get(&(object.id, object.mapping_kind)).is_some_and(|known| Arc::ptr_eq(known, object)) {
            current.remove(&(object.id, object.mapping_kind));
        }
        drop(current);
        self.let_go(object);
    }

    /// Nobody hears of changes of its file any more, and who waits to change it goes on.
    fn let_go(&self, object: &MappedObject) {
        object.lent.give_back();
        if let Some(file) = object.local() {
            file.give_way();
            self.guardian.forget(file.hold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobj_tracer::MappedFile;

    /// An ordinary file can have the number of a file of frames, on another device.
    #[test]
    fn frames_are_told_apart_by_device_and_number() {
        let of = |device, inode| FramesId::of(&MappedFile { device, inode, ..Default::default() });
        assert_eq!(of((0, 1), 77), of((0, 1), 77));
        assert_ne!(of((0, 1), 77), of((8, 1), 77));
        assert_ne!(of((0, 1), 77), of((0, 1), 78));
    }
}
