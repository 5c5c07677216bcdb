//! Reading a file around or through the host's page cache, and noticing that it changed.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::quiet::quietly;

/// What identifies the bytes of a file at one moment.
///
/// Since Linux 6.13 a change after the version was asked for always gets another time stamp on the file systems
/// that matter (multigrain timestamps); before, two changes within one tick of the clock can look the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    links: u64,
}

impl FileVersion {
    /// The version that `file` has now. Safe to call from a signal handler.
    pub fn of(file: &impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size as u64,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
            links: stat.st_nlink as u64,
        })
    }

    /// Whether the bytes can be trusted to be those of `opened`.
    ///
    /// Size and modification time must agree. So must the time of the last change of any kind, because the
    /// modification time can be set back; but for a file that gained or lost a name since: names are not bytes,
    /// and files are removed and replaced while they are mapped.
    pub fn is_same_bytes(&self, opened: &FileVersion) -> bool {
        let same = |version: &FileVersion| (version.device, version.inode, version.size, version.modified);
        same(self) == same(opened) && (self.changed == opened.changed || self.links != opened.links)
    }

    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Which file it is, whatever its bytes are.
    pub fn identity(&self) -> String {
        format!("inode:{}.{}", self.device, self.inode)
    }

    /// The version that was [displayed](fmt::Display) so.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers: Result<Vec<i128>, _> = text.strip_prefix("file:")?.split('.').map(str::parse).collect();
        let [device, inode, size, modified_s, modified_ns, changed_s, changed_ns, links] =
            numbers.ok()?.try_into().ok()?;
        let time = |s: i128, ns: i128| Some((s.try_into().ok()?, ns.try_into().ok()?));
        Some(Self {
            device: device.try_into().ok()?,
            inode: inode.try_into().ok()?,
            size: size.try_into().ok()?,
            modified: time(modified_s, modified_ns)?,
            changed: time(changed_s, changed_ns)?,
            links: links.try_into().ok()?,
        })
    }
}

impl fmt::Display for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, inode, size, modified, changed, links } = self;
        let (modified, changed) =
            (format_args!("{}.{}", modified.0, modified.1), format_args!("{}.{}", changed.0, changed.1));
        write!(f, "file:{device}.{inode}.{size}.{modified}.{changed}.{links}")
    }
}

/// Makes a file for reading and writing that belongs to whom `like` belongs to, where this user may give files away
/// (root), and that only its owner may read; with a second descriptor that goes around the page cache, where the file
/// system has that. An error if the name is taken, by whatever.
pub fn create_beside(path: &Path, like: &impl AsFd) -> io::Result<(File, Option<File>)> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let owner = rustix::fs::fstat(like)?;
    if owner.st_uid != file.metadata()?.uid() {
        // Kept by who made it, it serves him at least.
        let _ = std::os::unix::fs::fchown(&file, Some(owner.st_uid), Some(owner.st_gid));
    }
    let direct = open_direct_writable(path, &file);
    Ok((file, direct))
}

/// A file without a name, beside `file`, that shares its blocks and has its bytes of one instant (a reflink, FICLONE).
///
/// # Errors
///
/// Where the file system has none, or this user may not make files there.
pub fn clone_unnamed(file: &impl AsFd) -> io::Result<File> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))?;
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let clone = rustix::fs::open(folder, flags, mode)?;
    rustix::fs::ioctl_ficlone(&clone, file)?;
    Ok(File::from(clone))
}

