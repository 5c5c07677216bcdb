//! Makes the object of a file that is mapped for the first time.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use memobj::pagers::{self, Faulty, Pager};
use memobj::{Cache, FrameSize, FrameVisibility, LentFrames, ObjectOptions};
use memobj_linux::lease::{self, Refused};

use super::{
    CURRENT, FarFile, FileId, Files, FramesId, Hold, LocalFile, MappedObject, MappingKind, Origin, Version,
};
use memobj_serve::control::object_name;

use crate::frames::FrameSource;
use crate::history::FileHistory;
use crate::lender::Lender;
use crate::objects::{ObjectFiles, Opened};

impl Files {
    /// The object of the file at `path`, which is `id`. `None`: the kernel is to map it.
    pub(super) fn make(
        &self,
        path: &Path,
        id: FileId,
        mapping_kind: MappingKind,
    ) -> Option<Arc<MappedObject>> {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = File::options().read(true).custom_flags(nonblock).open(path).ok()?;
        let hold = self.hold(path, &file, mapping_kind)?;
        // Asked for now: from here on it does not change unseen.
        let metadata = file.metadata().ok().filter(|metadata| {
            metadata.is_file()
                && metadata.size() > 0
                && FileId { device: metadata.dev(), inode: metadata.ino() } == id
        });
        let made = metadata.and_then(|metadata| self.object(path, file, &metadata, hold, mapping_kind).ok());
        let Some(object) = made else {
            // A lease has gone with the file.
            self.guardian.forget(hold);
            return None;
        };
        let mut current = self.current.lock();
        if let Some(known) = current.get(&(id, mapping_kind)) {
            // Somebody was faster. One watch serves both, as inotify has it.
            return Some(Arc::clone(known));
        }
        current.insert((id, mapping_kind), Arc::clone(&object));
        self.by_frames.write().insert(object.frames, Arc::clone(&object));
        drop(current);
        self.guardian.keep(hold, &object);
        if !object.local().is_some_and(is_still_held) {
            self.has_broken(&object);
        }
        Some(object)
    }

    /// What makes the file one version. `None`: nothing can.
    fn hold(&self, path: &Path, file: &File, mapping_kind: MappingKind) -> Option<Hold> {
        let reader = self.guardian.reader()?;
        match lease::take(file, reader) {
            Ok(()) => Some(Hold::Lease(file.as_raw_fd())),
            Err(Refused::Written) => None,
            // Who cannot write to it is not in a hurry to see what others write.
            Err(Refused::NotOurs) if mapping_kind == MappingKind::Private && !may_write(path) => {
                self.guardian.watch(file)
            }
            Err(Refused::Other(_)) if mapping_kind == MappingKind::Private && tells_of_changes(file) => {
                self.guardian.watch(file)
            }
            Err(_) => None,
        }
    }

    fn object(
        &self,
        path: &Path,
        file: File,
        metadata: &Metadata,
        hold: Hold,
        mapping_kind: MappingKind,
    ) -> io::Result<Arc<MappedObject>> {
        let name = std::fs::read_link(path).or_else(|_| std::fs::canonicalize(path));
        let name = name.unwrap_or_else(|_| path.to_owned());
        let source = Arc::new(pagers::File::follow(file)?);
        let lent = self.frames(&name, &source, mapping_kind)?;
        let file = self.history_builder.file(FileHistory {
            path: name,
            length_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            ..FileHistory::default()
        });
        Ok(Arc::new(MappedObject {
            file,
            frames: frames_of(&*lent)?,
            lent,
            mapping_kind,
            id: FileId { device: metadata.dev(), inode: metadata.ino() },
            origin: Origin::Local(LocalFile { source, version: Version::of(metadata), hold }),
            state: AtomicU8::new(CURRENT),
            idle_looks: AtomicU32::new(0),
        }))
    }

    /// The object of a file that is an object of a pager. `None`: the kernel is to map it.
    pub(crate) fn of_object(
        &self,
        opened: &Arc<Opened>,
        objects: &Arc<ObjectFiles>,
    ) -> Option<Arc<MappedObject>> {
        let id = FileId { device: objects.device(), inode: opened.inode };
        let key = (id, MappingKind::Private);
        let known = self.current.lock().get(&key).cloned();
        if let Some(known) = known {
            known.idle_looks.store(0, Ordering::Relaxed);
            return Some(known);
        }
        // Starts the thread that looks for idle ones.
        self.guardian.reader()?;
        let lent = opened.lend()?;
        let origin = Origin::Object(FarFile {
            opened: Arc::clone(opened),
            objects: Arc::clone(objects),
            file: OnceLock::new(),
        });
        let object = Arc::new(MappedObject {
            file: opened.file,
            frames: frames_of(&lent).ok()?,
            lent: Box::new(lent),
            mapping_kind: MappingKind::Private,
            id,
            origin,
            state: AtomicU8::new(CURRENT),
            idle_looks: AtomicU32::new(0),
        });
        let mut current = self.current.lock();
        if let Some(known) = current.get(&key) {
            return Some(Arc::clone(known));
        }
        current.insert(key, Arc::clone(&object));
        self.by_frames.write().insert(object.frames, Arc::clone(&object));
        Some(object)
    }

