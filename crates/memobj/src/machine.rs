//! What a cache has of the machine: userfaultfds, and the folder of huge frame files.

use std::io;
use std::sync::{Arc, OnceLock};

use memobj_linux::huge_folder::HugeFolder;
use memobj_linux::uffd::{Announce, Userfaultfd};

/// Made when first needed, and shared by all objects of a cache. Asked by who maps an object, and by the threads that read
/// faults.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Faults that a thread of this cache reads; `None` where the kernel gives no userfaultfd.
    pub(crate) queued: Result<Arc<Userfaultfd>, io::Error>,
    signalled: OnceLock<Arc<Userfaultfd>>,
    huge_folder: OnceLock<Option<Arc<HugeFolder>>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let queued = Userfaultfd::open(Announce::Queued).map(Arc::new);
        Self { queued, signalled: OnceLock::new(), huge_folder: OnceLock::new() }
    }

    /// The userfaultfd for faults announced by `announce`.
    pub(crate) fn uffd(&self, announce: Announce) -> io::Result<Arc<Userfaultfd>> {
        if announce == Announce::Queued {
            return match &self.queued {
                Ok(uffd) => Ok(Arc::clone(uffd)),
                Err(error) => Err(error
                    .raw_os_error()
                    .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)),
            };
        }
        if let Some(uffd) = self.signalled.get() {
            return Ok(Arc::clone(uffd));
        }
        let new = Arc::new(Userfaultfd::open(Announce::Signalled)?);
        Ok(Arc::clone(self.signalled.get_or_init(|| new)))
    }

    /// Where frame files of 2 MiB pages are made, if this machine can have them.
    pub(crate) fn huge_folder(&self) -> Option<&Arc<HugeFolder>> {
        let told = matches!(&self.queued, Ok(uffd) if uffd.features().minor_faults);
        let make = || told.then(|| HugeFolder::new().ok().map(Arc::new)).flatten();
        self.huge_folder.get_or_init(make).as_ref()
    }
}
