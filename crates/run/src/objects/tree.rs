//! The tree that the file system shows: the mapped names with all folders above them, so that the path of a file in it is the
//! name by which programs know it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use memobj_linux::locks::{Rank, RankedMutex};
use rustix::io::Errno;

use super::listing::{Listing, path_of};
use super::object::{Object, Seen};
use super::wire::{Attributes, ROOT};
use crate::map_target::{EntryKind, ObjectFolder};

const FOLDER_MODE: u32 = 0o40_555;
const OBJECT_MODE: u32 = 0o100_444;
/// What stat(2) says is good to read at once.
const BLOCK_BYTES: u32 = 128 << 10;
/// How long what never changes is believed.
const LONG_SECONDS: u64 = 1 << 30;

/// A mapped name.
#[derive(Clone)]
pub(super) struct Map {
    pub(super) guest: PathBuf,
    pub(super) what: Mapped,
    /// Requests that wait for lists of its folders.
    pub(super) busy: Arc<AtomicUsize>,
}

/// What it stands for.
#[derive(Clone)]
pub(super) enum Mapped {
    Object(Arc<Object>),
    Folder(Arc<dyn ObjectFolder>),
}

/// See the module.
pub(super) struct Tree {
    maps: Vec<Map>,
    begun: SystemTime,
    owner: (u32, u32),
    nodes: RankedMutex<Nodes>,
}

#[derive(Default)]
struct Nodes {
    by_number: HashMap<u64, Node>,
    by_name: HashMap<(u64, Vec<u8>), u64>,
    next: u64,
}

struct Node {
    kind: NodeKind,
    parent: u64,
    name: Vec<u8>,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
}

/// What a node is.
#[derive(Clone)]
pub(super) enum NodeKind {
    /// A folder above mapped names.
    Above(PathBuf),
    /// A folder of objects: which map, and the path in it.
    Folder {
        map: usize,
        within: String,
        path: PathBuf,
    },
    Object(Arc<Object>),
}

/// What an entry of the tree is to be.
enum Meant {
    Above,
    Folder { map: usize, within: String },
    Fixed(Arc<Object>),
    Object { map: usize, within: String, seen: Seen },
}

/// A node that the kernel is told of.
pub(super) struct Told {
    pub(super) number: u64,
    pub(super) attributes: Attributes,
    /// How long the name leads there.
    pub(super) entry_seconds: u64,
    pub(super) attributes_seconds: u64,
}

impl Tree {
    /// `next` is the first number that no object of `maps` has.
    pub(super) fn new(maps: Vec<Map>, next: u64) -> Self {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let root =
            Node { kind: NodeKind::Above("/".into()), parent: ROOT, name: Vec::new(), lookups: u64::MAX };
        let nodes = Nodes { by_number: HashMap::from([(ROOT, root)]), next, ..Nodes::default() };
        let nodes = RankedMutex::new(Rank::ObjectNodes, nodes);
        Self { maps, begun: SystemTime::now(), owner, nodes }
    }

    pub(super) fn kind(&self, number: u64) -> Option<NodeKind> {
        self.nodes.lock().by_number.get(&number).map(|node| node.kind.clone())
    }

    /// The folder of objects of this map.
    pub(super) fn folder(&self, map: usize) -> Option<&Arc<dyn ObjectFolder>> {
        match &self.maps.get(map)?.what {
            Mapped::Folder(folder) => Some(folder),
            Mapped::Object(_) => None,
        }
    }

    /// Counts the requests that wait for lists of this map.
    pub(super) fn busy(&self, map: usize) -> Option<Arc<AtomicUsize>> {
        self.maps.get(map).map(|map| Arc::clone(&map.busy))
    }

    /// Whether the answer for `name` in `parent` is told by a folder of objects.
    pub(super) fn needs_folder(&self, parent: &NodeKind, name: &[u8]) -> bool {
        match parent {
            NodeKind::Folder { path, .. } => self.mapped_at(&path.join(OsStr::from_bytes(name))).is_none(),
            NodeKind::Above(_) | NodeKind::Object(_) => false,
        }
    }

