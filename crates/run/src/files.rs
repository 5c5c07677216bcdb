//! The files that programs map, as memory objects.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use memobj::pagers::{self, Faulty};
use memobj::{Cache, FrameSize, LentFrames, ObjectOptions, Store};

use crate::gather::Gather;
use crate::history::FileHistory;
use crate::options::Options;

/// A file that changed this short a time ago can change again without being seen to: its times are counted in ticks.
const SETTLED: Duration = Duration::from_millis(20);
/// Objects that are kept while nobody maps them.
const MOST_IDLE: usize = 512;

/// A file that programs map, as a memory object.
#[derive(Debug)]
pub(crate) struct MappedObject {
    /// The index in the history.
    pub(crate) file: usize,
    pub(crate) lent: LentFrames,
    /// The number of the file of frames, by which its mappings are known.
    pub(crate) inode: u64,
    may_execute: bool,
}

impl MappedObject {
    /// The descriptor of the file of frames.
    pub(crate) fn frames(&self) -> RawFd {
        self.lent.file().as_raw_fd()
    }
}

/// One version of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug)]
enum Known {
    Object(Arc<MappedObject>),
    /// The kernel maps it.
    Left,
}

/// What a program wants to do with a file that it maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Stores are its own.
    Private,
    /// It wants to see the stores of others.
    Shared,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Files {
    cache: Cache,
    options: Options,
    gather: Arc<Gather>,
    versions: Mutex<HashMap<Version, Known>>,
    by_frames: RwLock<HashMap<u64, Arc<MappedObject>>>,
}

impl Files {
    pub(crate) fn new(cache: Cache, options: Options, gather: Arc<Gather>) -> Self {
        Self { cache, options, gather, versions: Mutex::default(), by_frames: RwLock::default() }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The object whose frames are in file `inode`.
    pub(crate) fn of_frames(&self, inode: u64) -> Option<Arc<MappedObject>> {
        self.by_frames.read().unwrap_or_else(PoisonError::into_inner).get(&inode).cloned()
    }

    /// The object for the file at `path`, which names it for this process: /proc/PID/fd/N, for example. `None`: the
    /// kernel is to map it.
    pub(crate) fn find(&self, path: &Path, wish: Wish, executes: Executes) -> Option<Arc<MappedObject>> {
        let metadata = std::fs::metadata(path).ok()?;
        let kind = metadata.file_type();
        if !kind.is_file() || kind.is_char_device() || metadata.size() == 0 {
            return None;
        }
        let version = Version::of(&metadata);
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let object = match versions.get(&version) {
            Some(Known::Object(object)) => Some(Arc::clone(object)),
            Some(Known::Left) => None,
            // Who has stored to a shared mapping before need not change a time of the file by storing again.
            None if is_young(&metadata) || is_written_to(path).unwrap_or(false) => return None,
            None => {
                let object = self.make(path, &metadata).unwrap_or(None);
                let known = object.as_ref().map_or(Known::Left, |object| Known::Object(Arc::clone(object)));
                self.forget_some(&mut versions);
                versions.insert(version, known);
                object
            }
        }?;
        drop(versions);
        if (executes == Executes::Yes && !object.may_execute)
            || (wish == Wish::Shared && is_written_to(path).unwrap_or(false))
        {
            return None;
        }
        Some(object)
    }

    /// A memory object over the file. `None`: it is in memory already, or changes by itself.
    fn make(&self, path: &Path, metadata: &std::fs::Metadata) -> io::Result<Option<Arc<MappedObject>>> {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = File::options().read(true).custom_flags(nonblock).open(path)?;
        let system = rustix::fs::fstatfs(&file)?;
        if Version::of(&file.metadata()?) != Version::of(metadata) || !keeps_files(&system) {
            return Ok(None);
        }
        let flags = rustix::fs::fstatvfs(&file)?.f_flag;
        let name = std::fs::read_link(path).or_else(|_| std::fs::canonicalize(path));
        let name = name.unwrap_or_else(|_| path.to_owned());
        let options = ObjectOptions {
            frames: FrameSize::Small,
            store: Store::Shared,
            policy: self.options.policy,
            ..ObjectOptions::default()
        };
        let pager = pagers::File::follow(file)?;
        let text = object_name(&name);
        let is_meant = |path: &Path| path == Path::new("*") || name.ends_with(path);
        let injections = self.options.injections.iter().find(|injections| is_meant(&injections.path));
        let object = match injections {
            None => self.cache.object(&text, pager, options),
            Some(these) => {
                let faulty = Faulty::new(pager, these.faults.clone(), these.seed);
                self.cache.object(&text, faulty, options)
            }
        };
        let refused = |error: &dyn std::error::Error| io::Error::other(error.to_string());
        let lent = object.map_err(|error| refused(&error))?.lend_frames().map_err(|error| refused(&error))?;
        let inode = rustix::fs::fstat(lent.file().as_fd())?.st_ino;
        let file = self.gather.file(FileHistory {
            path: name,
            length_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            ..FileHistory::default()
        });
        let may_execute = !flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC);
        let object = Arc::new(MappedObject { file, lent, inode, may_execute });
        self.by_frames.write().unwrap_or_else(PoisonError::into_inner).insert(inode, Arc::clone(&object));
        Ok(Some(object))
    }

    /// Lets go of objects that nobody maps, when there are many.
    fn forget_some(&self, versions: &mut HashMap<Version, Known>) {
        if versions.len() < MOST_IDLE {
            return;
        }
        let mut by_frames = self.by_frames.write().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|_, known| match known {
            // One here, one by its frames.
            Known::Object(object) if Arc::strong_count(object) <= 2 => {
                by_frames.remove(&object.inode);
                false
            }
            Known::Object(_) => true,
            Known::Left => false,
        });
    }
}

/// Whether the mapping is to be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Executes {
    No,
    Yes,
}

impl Version {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The name of the object of a file: its path, with backslashes doubled, and bytes that are not UTF-8 as `\xff`, so that
/// whoever reads the name has the path.
pub(crate) fn object_name(path: &Path) -> String {
    let mut name = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        name.push_str(&chunk.valid().replace('\\', "\\\\"));
        chunk.invalid().iter().for_each(|byte| name.push_str(&format!("\\x{byte:02x}")));
    }
    name
}

fn is_young(metadata: &std::fs::Metadata) -> bool {
    let changed = Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec() as u32);
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed);
    age.unwrap_or_default() < SETTLED
}

/// Whether files of this system are more than windows into memory or into the kernel.
fn keeps_files(system: &rustix::fs::StatFs) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const HUGETLBFS: u64 = 0x9584_58f6;
    const PROC: u64 = 0x9fa0;
    const SYSFS: u64 = 0x6265_6572;
    const CGROUP: u64 = 0x6367_7270;
    const RAMFS: u64 = 0x8584_58f6;
    let kind = system.f_type as u64 & 0xffff_ffff;
    ![TMPFS, HUGETLBFS, PROC, SYSFS, CGROUP, RAMFS].contains(&kind)
}

fn is_written_to(path: &Path) -> Option<bool> {
    memobj_sys::file::has_writers(&File::open(path).ok()?)
}
