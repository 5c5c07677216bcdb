//! The file system as a whole, as the supervisor sees it.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memobj::Cache;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::mount::{NotMounted, mount};
use super::object::{Object, Opened, Opener};
use super::service::Service;
use super::target::MapTarget;
use super::threads::Threads;
use super::tree::{Map, Mapped, Tree};
use super::wire::ROOT;
use crate::error::RunError;
use crate::history_builder::HistoryBuilder;
use crate::options::Options;

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

impl ObjectFiles {
    /// Serves the objects and folders among `names`, whose guests are without links. `None`: there are none.
    pub(crate) fn start(
        names: &[(PathBuf, MapTarget)],
        cache: &Cache,
        options: &Options,
        history_builder: &Arc<HistoryBuilder>,
    ) -> Result<Option<Arc<Self>>, RunError> {
        if names.iter().all(|(_, target)| matches!(target, MapTarget::Path(_))) {
            return Ok(None);
        }
        let opener = Opener::new(cache.clone(), options.clone(), Arc::clone(history_builder));
        let system = |what| move |source| RunError::System { what, source };
        let mut maps = Vec::new();
        for (guest, target) in names {
            let inode = ROOT + 1 + maps.len() as u64;
            let what = match target {
                MapTarget::Path(_) => continue,
                MapTarget::Folder(folder) => Mapped::Folder(Arc::clone(folder)),
                MapTarget::Object { name, pager, modified } => {
                    let memory = opener.memory(name, Arc::clone(pager)).map_err(system("make an object"))?;
                    Mapped::Object(Arc::new(Object::fixed(inode, guest.clone(), memory, *modified)))
                }
            };
            maps.push(Map { guest: guest.clone(), what });
        }
        let next = ROOT + 1 + maps.len() as u64;
        let service = Arc::new(Service::new(Tree::new(maps, next), opener));
        let mounted = mount().map_err(|NotMounted { what, source }| RunError::System { what, source })?;
        Threads::start(Arc::new(mounted.device), Arc::clone(&service))
            .map_err(system("start a thread for objects"))?;
        let device = device_of(&mounted.root).map_err(|errno| system("ask for a device")(errno.into()))?;
        Ok(Some(Arc::new(Self { root: mounted.root, device, service })))
    }

    /// A descriptor that names the file or folder of this guest, an absolute path.
    pub(crate) fn name(&self, guest: &Path) -> Result<OwnedFd, Errno> {
        let below = guest.strip_prefix("/").unwrap_or(guest);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        rustix::fs::openat(&self.root, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// Whether a file of this device, as stat(2) has it, is one of these.
    pub(crate) fn is_of(&self, device: u64) -> bool {
        (rustix::fs::major(device), rustix::fs::minor(device)) == self.device
    }

    /// Opens the object of this inode, and keeps it open while the answer is kept. Blocks as long as its folder does.
    pub(crate) fn open(&self, inode: u64) -> Result<Arc<Opened>, Errno> {
        self.service.open(&*self.service.object(inode).ok_or(Errno::STALE)?)
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
