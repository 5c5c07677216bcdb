//! Answers requests: what the file system is.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use memobj_linux::locks::{Rank, RankedMutex};
use rustix::io::Errno;

use super::answer::Answer;
use super::listing::{Listing, Listings, path_of};
use super::object::{Object, Opened, Opener};
use super::recent::Recent;
use super::request::{Operation, Request};
use super::tree::{NodeKind, Tree};
use super::wire::{
    AttributesAnswer, EntryAnswer, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, InitAnswer, InitRequest, LEAST_MINOR,
    MAJOR, MINOR, OpenAnswer, StatfsAnswer, init,
};
use crate::map_target::EntryKind;
use crate::pages::Pages;

/// Of one read. Each that is under way has memory for so many bytes beside the budget.
const MOST_READ_BYTES: u32 = 256 << 10;
const PAGE: u32 = 4096;

/// See the module.
pub(super) struct Service {
    pub(super) tree: Tree,
    listings: Listings,
    opener: Opener,
    handles: RankedMutex<Handles>,
    recent: Arc<Recent>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.recent.end();
    }
}

#[derive(Default)]
struct Handles {
    open: HashMap<u64, Handle>,
    last: u64,
}

/// What a program has open.
#[derive(Clone)]
enum Handle {
    Object(Arc<Object>, Arc<Opened>),
    Folder(Arc<OpenFolder>),
}

/// A folder that is open.
struct OpenFolder {
    kind: NodeKind,
    /// What was in it when it was read first.
    names: OnceLock<Vec<(Vec<u8>, u32)>>,
}

impl Service {
    pub(super) fn new(tree: Tree, opener: Opener) -> Self {
        Self {
            tree,
            listings: Listings::new(),
            opener,
            handles: RankedMutex::new(Rank::ObjectHandles, Handles::default()),
            recent: Recent::new(),
        }
    }

    /// The answer, if it is one at once. `None`: [`answer`](Self::answer) may block.
    pub(super) fn answer_at_once(&self, request: &Request) -> Option<Answer> {
        let node = request.node;
        Some(match &request.operation {
            Operation::Init(asked) => begin(asked),
            Operation::LookUp(name) => {
                let kind = self.tree.kind(node);
                let entry = match &kind {
                    Some(kind) if self.tree.needs_folder(kind, name) => self.known_entry(kind, name)?,
                    _ => None,
                };
                self.look_up(node, kind, name, entry)
            }
            Operation::Forget(all) => {
                all.iter().for_each(|(node, lookups)| self.tree.forget(*node, *lookups));
                Answer::Nothing
            }
            Operation::Attributes => self.attributes(node),
            Operation::Open { flags } => match self.object_to_open(node, *flags) {
                Ok(object) => self.handle(Handle::Object(Arc::clone(&object), object.opened()?)),
                Err(errno) => Answer::Failed(errno),
            },
            // It is listed when it is read: a program is led to it by a call that must not block.
            Operation::OpenFolder => match self.tree.kind(node) {
                Some(NodeKind::Object(_)) => Answer::Failed(Errno::NOTDIR),
                Some(kind) => {
                    self.handle(Handle::Folder(Arc::new(OpenFolder { kind, names: OnceLock::new() })))
                }
                None => Answer::Failed(Errno::STALE),
            },
            Operation::ReadFolder { handle, offset, size } => match self.of_handle(*handle) {
                Some(Handle::Folder(folder)) => Answer::entries(folder.names.get()?, *offset, *size),
                _ => Answer::Failed(Errno::BADF),
            },
            Operation::Release { handle } => self.release(*handle),
            Operation::Statfs => Answer::of(&StatfsAnswer {
                block_bytes: PAGE,
                fragment_bytes: PAGE,
                name_bytes: 255,
                ..StatfsAnswer::default()
            }),
            Operation::Destroy => Answer::done(),
            Operation::Refused(errno) => Answer::Failed(*errno),
            // Those who serve requests answer it.
            Operation::Interrupt { .. } => Answer::Nothing,
            Operation::Read { .. } => return None,
        })
    }

