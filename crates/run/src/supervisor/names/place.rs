//! Mapped names, and places in the tree that programs see.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::helper::Helper;
use crate::map_target::MapTarget;
use crate::objects::{ObjectFiles, Opened};
use crate::options::NameMap;

/// A descriptor that names a file, whatever may be done to it.
const NAMES_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A file, or a folder that is there only because a mapped name is below it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its name as programs see it, without links. Of what has no name it is something that no mapped name is.
    pub(super) at: PathBuf,
    /// `None`: the file system has no such folder.
    pub(super) file: Option<Arc<Named>>,
}

/// An open file of any kind, links among them.
#[derive(Debug)]
pub(super) struct Named {
    descriptor: OwnedFd,
    pub(super) stat: Stat,
}

/// What is done about mounts of the kernel's on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mounts {
    Crossed,
    Refused,
}

/// A mapped name.
#[derive(Debug)]
struct Mount {
    guest: PathBuf,
    /// The file or folder that it stands for, held as a mount holds it.
    object: Arc<Named>,
    /// What the kernel calls that.
    real: PathBuf,
    writing: Writing,
}

/// Whether what is mapped may be changed, as far as it is up to names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writing {
    /// The kernel decides.
    Kernels,
    /// It is a copy of an object.
    Refused,
}

/// The mapped names of a run.
#[derive(Debug)]
pub(crate) struct Names {
    mounts: Vec<Mount>,
    objects: Option<Arc<ObjectFiles>>,
    pub(crate) helper: Helper,
}

/// The mapped names without links.
pub(crate) fn guests(maps: &[NameMap]) -> Vec<(PathBuf, MapTarget)> {
    maps.iter().map(|map| (without_links(&map.guest), map.target.clone())).collect()
}

impl Names {
    /// Opens what the names of `maps`, without links in `guests`, stand for. `objects` has those that are no local files.
    pub(crate) fn new(
        guests: &[(PathBuf, MapTarget)],
        maps: &[NameMap],
        objects: Option<Arc<ObjectFiles>>,
    ) -> io::Result<Self> {
        let mount = |((guest, target), map): (&(PathBuf, MapTarget), &NameMap)| {
            let object = match (target, &objects) {
                (MapTarget::Path(path), _) => Named::open(path)?,
                (_, Some(files)) => Named::of(files.name(guest)?)?,
                (_, None) => return Err(io::ErrorKind::Unsupported.into()),
            };
            let is_copy = matches!(target, MapTarget::Path(_)) && !matches!(map.target, MapTarget::Path(_));
            let writing = if is_copy { Writing::Refused } else { Writing::Kernels };
            let real = object.name();
            Ok(Mount { guest: guest.clone(), object: Arc::new(object), real, writing })
        };
        let mounts = guests.iter().zip(maps).map(mount).collect::<io::Result<_>>()?;
        Ok(Self { mounts, objects, helper: Helper::default() })
    }

    /// The files that are objects, if there are any.
    pub(crate) fn objects(&self) -> Option<&Arc<ObjectFiles>> {
        self.objects.as_ref()
    }

    /// What `name` is in the folder, a link itself if it is one. Blocks as long as the file system does.
    pub(super) fn in_folder(&self, folder: &Named, name: &[u8], mounts: Mounts) -> Result<Named, Errno> {
        let found = Named::in_folder(folder, name, mounts);
        match (&self.objects, found) {
            (Some(objects), Err(Errno::AGAIN)) if objects.is_of(folder.stat.st_dev) => {
                // Its server, which is this process, does not wait for itself.
                objects.ready_name(folder.stat.st_ino, name)?;
                Named::in_folder(folder, name, mounts)
            }
            (_, found) => found,
        }
    }

    /// Readies the file so that an open does not block. If it is an object, that is open while the answer is kept.
    pub(super) fn ready_to_open(&self, file: &Named) -> Result<Option<Arc<Opened>>, Errno> {
        let Some(objects) = self.objects.as_ref().filter(|objects| objects.is_of(file.stat.st_dev)) else {
            return Ok(None);
        };
        match file.kind() {
            // It is listed when it is read, by a thread of the program.
            FileType::Directory => Ok(None),
            _ => objects.open(file.stat.st_ino).map(Some),
        }
    }