/// Opens the file that [`create_beside`] made, as it does. An error if it is anything but a regular file, or belongs to
/// somebody who could not have written to `owned`: neither its owner, nor this user, nor root.
pub fn open_beside(path: &Path, owned: &impl AsFd) -> io::Result<(File, Option<File>)> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let owner = rustix::fs::fstat(owned)?.st_uid;
    let why = match () {
        () if !metadata.is_file() => "it is not a regular file",
        () if !may_own_log(metadata.uid(), owner) => "it belongs to another user",
        () => {
            let direct = open_direct_writable(path, &file);
            return Ok((file, direct));
        }
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Whether a file of user `user` beside a file of user `owner` can be by somebody who may write to that: its owner, this
/// user, or root.
pub fn may_own_log(user: u32, owner: u32) -> bool {
    [owner, rustix::process::geteuid().as_raw(), 0].contains(&user)
}

/// Whether `path` is a name of `file`.
pub fn is_named(file: &impl AsFd, path: &Path) -> bool {
    let (Ok(stat), Ok(named)) = (rustix::fs::fstat(file), path.symlink_metadata()) else { return false };
    (stat.st_dev, stat.st_ino) == (named.dev(), named.ino())
}

/// A descriptor of the same file that goes around the host's page cache, where the file system has that.
pub fn open_direct(path: &Path, file: &File) -> Option<File> {
    open_direct_as(path, file, OpenOptions::new().read(true))
}

/// As [`open_direct`], for reading and writing.
pub fn open_direct_writable(path: &Path, file: &File) -> Option<File> {
    open_direct_as(path, file, OpenOptions::new().read(true).write(true))
}

fn open_direct_as(path: &Path, file: &File, options: &mut OpenOptions) -> Option<File> {
    let direct = options.custom_flags(libc::O_DIRECT | libc::O_NONBLOCK).open(path).ok()?;
    let (a, b) = (direct.metadata().ok()?, file.metadata().ok()?);
    ((a.dev(), a.ino()) == (b.dev(), b.ino()) && direct_alignment(&direct)? <= 4096).then_some(direct)
}

fn direct_alignment(file: &File) -> Option<u32> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let mask = rustix::fs::StatxFlags::from_bits_retain(0x2000);
    let stat = rustix::fs::statx(file, "", flags, mask).ok()?;
    if stat.stx_mask & 0x2000 == 0 {
        // The kernel does not tell (before 6.1): 4 KiB is what every block device takes.
        return Some(4096);
    }
    let wider = stat.stx_dio_mem_align.max(stat.stx_dio_offset_align);
    (wider > 0).then_some(wider)
}

/// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
pub fn read_full(file: &impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Writes all of `buffer` at `offset`; returns its length. Beyond the limit of file sizes it is EFBIG, without a signal.
pub fn write_full(file: &impl AsFd, buffer: &[u8], offset: u64) -> io::Result<usize> {
    quietly(|| write_all(file, buffer, offset))
}

fn write_all(file: &impl AsFd, buffer: &[u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pwrite(file, &buffer[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Makes what was written durable: the bytes, and what is needed to find them (fdatasync(2)).
pub fn sync_data(file: &impl AsFd) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fdatasync(file))?)
}

/// Lets the page cache forget what it has of the file and what is on the device (posix_fadvise(2)).
pub fn drop_cached(file: &impl AsFd) {
    // Advice: nothing depends on it.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// Cuts the file off at `length` bytes, or extends it with a hole.
pub fn set_length(file: &impl AsFd, length: u64) -> io::Result<()> {
    Ok(quietly(|| rustix::io::retry_on_intr(|| rustix::fs::ftruncate(file, length)))?)
}

/// Gives `range` room on the device, so that later writes to it cannot run out of it. The length stays.
/// EOPNOTSUPP on file systems that cannot.
pub fn reserve(file: &impl AsFd, range: std::ops::Range<u64>) -> io::Result<()> {
    let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
    let length = range.end - range.start;
    Ok(quietly(|| rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, keep, range.start, length)))?)
}

/// Whether `range` is all hole: reads as zeros, and has no place on the device. `false` where the file system
/// cannot tell.
pub fn is_hole(file: &impl AsFd, range: std::ops::Range<u64>) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(range.start)) {
        Ok(data) => data >= range.end,
        Err(error) => error == rustix::io::Errno::NXIO,
    }
}

/// Whether `range`, as far as it lies before the end, holds data everywhere, as far as the file system can tell.
pub fn is_data(file: &impl AsFd, range: std::ops::Range<u64>) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(range.start)) {
        Ok(hole) => hole >= range.end,
        Err(_) => false,
    }
}

