//! Where there is no file system of FUSE: objects are copied to temporary files before the program starts.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memobj::{Delivery, MapOptions, MemoryObject};
use tempfile::TempDir;

use super::listing::{can_be_a_name, path_of};
use super::object::Opener;
use crate::error::RunError;
use crate::map_target::{EntryKind, LookUp, MapTarget, ObjectFolder};
use crate::options::Options;

/// What is copied at once.
const PIECE_BYTES: u64 = 1 << 20;
/// What a file or a folder takes at least, so that there is a bound on how many are made.
const ENTRY_BYTES: u64 = 4096;
/// Folders in folders.
const MOST_DEPTH: usize = 64;

/// The copies of a run; they are gone when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Of single objects: files without names.
    files: Vec<File>,
    /// Of folders.
    folders: Vec<TempDir>,
}

/// Copies objects while they fit.
struct Copier<'a> {
    opener: &'a Opener,
    options: &'a Options,
    /// Why there is no file system.
    missing: &'a str,
    left_bytes: u64,
}

impl Copies {
    /// Puts a local path in the place of each object and each folder in `guests`. Blocks until all are copied.
    ///
    /// `missing` is what keeps them from being read on demand.
    pub(super) fn make(
        guests: &mut [(PathBuf, MapTarget)],
        opener: &Opener,
        options: &Options,
        missing: &str,
    ) -> Result<Self, RunError> {
        let mut copier = Copier { opener, options, missing, left_bytes: options.budget_bytes };
        let mut copies = Self::default();
        for (_, target) in guests {
            let path = match target {
                MapTarget::Path(_) => continue,
                MapTarget::Object { name, pager, .. } => {
                    let failed = |source| copy_failed(name, source);
                    let memory = opener.memory(name, Arc::clone(pager)).map_err(failed)?;
                    let file = tempfile::tempfile().map_err(failed)?;
                    copier.copy(&memory, &file)?;
                    // So that an open for writing is refused to ordinary users by the kernel as well.
                    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o444))
                        .map_err(|errno| failed(errno.into()))?;
                    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                    copies.files.push(file);
                    path.into()
                }
                MapTarget::Folder(folder) => {
                    let failed = |source| copy_failed(&folder.name(), source);
                    let copy = TempDir::with_prefix("memobj-").map_err(failed)?;
                    copier.copy_folder(&**folder, "", copy.path(), MOST_DEPTH)?;
                    let path = copy.path().to_owned();
                    copies.folders.push(copy);
                    path
                }
            };
            *target = MapTarget::Path(path);
        }
        Ok(copies)
    }
}

impl Copier<'_> {
    fn copy_folder(
        &mut self,
        folder: &dyn ObjectFolder,
        within: &str,
        to: &Path,
        depth: usize,
    ) -> Result<(), RunError> {
        let name = || format!("{}/{within}", folder.name().trim_end_matches('/'));
        let failed = |source| copy_failed(&name(), source);
        if depth == 0 {
            return Err(failed(io::Error::other("folders are too deep")));
        }
        let entries = folder.entries(within).map_err(failed)?;
        // A name such as `../x` would lead out of the copy.
        for entry in entries.into_iter().filter(|entry| can_be_a_name(&entry.name)) {
            let path = to.join(&entry.name);
            let below = path_of(within, &entry.name);
            match entry.kind {
                EntryKind::Folder => {
                    self.take_room(&below, ENTRY_BYTES)?;
                    DirBuilder::new().mode(0o755).create(&path).map_err(failed)?;
                    self.copy_folder(folder, &below, &path, depth - 1)?;
                }
                EntryKind::Object { .. } | EntryKind::NameOnly => {
                    self.copy_object(folder, &below, entry.kind, &path)?;
                }
            }
        }
        Ok(())
    }

    /// Copies the version of the object that is current now; `kind` is what the list says of it.
    fn copy_object(
        &mut self,
        folder: &dyn ObjectFolder,
        within: &str,
        kind: EntryKind,
        to: &Path,
    ) -> Result<(), RunError> {
        let failed =
            |source| copy_failed(&format!("{}/{within}", folder.name().trim_end_matches('/')), source);
        let kind = match kind {
            EntryKind::NameOnly => match folder.look_up(within).map_err(failed)? {
                LookUp::Found(kind) => kind,
                LookUp::ByList => kind,
            },
            kind => kind,
        };
        let opened = folder.open(within).map_err(failed)?;
        let memory = self.opener.memory(&opened.name, opened.pager).map_err(failed)?;
        self.take_room(memory.name(), ENTRY_BYTES)?;
        let new = File::options().write(true).create_new(true).mode(0o444).open(to);
        let file = new.map_err(failed)?;
        self.copy(&memory, &file)?;
        match kind {
            EntryKind::Object { modified, .. } => file.set_modified(modified).map_err(failed),
            _ => Ok(()),
        }
    }

    /// Counts bytes of a copy, or refuses it.
    fn take_room(&mut self, object: &str, length: u64) -> Result<(), RunError> {
        let Some(left) = self.left_bytes.checked_sub(length) else {
            return Err(RunError::NoRoomToCopy {
                object: object.to_owned(),
                length_bytes: length,
                budget_bytes: self.options.budget_bytes,
                missing: self.missing.to_owned(),
            });
        };
        self.left_bytes = left;
        Ok(())
    }

    fn copy(&mut self, memory: &MemoryObject, file: &File) -> Result<(), RunError> {
        let (name, length) = (memory.name(), memory.len());
        self.take_room(name, length)?;
        if length == 0 {
            return Ok(());
        }
        let failed = |error: &dyn std::error::Error| copy_failed(name, io::Error::other(error.to_string()));
        let options = MapOptions::new().delivery(Delivery::PinOnly);
        let mapping = memory.map_all(options).map_err(|error| failed(&error))?;
        let mut buffer = vec![0; usize::try_from(PIECE_BYTES.min(length)).unwrap_or(0)];
        for start in (0..length).step_by(buffer.len().max(1)) {
            let end = length.min(start + PIECE_BYTES);
            let piece = buffer.get_mut(..usize::try_from(end - start).unwrap_or(0)).unwrap_or_default();
            mapping.read_at(start, piece).map_err(|error| failed(&error))?;
            file.write_all_at(piece, start).map_err(|error| failed(&error))?;
            if let Some(told) = &self.options.copying {
                told.tell(name, end, length);
            }
        }
        Ok(())
    }
}

fn copy_failed(object: &str, source: io::Error) -> RunError {
    RunError::Copy { object: object.to_owned(), source }
}