    /// The frames of a file that is held still.
    fn frames(
        &self,
        name: &Path,
        source: &Arc<pagers::File>,
        mapping_kind: MappingKind,
    ) -> io::Result<Box<dyn FrameSource>> {
        match &self.lender {
            Lender::Cache(cache) => Ok(Box::new(self.lend(cache, name, Arc::clone(source))?)),
            Lender::Server(via) => {
                let borrowed = via.borrow(&**source, mapping_kind);
                Ok(Box::new(borrowed.map_err(|error| io::Error::other(error.to_string()))?))
            }
        }
    }

    fn lend(&self, cache: &Cache, name: &Path, source: Arc<pagers::File>) -> io::Result<LentFrames> {
        let options = ObjectOptions::new()
            .frames(FrameSize::Small)
            .visibility(FrameVisibility::Shared)
            .policy(self.options.policy);
        let is_meant = |path: &Path| path == Path::new("*") || name.ends_with(path);
        let injections = self.options.injections.iter().find(|injections| is_meant(&injections.path));
        let pager: Box<dyn Pager> = match injections {
            None => Box::new(source),
            Some(these) => Box::new(Faulty::new(source, these.faults.clone(), these.seed)),
        };
        let refused = |error: &dyn std::error::Error| io::Error::other(error.to_string());
        let object = cache.object(&object_name(name), pager, options);
        object.map_err(|error| refused(&error))?.lend_frames().map_err(|error| refused(&error))
    }
}

/// By which the kernel tells of mappings of the frames.
fn frames_of(lent: &dyn FrameSource) -> io::Result<FramesId> {
    let stat = rustix::fs::fstat(lent.file())?;
    let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    Ok(FramesId { device, inode: stat.st_ino })
}

fn is_still_held(file: &LocalFile) -> bool {
    match file.hold {
        Hold::Lease(_) => lease::is_held(&*file.source),
        Hold::Watch(_) => rustix::fs::fstat(&*file.source).is_ok_and(|stat| {
            let modified = (stat.st_mtime, stat.st_mtime_nsec as i64);
            file.version == Version { size: stat.st_size as u64, modified }
        }),
    }
}

/// Whether this user could open the file for writing.
fn may_write(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Whether all who change files of this system do it here.
fn tells_of_changes(file: &File) -> bool {
    const NFS: u64 = 0x6969;
    const SMB: u64 = 0xfe53_4d42;
    const CIFS: u64 = 0xff53_4d42;
    const FUSE: u64 = 0x6573_5546;
    const PLAN9: u64 = 0x0102_1997;
    const CEPH: u64 = 0x00c3_6400;
    const AFS: u64 = 0x5346_414f;
    let kind = rustix::fs::fstatfs(file).map(|system| system.f_type as u64 & 0xffff_ffff);
    kind.is_ok_and(|kind| ![NFS, SMB, CIFS, FUSE, PLAN9, CEPH, AFS].contains(&kind))
}

/// Whether mappings of the file may be served: it is in a file system that is more than a window into memory or into the
/// kernel, and whose files may be executed where this name leads. What the kernel refuses to map, or to make executable
/// later, it refuses by the mount of the descriptor that was mapped, so that has to be the file's own.
pub(super) fn may_be_served(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const HUGETLBFS: u64 = 0x9584_58f6;
    const PROC: u64 = 0x9fa0;
    const SYSFS: u64 = 0x6265_6572;
    const CGROUP: u64 = 0x6367_7270;
    const RAMFS: u64 = 0x8584_58f6;
    // ST_NOEXEC in statfs(2).
    const NO_EXECUTION: u64 = 8;
    let Ok(system) = rustix::fs::statfs(path) else { return false };
    let kind = system.f_type as u64 & 0xffff_ffff;
    ![TMPFS, HUGETLBFS, PROC, SYSFS, CGROUP, RAMFS].contains(&kind)
        && system.f_flags as u64 & NO_EXECUTION == 0
}
