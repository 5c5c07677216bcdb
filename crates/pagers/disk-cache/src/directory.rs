//! The directory: opened once, and everything in it by names relative to it.
//!
//! ```text
//!   usage          bytes in use                    tmp/       blocks that are being written
//!   turn           lock of who evicts              removed/   what is to be deleted, and is counted until then
//!   aa/<62 digits>/<number>                        blocks
//! ```
//!
//! Folders are of mode 0700 and files of mode 0600.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, linkat, mkdirat, open, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

/// Blocks that are being written.
pub(crate) const TEMPORARY: &str = "tmp";
/// What is to be deleted.
pub(crate) const REMOVED: &str = "removed";

#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Makes it if it is not there. `PermissionDenied`: it belongs to another user, or others may write to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let root = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        check(path, &fstat(&root)?)?;
        let directory = Self { root, path: path.to_owned() };
        directory.make_folder(TEMPORARY)?;
        directory.make_folder(REMOVED)?;
        Ok(directory)
    }

    /// Where it was when it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does nothing if it is there.
    pub(crate) fn make_folder(&self, name: &str) -> io::Result<()> {
        match mkdirat(&self.root, name, Mode::RWXU) {
            Err(Errno::EXIST) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file to read it. Never blocks on what is no file.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDONLY | OFlags::NONBLOCK)
    }

    /// Opens a file to read and write it, and makes it if it is not there.
    pub(crate) fn open_or_make(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDWR | OFlags::CREATE)
    }

    /// Makes a file. `AlreadyExists`: it is there.
    pub(crate) fn make(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.root, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    pub(crate) fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Gives a file a second name. `AlreadyExists`: something has this name.
    pub(crate) fn link(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(linkat(&self.root, from, &self.root, to, AtFlags::empty())?)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.root, from, &self.root, to)?)
    }

    pub(crate) fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.root, name, AtFlags::empty())?)
    }

    /// Removes a folder that is empty; otherwise it stays.
    pub(crate) fn remove_if_empty(&self, name: &str) {
        let _ = unlinkat(&self.root, name, AtFlags::REMOVEDIR);
    }

    /// Calls `each` with every name in `folder`, but for those that are no UTF-8: they are not of this crate. A folder that is
    /// not there is empty.
    pub(crate) fn list(&self, folder: &str, mut each: impl FnMut(&str)) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match openat(&self.root, folder, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            opened => opened?,
        };
        let mut entries = Dir::new(opened)?;
        while let Some(entry) = entries.read() {
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                each(name);
            }
        }
        Ok(())
    }

    /// The names in `folder`.
    pub(crate) fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        self.list(folder, |name| names.push(name.to_owned()))?;
        Ok(names)
    }
}

/// Whether this is a regular file.
pub(crate) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Bytes of a file.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Only its user may decide what is in it: a checksum does not tell who wrote a block.
fn check(path: &Path, stat: &Stat) -> io::Result<()> {
    let user = rustix::process::geteuid();
    let refuse = |why: &str| {
        let why = format!("the disk cache {} {why}", path.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    };
    if stat.st_uid != user.as_raw() {
        return refuse(&format!("belongs to user {}, and this is user {}", stat.st_uid, user.as_raw()));
    }
    if stat.st_mode & 0o022 != 0 {
        return refuse(&format!("can be written by others (mode {:o})", stat.st_mode & 0o7777));
    }
    Ok(())
}