    /// The node of `name` in `parent`, which the kernel will be told of. `entry` is what the folder
    /// of objects tells of it, if `parent` is one.
    pub(super) fn look_up(
        &self,
        parent: (u64, &NodeKind),
        name: &[u8],
        entry: Option<EntryKind>,
    ) -> Result<Told, Errno> {
        let (number, kind) = parent;
        let above = match kind {
            NodeKind::Above(path) | NodeKind::Folder { path, .. } => path,
            NodeKind::Object(_) => return Err(Errno::NOTDIR),
        };
        let path = above.join(OsStr::from_bytes(name));
        let meant = self.meant(kind, name, &path, entry).ok_or(Errno::NOENT)?;
        let may_change = matches!(meant, Meant::Object { .. }) || matches!(kind, NodeKind::Folder { .. });
        let (number, kind) = self.node(number, name, path, meant)?;
        Ok(Told {
            number,
            attributes: self.attributes(number, &kind),
            entry_seconds: if may_change { 0 } else { LONG_SECONDS },
            attributes_seconds: LONG_SECONDS,
        })
    }

    fn mapped_at(&self, path: &Path) -> Option<usize> {
        self.maps.iter().rposition(|map| map.guest == path)
    }

    fn are_below(&self, path: &Path) -> bool {
        self.maps.iter().any(|map| map.guest.starts_with(path))
    }

    fn meant(&self, parent: &NodeKind, name: &[u8], path: &Path, entry: Option<EntryKind>) -> Option<Meant> {
        if let Some(map) = self.mapped_at(path) {
            return Some(match &self.maps.get(map)?.what {
                Mapped::Object(object) => Meant::Fixed(Arc::clone(object)),
                Mapped::Folder(_) => Meant::Folder { map, within: String::new() },
            });
        }
        if let NodeKind::Folder { map, within, .. } = parent
            && let Ok(name) = std::str::from_utf8(name)
            && let Some(kind) = entry
        {
            let within = path_of(within, name);
            return match kind {
                EntryKind::Folder => Some(Meant::Folder { map: *map, within }),
                EntryKind::Object { length, modified, version } => {
                    let seen = Seen { length, modified, version };
                    Some(Meant::Object { map: *map, within, seen })
                }
                EntryKind::NameOnly => None,
            };
        }
        self.are_below(path).then_some(Meant::Above)
    }

    /// The node that is meant: the one that has the name, if it is the same version of the same thing; else a new one.
    fn node(&self, parent: u64, name: &[u8], path: PathBuf, meant: Meant) -> Result<(u64, NodeKind), Errno> {
        let mut nodes = self.nodes.lock();
        let key = (parent, name.to_vec());
        let known = nodes.by_name.get(&key).copied();
        let known = known.and_then(|number| Some((number, nodes.by_number.get_mut(&number)?)));
        if let Some((number, node)) = known
            && node.kind.is(&meant)
        {
            node.lookups = node.lookups.saturating_add(1);
            return Ok((number, node.kind.clone()));
        }
        let (number, kind) = match meant {
            Meant::Fixed(object) => (object.inode, NodeKind::Object(object)),
            Meant::Above => (nodes.number(), NodeKind::Above(path)),
            Meant::Folder { map, within } => (nodes.number(), NodeKind::Folder { map, within, path }),
            Meant::Object { map, within, seen } => {
                let folder = self.folder(map).ok_or(Errno::STALE)?;
                let number = nodes.number();
                let object = Object::of_folder(number, path, seen, folder, within);
                (number, NodeKind::Object(Arc::new(object)))
            }
        };
        let node = Node { kind: kind.clone(), parent, name: name.to_vec(), lookups: 1 };
        nodes.by_number.insert(number, node);
        nodes.by_name.insert(key, number);
        Ok((number, kind))
    }