/// Whether a write to blocks that hold data goes to these blocks: true of ext2 to ext4, of which it is known.
pub fn overwrites_in_place(file: &impl AsFd) -> bool {
    const EXT4: i64 = 0xef53;
    rustix::fs::fstatfs(file).is_ok_and(|info| info.f_type == EXT4)
}

/// Whether this file system answers questions about a file, its metadata and its holes, from this machine's memory and
/// disks alone. Others ask a server, and wait as long as that takes. `false` of what is not known, and of overlays, which
/// can have anything below them. Source: statfs(2).
pub fn is_local(file: &impl AsFd) -> bool {
    // ext2 to ext4, XFS, Btrfs, Bcachefs, F2FS, tmpfs, ramfs, hugetlbfs, ZFS, EROFS, SquashFS, ISO 9660, UDF, FAT, exFAT,
    // NTFS3, JFS, NILFS. Block devices lie in a tmpfs.
    const LOCAL: [u32; 18] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0xca45_1a4e,
        0xf2f5_2010,
        0x0102_1994,
        0x8584_58f6,
        0x9584_58f6,
        0x2fc1_2fc1,
        0xe0f5_e1e2,
        0x7371_7368,
        0x9660,
        0x1501_3346,
        0x4d44,
        0x2011_bab0,
        0x7366_746e,
        0x3153_464a,
        0x3434,
    ];
    rustix::fs::fstatfs(file).is_ok_and(|info| LOCAL.contains(&(info.f_type as u32)))
}

/// The first part of `range` that holds data, as far as the file system can tell; all of it where it cannot.
pub fn next_data(file: &impl AsFd, range: std::ops::Range<u64>) -> io::Result<Option<std::ops::Range<u64>>> {
    use rustix::fs::SeekFrom;
    if range.is_empty() {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(range.start)) {
        Ok(start) if start < range.end => start,
        Ok(_) | Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(rustix::io::Errno::INVAL) => return Ok(Some(range)),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok(Some(start..end.min(range.end)))
}

/// Bytes in the file.
pub fn length(file: &impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(file)?.st_size as u64)
}

/// What tells a file from all others that bear its name at some time: its number and when it was made.
pub fn identity(file: &impl AsFd) -> io::Result<[u8; 16]> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let stat = rustix::fs::statx(
        file,
        "",
        flags,
        rustix::fs::StatxFlags::BASIC_STATS | rustix::fs::StatxFlags::BTIME,
    )?;
    let born = stat.stx_btime.tv_sec as u64 ^ u64::from(stat.stx_btime.tv_nsec) << 34;
    let mut identity = [0; 16];
    identity[..8].copy_from_slice(&stat.stx_ino.to_le_bytes());
    identity[8..].copy_from_slice(&born.to_le_bytes());
    Ok(identity)
}

/// Makes the names in `folder` durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Takes the lock of the whole file that only one open descriptor can hold (flock(2)); `false` if another has it.
pub fn try_lock(file: &impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the lock of [`try_lock`] back, whoever else has a copy of the descriptor.
pub fn unlock(file: &impl AsFd) {
    // It fails for descriptors that are none.
    let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
}

/// How many names the file has.
pub fn names(file: &impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(file)?.st_nlink as u64)
}

/// One pread(2), repeated only when interrupted. Safe to call from a signal handler.
pub fn read_once(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match rustix::io::pread(file, &mut *buffer, offset) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[repr(C)]
struct CachestatRange {
    offset: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cache: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many of the file's 4 KiB pages the host's page cache holds; `None` where the kernel cannot tell (6.5).
pub fn cached_pages(file: &File) -> Option<u64> {
    const SYS_CACHESTAT: libc::c_long = 451;
    let range = CachestatRange { offset: 0, len: 0 };
    let mut answer = Cachestat::default();
    // SAFETY: both structures have the kernel's layout (cachestat(2)) and live across the call.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &range, &mut answer, 0) };
    (result == 0).then_some(answer.cache)
}
