//! Files that are looked for on behalf of programs, where others may have to answer.
//!
//! A file system in user space may be served by a program of this very run, which waits for its tracer. So the tracer
//! asks by itself only on file systems that answer from the kernel; for others a helper asks. The tracer goes on with all
//! other reports meanwhile, and when the answer is late, the kernel maps the file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use memobj_tracer::Heard;

use crate::files::{MappedObject, MappingKind};
use crate::objects::Behind;
use crate::supervisor::Supervisor;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many helpers may be waiting for answers.
const MOST_HELPERS: usize = 16;
/// How deep reports may be handled while an answer is awaited.
const MOST_NESTED: usize = 8;

/// What is known of file systems.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    /// By device: whether the kernel answers.
    systems: HashMap<u64, FromKernel>,
    helpers: Arc<AtomicUsize>,
    nested: usize,
    is_told: bool,
}

/// Whether questions about files are answered without anybody's help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FromKernel {
    No,
    Yes,
}

impl Resolver {
    /// Of the file at `path`, a link of /proc that the kernel follows by itself.
    fn system_of(&mut self, path: &Path) -> FromKernel {
        // What the kernel knows, without asking a server.
        let flags = rustix::fs::AtFlags::STATX_DONT_SYNC;
        let asked = rustix::fs::statx(rustix::fs::CWD, path, flags, rustix::fs::StatxFlags::TYPE);
        let Ok(found) = asked else { return FromKernel::No };
        let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
        *self.systems.entry(device).or_insert_with(|| system_of_device(device))
    }
}

/// Looks for the device among the mounts: their list asks no server.
fn system_of_device(device: u64) -> FromKernel {
    const KERNEL: [&str; 12] = [
        "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "ramfs", "squashfs", "erofs", "overlay",
        "vfat",
    ];
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let kind = mounts.lines().find_map(|line| {
        let is_it = line.split(' ').nth(2) == Some(&wanted);
        is_it.then(|| line.split_once(" - ")?.1.split(' ').next()).flatten()
    });
    match kind {
        Some(kind) if KERNEL.contains(&kind) => FromKernel::Yes,
        // Subvolumes have devices of their own, which are not in the list.
        None if mounts.contains(" - btrfs ") => FromKernel::Yes,
        _ => FromKernel::No,
    }
}

/// A file to look for.
#[derive(Clone, Debug)]
pub(crate) struct Sought {
    /// A link of /proc: to a descriptor or a program of a process.
    pub(crate) path: PathBuf,
    pub(crate) mapping_kind: MappingKind,
}

impl Supervisor {
    /// The object for a file; `None`: the kernel is to map it. Handles other reports while it waits.
    pub(crate) fn find(&mut self, sought: Sought) -> Option<Arc<MappedObject>> {
        if !self.has_plenty() && !self.descriptors.is_left(crate::descriptor_budget::Want::File) {
            if self.descriptors.tells_of_files() {
                self.tell(&format!(
                    "more files than half of {} descriptors allow: the kernel maps what is new",
                    self.descriptors.most()
                ));
            }
            return None;
        }
        if let Some(objects) = self.names.objects() {
            // Asked for by its own server, which is this process: that would wait for itself.
            match objects.behind(&sought.path) {
                Behind::Object(opened) => return self.files.of_object(&opened?, objects),
                Behind::Other => {}
            }
        }
        if self.resolver.system_of(&sought.path) == FromKernel::Yes {
            return self.files.find(&sought.path, sought.mapping_kind);
        }
        let answer = self.ask_helper(&sought)?;
        let until = Instant::now() + PATIENCE;
        self.resolver.nested += 1;
        let found = loop {
            match answer.try_recv() {
                Ok(found) => break found,
                Err(mpsc::TryRecvError::Disconnected) => break None,
                Err(mpsc::TryRecvError::Empty) => {}
            }
            match memobj_tracer::wait_any(Some(until)) {
                Ok(Heard::Of(pid, happened)) => self.heard(pid, happened),
                Ok(Heard::Woken) => {}
                Ok(Heard::Nothing | Heard::Nobody) | Err(_) => {
                    self.tell_of_late(&sought.path);
                    break None;
                }
            }
        };
        self.resolver.nested -= 1;
        // What was posted meanwhile waits for the loop.
        self.jobs.look_again();
        // Its file can have changed hands meanwhile.
        found.filter(|object| object.is_current())
    }

    /// Whether descriptors are so many that they need not be counted.
    fn has_plenty(&self) -> bool {
        const OF_A_FILE: u64 = 4;
        const OF_A_THREAD: u64 = 2;
        const OTHERS: u64 = 256;
        let used = self.files.count() as u64 * OF_A_FILE + self.threads.len() as u64 * OF_A_THREAD + OTHERS;
        used < self.descriptors.most() / 4
    }

    /// `None`: there are too many that wait.
    fn ask_helper(&mut self, sought: &Sought) -> Option<mpsc::Receiver<Option<Arc<MappedObject>>>> {
        let helpers = Arc::clone(&self.resolver.helpers);
        if self.resolver.nested >= MOST_NESTED || helpers.load(Ordering::Acquire) >= MOST_HELPERS {
            self.tell_of_late(&sought.path);
            return None;
        }
        let (tell, answer) = mpsc::channel();
        let (files, jobs, sought) = (Arc::clone(&self.files), self.jobs.clone(), sought.clone());
        helpers.fetch_add(1, Ordering::AcqRel);
        let counted = Arc::clone(&helpers);
        let helper = std::thread::Builder::new().name("memobj-resolve".into()).spawn(move || {
            let _ = tell.send(files.find(&sought.path, sought.mapping_kind));
            counted.fetch_sub(1, Ordering::AcqRel);
            jobs.look_again();
        });
        if helper.is_err() {
            helpers.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(answer)
    }

    fn tell_of_late(&mut self, path: &Path) {
        if !std::mem::replace(&mut self.resolver.is_told, true) {
            let name = std::fs::read_link(path).unwrap_or_else(|_| path.to_owned());
            self.tell(&format!(
                "{}: its file system does not answer within {} ms: the kernel maps it; further ones are not reported",
                name.display(),
                PATIENCE.as_millis()
            ));
        }
    }
}

/// What the kernel knows of a file, without asking a server: its mode, owner and group.
pub(crate) fn rights_of(path: &Path) -> Option<(u32, u32, u32)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let asked = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS).ok()?;
    Some((u32::from(asked.stx_mode), asked.stx_uid, asked.stx_gid))
}