    /// Whether the file or folder is one of objects.
    pub(super) fn has_objects(&self, file: &Named) -> bool {
        self.objects.as_ref().is_some_and(|objects| objects.is_of(file.stat.st_dev))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// What is mapped at this name itself. Of a name that is mapped twice the last counts.
    pub(super) fn mapped_at(&self, at: &Path) -> Option<Place> {
        let mount = self.mounts.iter().rev().find(|mount| mount.guest == at)?;
        Some(Place { at: at.to_owned(), file: Some(Arc::clone(&mount.object)) })
    }

    /// Whether a mapped name is below this one.
    pub(super) fn are_below(&self, at: &Path) -> bool {
        self.mounts.iter().any(|mount| mount.guest != at && mount.guest.starts_with(at))
    }

    /// Whether what is at this name must not be changed.
    pub(super) fn refuse_changes(&self, at: &Path) -> bool {
        let above = self.above(at);
        let mount = self.mounts.iter().rev().find(|mount| Some(mount.guest.as_path()) == above);
        mount.is_some_and(|mount| mount.writing == Writing::Refused)
    }

    /// The mapped name that `at` is or is below.
    pub(super) fn above(&self, at: &Path) -> Option<&Path> {
        let guests = self.mounts.iter().map(|mount| mount.guest.as_path());
        guests.filter(|guest| at.starts_with(guest)).max_by_key(|guest| guest.components().count())
    }

    /// Where absolute names begin.
    pub(super) fn root(&self) -> io::Result<Place> {
        match self.mapped_at(Path::new("/")) {
            Some(place) => Ok(place),
            None => Ok(Place { at: "/".into(), file: Some(Arc::new(Named::open(Path::new("/"))?)) }),
        }
    }

    /// The place of an open file by the name that it has below a mapped one: programs have come to it that way.
    pub(super) fn seen_by_programs(&self, file: Named) -> Place {
        let real = file.name();
        let below =
            self.mounts.iter().filter_map(|mount| Some((mount, real.strip_prefix(&mount.real).ok()?)));
        let at = match below.min_by_key(|(_, rest)| rest.components().count()) {
            Some((mount, rest)) if rest.as_os_str().is_empty() => mount.guest.clone(),
            Some((mount, rest)) => mount.guest.join(rest),
            None => real,
        };
        Place { at, file: Some(Arc::new(file)) }
    }
}

impl Place {
    /// Whether names can be looked up in it.
    pub(super) fn is_folder(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.kind() == FileType::Directory)
    }

    /// The place of an open file by its own name.
    pub(super) fn of(file: Named) -> Self {
        Self { at: file.name(), file: Some(Arc::new(file)) }
    }
}

impl Named {
    /// What `path` names for this process, links followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::of(rustix::fs::open(path, NAMES_ONLY, Mode::empty())?)?)
    }

    /// What `name` is in the folder, a link itself if it is one.
    pub(super) fn in_folder(folder: &Named, name: &[u8], mounts: Mounts) -> Result<Self, Errno> {
        let flags = NAMES_ONLY | OFlags::NOFOLLOW;
        Self::of(match mounts {
            Mounts::Crossed => rustix::fs::openat(&folder.descriptor, name, flags, Mode::empty())?,
            Mounts::Refused => {
                let ways = ResolveFlags::NO_XDEV;
                rustix::fs::openat2(&folder.descriptor, name, flags, Mode::empty(), ways)?
            }
        })
    }

    /// As [`in_folder`](Self::in_folder), but follows a link by the kernel.
    pub(super) fn behind_link(folder: &Named, name: &[u8]) -> Result<Self, Errno> {
        Self::of(rustix::fs::openat(&folder.descriptor, name, NAMES_ONLY, Mode::empty())?)
    }

    fn of(descriptor: OwnedFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&descriptor)?;
        Ok(Self { descriptor, stat })
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// The mount that it was found on.
    pub(super) fn mount(&self) -> Result<u64, Errno> {
        let (flags, mask) = (AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
        Ok(rustix::fs::statx(&self.descriptor, "", flags, mask)?.stx_mnt_id)
    }

    /// What the link says.
    pub(super) fn link(&self) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(&self.descriptor, "", Vec::new())?.into_bytes())
    }

    /// The name that the kernel has for it.
    pub(super) fn name(&self) -> PathBuf {
        let link = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        std::fs::read_link(link).unwrap_or_default()
    }
}

impl AsFd for Named {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The name without links, `.` and `..`, as far as it is there: what mount(2) makes of it.
fn without_links(path: &Path) -> PathBuf {
    if let Ok(whole) = std::fs::canonicalize(path) {
        return whole;
    }
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => without_links(folder).join(name),
        // It ends with `..`: what is above what is not there.
        (Some(folder), None) => without_links(folder).parent().map_or("/".into(), Path::to_owned),
        (None, _) => path.to_owned(),
    }
}