    /// The answer. Blocks as long as pagers and folders do.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let node = request.node;
        match &request.operation {
            Operation::Read { handle, offset, size } => self.read(*handle, *offset, *size),
            Operation::Open { flags } => {
                match self.object_to_open(node, *flags).and_then(|object| Ok((self.open(&object)?, object))) {
                    Ok((opened, object)) => self.handle(Handle::Object(object, opened)),
                    Err(errno) => Answer::Failed(errno),
                }
            }
            Operation::LookUp(name) => {
                let Some(kind) = self.tree.kind(node) else { return Answer::Failed(Errno::STALE) };
                match self.entry(&kind, name) {
                    Ok(entry) => self.look_up(node, Some(kind), name, entry),
                    Err(errno) => Answer::Failed(errno),
                }
            }
            Operation::ReadFolder { handle, offset, size } => match self.of_handle(*handle) {
                Some(Handle::Folder(folder)) => self.read_folder(&folder, *offset, *size),
                _ => Answer::Failed(Errno::BADF),
            },
            _ => self.answer_at_once(request).unwrap_or(Answer::Failed(Errno::IO)),
        }
    }

    /// Counts the requests that wait for the same object or folder as this one.
    pub(super) fn busy(&self, request: &Request) -> Option<Arc<AtomicUsize>> {
        if let Operation::Read { handle, .. } = &request.operation {
            return match self.of_handle(*handle)? {
                Handle::Object(object, _) => Some(Arc::clone(&object.busy)),
                Handle::Folder(_) => None,
            };
        }
        match self.tree.kind(request.node)? {
            NodeKind::Object(object) => Some(Arc::clone(&object.busy)),
            NodeKind::Folder { map, .. } => self.tree.busy(map),
            NodeKind::Above(_) => None,
        }
    }

    /// The object of this number.
    pub(super) fn object(&self, node: u64) -> Option<Arc<Object>> {
        match self.tree.kind(node)? {
            NodeKind::Object(object) => Some(object),
            NodeKind::Above(_) | NodeKind::Folder { .. } => None,
        }
    }

    /// Opens the object. Blocks as long as its folder does.
    pub(super) fn open(&self, object: &Object) -> Result<Arc<Opened>, Errno> {
        let opened = object.open(&self.opener);
        if matches!(opened, Err(Errno::STALE | Errno::NOENT)) {
            self.listings.forget_all();
        }
        opened
    }

    /// Has what stands under `name` in the folder ready. Blocks as long as it does.
    pub(super) fn ready_name(&self, node: u64, name: &[u8]) -> Result<(), Errno> {
        self.entry(&self.tree.kind(node).ok_or(Errno::STALE)?, name).map(drop)
    }

    /// What is known of `name` in the folder; `Some(None)`: that there is nothing of that name.
    fn known_entry(&self, kind: &NodeKind, name: &[u8]) -> Option<Option<EntryKind>> {
        match (kind, std::str::from_utf8(name)) {
            (NodeKind::Folder { map, within, .. }, Ok(name)) => self.listings.known_entry(*map, within, name),
            _ => Some(None),
        }
    }

    fn entry(&self, kind: &NodeKind, name: &[u8]) -> Result<Option<EntryKind>, Errno> {
        let NodeKind::Folder { map, within, .. } = kind else { return Ok(None) };
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        let folder = self.tree.folder(*map).ok_or(Errno::STALE)?;
        let entry = self.listings.entry(*map, folder, (within, name));
        entry.map_err(|error| {
            let full = format!("{}/{}", folder.name().trim_end_matches('/'), path_of(within, name));
            self.opener.told.refused("look up", &full, &error)
        })
    }

    fn listing(&self, kind: &NodeKind) -> Result<Option<Arc<Listing>>, Errno> {
        let NodeKind::Folder { map, within, .. } = kind else { return Ok(None) };
        let folder = self.tree.folder(*map).ok_or(Errno::STALE)?;
        let refused = |error: std::io::Error| {
            let name = format!("{}/{within}", folder.name().trim_end_matches('/'));
            self.opener.told.refused("list", &name, &error)
        };
        self.listings.of(*map, folder, within).map(Some).map_err(refused)
    }

    fn look_up(&self, node: u64, kind: Option<NodeKind>, name: &[u8], entry: Option<EntryKind>) -> Answer {
        let Some(kind) = kind else { return Answer::Failed(Errno::STALE) };
        match self.tree.look_up((node, &kind), name, entry) {
            Ok(told) => Answer::of(&EntryAnswer {
                node: told.number,
                entry_seconds: told.entry_seconds,
                attributes_seconds: told.attributes_seconds,
                attributes: told.attributes,
                ..EntryAnswer::default()
            }),
            Err(errno) => Answer::Failed(errno),
        }
    }

    fn attributes(&self, node: u64) -> Answer {
        let Some(kind) = self.tree.kind(node) else { return Answer::Failed(Errno::STALE) };
        Answer::of(&AttributesAnswer {
            seconds: self.tree.attributes_seconds(),
            attributes: self.tree.attributes(node, &kind),
            ..AttributesAnswer::default()
        })
    }

    fn object_to_open(&self, node: u64, flags: u32) -> Result<Arc<Object>, Errno> {
        const ACCESS: u32 = 3;
        match self.tree.kind(node) {
            _ if flags & ACCESS != 0 => Err(Errno::ROFS),
            Some(NodeKind::Object(object)) => Ok(object),
            Some(_) => Err(Errno::ISDIR),
            None => Err(Errno::STALE),
        }
    }

    fn read_folder(&self, folder: &OpenFolder, offset: u64, size: u32) -> Answer {
        match self.listing(&folder.kind) {
            Ok(listing) => {
                let names = || self.tree.names(&folder.kind, listing.as_deref());
                Answer::entries(folder.names.get_or_init(names), offset, size)
            }
            Err(errno) => Answer::Failed(errno),
        }
    }

    fn handle(&self, handle: Handle) -> Answer {
        let flags = match (&handle, self.opener.pages) {
            // Each byte is in memory once, within the budget: the page cache of the kernel would have it a second time.
            (Handle::Object(..), Pages::Objects(_)) => FOPEN_DIRECT_IO,
            // Mappings take the page cache. An inode is one version: what is cached of it stays true.
            (Handle::Object(..), Pages::Kernels) => FOPEN_KEEP_CACHE,
            _ => 0,
        };
        let mut handles = self.handles.lock();
        handles.last += 1;
        let number = handles.last;
        handles.open.insert(number, handle);
        Answer::of(&OpenAnswer { handle: number, flags, backing: 0 })
    }

    fn of_handle(&self, handle: u64) -> Option<Handle> {
        self.handles.lock().open.get(&handle).cloned()
    }

    fn release(&self, handle: u64) -> Answer {
        let closed = self.handles.lock().open.remove(&handle);
        if let Some(Handle::Object(_, opened)) = closed {
            self.recent.keep(opened);
        }
        Answer::done()
    }

    fn read(&self, handle: u64, offset: u64, size: u32) -> Answer {
        let Some(Handle::Object(_, opened)) = self.of_handle(handle) else {
            return Answer::Failed(Errno::BADF);
        };
        match opened.read(offset, size.min(MOST_READ_BYTES) as usize) {
            Ok(bytes) => Answer::Bytes(bytes),
            Err(error) => {
                let errno = self.opener.told.read_failed(&error);
                if errno == Errno::STALE {
                    // Who opens it again finds the new version, and not what was known of the old one.
                    self.listings.forget_all();
                }
                Answer::Failed(errno)
            }
        }
    }
}

/// Agrees with the kernel on what is spoken.
fn begin(asked: &InitRequest) -> Answer {
    if asked.major != MAJOR || asked.minor < LEAST_MINOR {
        return Answer::Failed(Errno::PROTO);
    }
    let wanted =
        init::ASYNC_READ | init::ASYNC_DIO | init::PARALLEL_DIROPS | init::MAX_PAGES | init::INIT_EXT;
    let flags = asked.flags & wanted;
    let is_extended = flags & init::INIT_EXT != 0;
    Answer::of(&InitAnswer {
        major: MAJOR,
        minor: MINOR,
        max_read_ahead: asked.max_read_ahead,
        flags,
        max_background: 64,
        congestion_threshold: 48,
        max_write: PAGE,
        time_granularity_ns: 1,
        max_pages: u16::try_from(MOST_READ_BYTES / PAGE).unwrap_or(u16::MAX),
        flags2: if is_extended { init::DIRECT_IO_ALLOW_MMAP } else { 0 },
        ..InitAnswer::default()
    })
}