    /// The kernel has forgotten so many lookups of the node.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.by_number.get_mut(&number).filter(|_| number != ROOT) else { return };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups > 0 {
            return;
        }
        let gone = nodes.by_number.remove(&number);
        if let Some(node) = &gone {
            let key = (node.parent, node.name.clone());
            if nodes.by_name.get(&key) == Some(&number) {
                nodes.by_name.remove(&key);
            }
        }
        drop(nodes);
        // What the node had is dropped without the lock.
        drop(gone);
    }

    /// What stat(2) says of the node.
    pub(super) fn attributes(&self, number: u64, kind: &NodeKind) -> Attributes {
        let (mode, links, size, modified) = match kind {
            NodeKind::Object(object) => (OBJECT_MODE, 1, object.length, object.modified),
            NodeKind::Above(_) | NodeKind::Folder { .. } => (FOLDER_MODE, 2, 0, self.begun),
        };
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Attributes {
            inode: number,
            size,
            blocks: size.div_ceil(512),
            seconds: [modified.as_secs(); 3],
            nanoseconds: [modified.subsec_nanos(); 3],
            mode,
            links,
            user: self.owner.0,
            group: self.owner.1,
            device: 0,
            block_bytes: BLOCK_BYTES,
            flags: 0,
        }
    }

    pub(super) fn attributes_seconds(&self) -> u64 {
        LONG_SECONDS
    }

    /// The names in a folder, and the bits of their modes. `listing` is that of the folder, if it has one.
    pub(super) fn names(&self, kind: &NodeKind, listing: Option<&Listing>) -> Vec<(Vec<u8>, u32)> {
        let (NodeKind::Above(path) | NodeKind::Folder { path, .. }) = kind else { return Vec::new() };
        let mut names: Vec<(Vec<u8>, u32)> = vec![(b".".into(), FOLDER_MODE), (b"..".into(), FOLDER_MODE)];
        let listed =
            listing.into_iter().flatten().map(|(name, kind)| (name.as_bytes().to_vec(), mode_of(kind)));
        names.extend(listed.filter(|(name, _)| !self.has_name_below(path, name)));
        let mut mapped: Vec<_> = self.maps.iter().filter_map(|map| below(path, map)).collect();
        // Of a name that is there twice the last counts; one that leads on is a folder.
        mapped.reverse();
        mapped.sort_by(|one, other| one.0.cmp(&other.0));
        mapped.dedup_by(|one, other| one.0 == other.0);
        names.extend(mapped);
        names
    }

    fn has_name_below(&self, path: &Path, name: &[u8]) -> bool {
        self.maps.iter().filter_map(|map| below(path, map)).any(|(mapped, _)| mapped == name)
    }
}

/// The name in `path` that leads to the map, and its mode.
fn below(path: &Path, map: &Map) -> Option<(Vec<u8>, u32)> {
    let mut rest = map.guest.strip_prefix(path).ok()?.components();
    let name = rest.next()?.as_os_str().as_bytes().to_vec();
    let is_object = rest.next().is_none() && matches!(map.what, Mapped::Object(_));
    Some((name, if is_object { OBJECT_MODE } else { FOLDER_MODE }))
}

fn mode_of(kind: &EntryKind) -> u32 {
    match kind {
        EntryKind::Folder => FOLDER_MODE,
        EntryKind::Object { .. } | EntryKind::NameOnly => OBJECT_MODE,
    }
}

impl Nodes {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

impl NodeKind {
    fn is(&self, meant: &Meant) -> bool {
        match (self, meant) {
            (Self::Above(_), Meant::Above) => true,
            (Self::Folder { map, within, .. }, Meant::Folder { map: other, within: path }) => {
                map == other && within == path
            }
            (Self::Object(object), Meant::Fixed(other)) => Arc::ptr_eq(object, other),
            (Self::Object(object), Meant::Object { seen, .. }) => object.is_version(seen),
            _ => false,
        }
    }
}
