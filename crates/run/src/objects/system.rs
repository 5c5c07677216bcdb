//! The file system as a whole, as the supervisor sees it.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memobj::Cache;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::copies::Copies;
use super::mount::{Mounted, mount};
use super::object::{Object, Opened, Opener};
use super::service::Service;
use super::threads::Threads;
use super::tree::{Map, Mapped, Tree};
use super::wire::ROOT;
use crate::error::RunError;
use crate::history_builder::HistoryBuilder;
use crate::map_target::MapTarget;
use crate::options::{Messages, ObjectAccess, Options};
use crate::pages::Pages;
use crate::say::say;

/// See the module.
pub(crate) struct ObjectFiles {
    root: OwnedFd,
    /// As statx(2) has it: major and minor.
    device: (u32, u32),
    service: Arc<Service>,
}

impl fmt::Debug for ObjectFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectFiles").field("device", &self.device).finish_non_exhaustive()
    }
}

/// The objects among the mapped names.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// Those that are read on demand, as files.
    pub(crate) files: Option<Arc<ObjectFiles>>,
    /// Copies of all, where there can be no such files.
    pub(crate) copies: Copies,
}

impl Objects {
    /// Makes the objects and folders among `guests`, which are without links, files that programs can be led to. Those that
    /// are copied are local paths afterwards.
    pub(crate) fn start(
        guests: &mut [(PathBuf, MapTarget)],
        pages: Pages,
        cache: Option<&Cache>,
        options: &Options,
        history_builder: &Arc<HistoryBuilder>,
    ) -> Result<Self, RunError> {
        if guests.iter().all(|(_, target)| matches!(target, MapTarget::Path(_))) {
            return Ok(Self::default());
        }
        let Some(cache) = cache else {
            let source = std::io::Error::other("a server that lends frames of files has none of them");
            return Err(RunError::System { what: "map names to objects", source });
        };
        let opener = Opener::new(cache.clone(), options.clone(), pages, Arc::clone(history_builder));
        let missing = match options.object_access {
            ObjectAccess::Copies => "they are to be copied".to_owned(),
            ObjectAccess::Auto => match mount() {
                Ok(mounted) => {
                    let files = Some(ObjectFiles::serve(mounted, guests, opener)?);
                    return Ok(Self { files, copies: Copies::default() });
                }
                Err(refused) => {
                    if options.messages == Messages::StandardError {
                        say(&format_args!("objects are copied before the program starts: {refused}"));
                    }
                    refused.to_string()
                }
            },
        };
        Ok(Self { files: None, copies: Copies::make(guests, &opener, options, &missing)? })
    }
}

/// Whether objects can be read on demand by programs here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectsOnDemand {
    /// They can.
    Available,
    /// They are copied before a program starts.
    Missing {
        /// What was refused, and why.
        why: String,
        /// What would help.
        fix: &'static str,
    },
}

/// Finds out whether programs can read objects on demand here, by making a file system of FUSE that nobody uses.
pub fn objects_on_demand() -> ObjectsOnDemand {
    match mount() {
        Ok(_) => ObjectsOnDemand::Available,
        Err(refused) => ObjectsOnDemand::Missing {
            why: refused.to_string(),
            fix: "run it as root, or with CAP_SYS_ADMIN and permission to open /dev/fuse",
        },
    }
}

impl ObjectFiles {
    fn serve(
        mounted: Mounted,
        guests: &[(PathBuf, MapTarget)],
        opener: Opener,
    ) -> Result<Arc<Self>, RunError> {
        let system = |what| move |source| RunError::System { what, source };
        let mut maps = Vec::new();
        for (guest, target) in guests {
            let inode = ROOT + 1 + maps.len() as u64;
            let what = match target {
                MapTarget::Path(_) => continue,
                MapTarget::Folder(folder) => Mapped::Folder(Arc::clone(folder)),
                MapTarget::Object { name, pager, modified } => {
                    let memory = opener.memory(name, Arc::clone(pager)).map_err(system("make an object"))?;
                    Mapped::Object(Arc::new(Object::fixed(inode, guest.clone(), memory, *modified)))
                }
            };
            maps.push(Map { guest: guest.clone(), what, busy: Arc::default() });
        }
        let next = ROOT + 1 + maps.len() as u64;
        let service = Arc::new(Service::new(Tree::new(maps, next), opener));
        Threads::start(Arc::new(mounted.device), Arc::clone(&service))
            .map_err(system("start a thread for objects"))?;
        // Only now: the thread answers.
        let device = device_of(&mounted.root).map_err(|errno| system("ask for a device")(errno.into()));
        Ok(Arc::new(Self { root: mounted.root, device: device?, service }))
    }

