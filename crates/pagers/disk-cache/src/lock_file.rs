//! A lock of processes: flock(2) on a file of the directory.
//!
//! The kernel releases it when its owner dies, however that happens.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock, fstat};
use rustix::io::Errno;

use crate::directory::Directory;

/// Threads of one handle exclude each other by the mutex, since flock does not.
#[derive(Debug)]
pub(crate) struct LockFile {
    directory: Arc<Directory>,
    name: &'static str,
    file: Mutex<File>,
}

/// Unlocks when it is dropped.
#[derive(Debug)]
pub(crate) struct Locked<'a>(MutexGuard<'a, File>);

impl Deref for Locked<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = flock(&*self.0, FlockOperation::Unlock);
    }
}

impl LockFile {
    pub(crate) fn open(directory: &Arc<Directory>, name: &'static str) -> io::Result<Self> {
        let file = Mutex::new(directory.open_or_make(name)?);
        Ok(Self { directory: Arc::clone(directory), name, file })
    }

    /// Waits until nobody else has it.
    pub(crate) fn lock(&self) -> io::Result<Locked<'_>> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let locked = self.locked(file, FlockOperation::LockExclusive)?;
        locked.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// `None` if somebody else has it.
    pub(crate) fn try_lock(&self) -> io::Result<Option<Locked<'_>>> {
        let file = match self.file.try_lock() {
            Ok(file) => file,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return Ok(None),
        };
        self.locked(file, FlockOperation::NonBlockingLockExclusive)
    }

    fn locked<'a>(
        &self,
        mut file: MutexGuard<'a, File>,
        operation: FlockOperation,
    ) -> io::Result<Option<Locked<'a>>> {
        loop {
            match flock(&*file, operation) {
                Ok(()) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Somebody may have deleted it: then others lock the next file of this name.
            if fstat(&*file)?.st_nlink > 0 {
                return Ok(Some(Locked(file)));
            }
            *file = self.directory.open_or_make(self.name)?;
        }
    }
}
