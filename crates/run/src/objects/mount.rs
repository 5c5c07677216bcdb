//! A file system of FUSE that is mounted nowhere: its files are reached through a descriptor, and it is gone with the last
//! one. See fsopen(2), fsmount(2), fuse(4).

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// The two ends of a file system.
#[derive(Debug)]
pub(super) struct Mounted {
    /// Where requests are read from and answers are written to.
    pub(super) device: OwnedFd,
    /// The root.
    pub(super) root: OwnedFd,
}

/// Why there is no such file system here.
#[derive(Debug)]
pub(crate) struct NotMounted {
    /// What was refused.
    pub(crate) what: &'static str,
    /// Why.
    pub(crate) source: io::Error,
}

impl fmt::Display for NotMounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

/// Makes one. Takes permission to open /dev/fuse, and CAP_SYS_ADMIN. Blocks for nothing: the first request waits until it is
/// read.
pub(super) fn mount() -> Result<Mounted, NotMounted> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(|source| NotMounted { what: "open /dev/fuse", source })?;
    let root = mount_on(&device)
        .map_err(|error| NotMounted { what: "mount a file system of FUSE", source: error.into() })?;
    Ok(Mounted { device: device.into(), root })
}

fn mount_on(device: &File) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
    let system = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let user = rustix::process::geteuid().as_raw().to_string();
    let group = rustix::process::getegid().as_raw().to_string();
    let descriptor = device.as_fd().as_raw_fd().to_string();
    let values = [
        ("source", "memobj"),
        ("fd", &descriptor),
        ("rootmode", "40000"),
        ("user_id", &user),
        ("group_id", &group),
    ];
    for (key, value) in values {
        fsconfig_set_string(system.as_fd(), key, value)?;
    }
    // The kernel decides by modes; programs of the run can have dropped their rights to another user.
    for flag in ["default_permissions", "allow_other", "ro"] {
        fsconfig_set_flag(system.as_fd(), flag)?;
    }
    fsconfig_create(system.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(system.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
