//! Names that stand for other files.
//!
//! A call that names a mapped name is made on the file that it stands for: the supervisor opens that, and the program
//! opens, or asks about, the supervisor's descriptor. What it gets is an ordinary descriptor of the other file.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use memobj_sys::trace::{Call, Registers, Thread, read_string};

use crate::options::NameMap;
use crate::programs::{NotServed, continue_from, sees_our_files};
use crate::supervisor::Supervisor;

const MOST_PATH_BYTES: usize = 4096;
const O_NOFOLLOW: u64 = 0x2_0000;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const STAT: i64 = 4;
const LSTAT: i64 = 6;
const EINVAL: i64 = 22;
const EIO: i32 = 5;

/// A call that names a file.
struct Naming {
    number: i64,
    /// Which argument is the path.
    path: usize,
    /// Which one is the folder that it is relative to, if any.
    folder: Option<usize>,
    /// Which one has a flag that says not to follow links, and the flag.
    no_follow: Option<(usize, u64)>,
    /// Whether it asks what a link says.
    reads_link: bool,
}

const fn naming(
    number: i64,
    path: usize,
    folder: Option<usize>,
    no_follow: Option<(usize, u64)>,
    reads_link: bool,
) -> Naming {
    Naming { number, path, folder, no_follow, reads_link }
}

/// open, stat, lstat, access, truncate, creat, readlink, openat, newfstatat, readlinkat, faccessat, statx, openat2,
/// faccessat2.
const NAMINGS: [Naming; 14] = [
    naming(2, 0, None, Some((1, O_NOFOLLOW)), false),
    naming(STAT, 0, None, None, false),
    naming(LSTAT, 0, None, None, false),
    naming(21, 0, None, None, false),
    naming(76, 0, None, None, false),
    naming(85, 0, None, None, false),
    naming(89, 0, None, None, true),
    naming(257, 1, Some(0), Some((2, O_NOFOLLOW)), false),
    naming(262, 1, Some(0), Some((3, AT_SYMLINK_NOFOLLOW)), false),
    naming(267, 1, Some(0), None, true),
    naming(269, 1, Some(0), None, false),
    naming(332, 1, Some(0), Some((2, AT_SYMLINK_NOFOLLOW)), false),
    naming(437, 1, Some(0), None, false),
    naming(439, 1, Some(0), Some((3, AT_SYMLINK_NOFOLLOW)), false),
];

impl Supervisor {
    /// The stopped thread is about to make a call that names a file.
    pub(crate) fn names_file(&mut self, pid: i32, registers: &Registers) {
        let Some(naming) = NAMINGS.iter().find(|naming| naming.number == registers.call()) else { return };
        let Some(object) =
            named(pid, naming, registers).and_then(|name| stands_for(&self.options.names, &name))
        else {
            return;
        };
        let Some(space) = self.space_of(pid).filter(|space| !space.is_left_alone() && sees_our_files(pid))
        else {
            return;
        };
        let thread = Thread(pid);
        let answer = match open_any(&object) {
            Err(error) => Ok(-i64::from(error.raw_os_error().unwrap_or(EIO))),
            Ok(_) if naming.reads_link => Ok(-EINVAL),
            Ok(file) => {
                space.site.path_of(thread, registers, file.as_raw_fd()).map_err(NotServed::from).and_then(
                    |path| Ok(space.site.one(thread, registers, redirected(naming, registers, path))?),
                )
            }
        };
        match answer {
            Ok(answer) => {
                let mut after = *registers;
                after.skip_call(answer);
                let _ = thread.set_registers(&after);
            }
            // The next reports tell of it.
            Err(NotServed::Ended) => {}
            Err(NotServed::Refused(_)) => {
                let _ = continue_from(thread, registers);
            }
        }
    }
}

/// The call, on another path.
fn redirected(naming: &Naming, registers: &Registers, path: u64) -> Call {
    let mut arguments = registers.arguments();
    arguments[naming.path] = path;
    if let Some((index, flag)) = naming.no_follow {
        arguments[index] &= !flag;
    }
    let number = if naming.number == LSTAT { STAT } else { naming.number };
    Call { number, arguments }
}

/// A descriptor that names the file, whatever may be done to it.
fn open_any(object: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::PATH.bits() as i32;
    File::options().read(true).custom_flags(flags).open(object)
}

/// The absolute path that the call names.
fn named(pid: i32, naming: &Naming, registers: &Registers) -> Option<PathBuf> {
    let arguments = registers.arguments();
    let bytes = read_string(pid, arguments[naming.path], MOST_PATH_BYTES)?;
    let path = PathBuf::from(OsString::from_vec(bytes));
    if path.as_os_str().is_empty() {
        return None;
    }
    if path.is_absolute() {
        return Some(normal(&path));
    }
    let folder = match naming.folder.map(|index| arguments[index] as i32) {
        Some(descriptor) if descriptor >= 0 => format!("/proc/{pid}/fd/{descriptor}"),
        _ => format!("/proc/{pid}/cwd"),
    };
    Some(normal(&std::fs::read_link(folder).ok()?.join(path)))
}

/// Without `.` and `..`, by the words alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// What `name` stands for: the longest mapped name that it is, or begins with, decides.
fn stands_for(names: &[NameMap], name: &Path) -> Option<PathBuf> {
    let matching = names.iter().filter_map(|map| Some((map, name.strip_prefix(&map.guest).ok()?)));
    let (map, rest) = matching.max_by_key(|(map, _)| map.guest.components().count())?;
    match rest.as_os_str().is_empty() {
        true => Some(map.object.clone()),
        false => Some(map.object.join(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_decides() {
        let map = |guest: &str, object: &str| NameMap { guest: guest.into(), object: object.into() };
        let names = [map("/data", "/a"), map("/data/deep", "/b"), map("/one.txt", "/c/two.txt")];
        let stands = |name: &str| stands_for(&names, &normal(Path::new(name)));
        assert_eq!(stands("/data/x"), Some("/a/x".into()));
        assert_eq!(stands("/data"), Some("/a".into()));
        assert_eq!(stands("/data/deep/y"), Some("/b/y".into()));
        assert_eq!(stands("/data/./deep/../z"), Some("/a/z".into()));
        assert_eq!(stands("/one.txt"), Some("/c/two.txt".into()));
        assert_eq!(stands("/database"), None);
        assert_eq!(stands("/other"), None);
    }
}