    /// A descriptor that names the file or folder of this guest, an absolute path. Blocks as long as a folder above it does that
    /// is one of objects, too.
    pub(crate) fn name(&self, guest: &Path) -> Result<OwnedFd, Errno> {
        let open = |folder: &OwnedFd, name: &Path| {
            rustix::fs::openat(folder, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        };
        let mut here = open(&self.root, Path::new("."))?;
        for name in guest.strip_prefix("/").unwrap_or(guest).components() {
            let name = Path::new(name.as_os_str());
            here = match open(&here, name) {
                Err(Errno::AGAIN) => {
                    self.ready_name(rustix::fs::fstat(&here)?.st_ino, name.as_os_str().as_bytes())?;
                    open(&here, name)?
                }
                found => found?,
            };
        }
        Ok(here)
    }

    /// Whether a file of this device, as stat(2) has it, is one of these.
    pub(crate) fn is_of(&self, device: u64) -> bool {
        (rustix::fs::major(device), rustix::fs::minor(device)) == self.device
    }

    /// Opens the object of this inode, and keeps it open while the answer is kept. Blocks as long as its folder does.
    pub(crate) fn open(&self, inode: u64) -> Result<Arc<Opened>, Errno> {
        self.service.open(&*self.service.object(inode).ok_or(Errno::STALE)?)
    }

    /// Looks up a name in the folder of this inode, so that it is known for a while. Blocks as long as the folder does.
    ///
    /// Threads of this process do that before they name something in it: the kernel would have them wait for this process, where
    /// nothing ends them, not even its end.
    pub(crate) fn ready_name(&self, inode: u64, name: &[u8]) -> Result<(), Errno> {
        self.service.ready_name(inode, name)
    }

    /// The object behind `path`, a link of /proc to a descriptor, if it is one of these and open. Asks no server.
    pub(crate) fn behind(&self, path: &Path) -> Behind {
        let asked = rustix::fs::statx(
            rustix::fs::CWD,
            path,
            AtFlags::STATX_DONT_SYNC,
            StatxFlags::TYPE | StatxFlags::INO,
        );
        match asked {
            Ok(found) if (found.stx_dev_major, found.stx_dev_minor) == self.device => {
                let object = self.service.object(found.stx_ino);
                Behind::Object(object.and_then(|object| object.opened()))
            }
            _ => Behind::Other,
        }
    }

    /// Opens the file of this object for reading.
    pub(crate) fn open_file(&self, opened: &Opened) -> Result<OwnedFd, Errno> {
        let below = opened.path.strip_prefix("/").unwrap_or(&opened.path);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, below, flags, Mode::empty())?;
        // By its name there can be another version by now.
        match rustix::fs::fstat(&file)?.st_ino == opened.inode {
            true => Ok(file),
            false => Err(Errno::STALE),
        }
    }

    /// As stat(2) has it.
    pub(crate) fn device(&self) -> u64 {
        rustix::fs::makedev(self.device.0, self.device.1)
    }
}

/// What is behind a descriptor of a program.
#[derive(Debug)]
pub(crate) enum Behind {
    /// A file of another file system.
    Other,
    /// One of these: its object, if it is open.
    Object(Option<Arc<Opened>>),
}

fn device_of(root: &OwnedFd) -> Result<(u32, u32), Errno> {
    let found = rustix::fs::statx(root.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok((found.stx_dev_major, found.stx_dev_minor))
}
