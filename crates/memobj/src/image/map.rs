//! From a file to its mapped segments.

use std::io;
use std::os::fd::AsFd;

use memobj_core::address::{PageSize, VirtAddr};
use memobj_core::prot::Prot;
use memobj_vm::image::{
    Execution, FileFacts, ImageError, ImageOptions, ImagePlan, Interpret, Model, PlanFailure, Step, plan,
    plan_with,
};
use rustix::fs::{FileType, OFlags, StatVfsMountFlags};

use crate::image::host::{ImageHost, KernelHost};
use crate::image::{MapImageError, MappedImage};
use crate::options::setters;

/// How a file is to be mapped as an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ImageMapOptions {
    /// Whether the format of the file matters.
    pub interpret: Interpret,
    /// Bytes before the first and behind the last segment that nobody may access; rounded up to pages. Zero for none.
    pub padding_bytes: u64,
    /// How many records the caller has room for; `None` for any number.
    pub room_records: Option<u32>,
}

impl Default for ImageMapOptions {
    /// 64-bit ELF, no padding, any number of records.
    fn default() -> Self {
        Self { interpret: Interpret::Elf(Model::Elf64), padding_bytes: 0, room_records: None }
    }
}

setters!(ImageMapOptions {
    interpret: Interpret,
    padding_bytes: u64,
    room_records: impl Into<Option<u32>>,
});

/// Says what [`map_image`] would map, and maps nothing. Reads the headers of `file` only.
///
/// # Errors
///
/// All that do not depend on what else is mapped.
pub fn plan_image(file: &impl AsFd, options: &ImageMapOptions) -> Result<ImagePlan, MapImageError> {
    check_descriptor(file)?;
    let ImageMapOptions { interpret, padding_bytes, room_records } = *options;
    let options = ImageOptions { interpret, padding_bytes, room_records, page_size: PageSize::SMALL };
    let source = source(file, &options)?;
    let read = |offset: u64, buffer: &mut [u8]| memobj_linux::file::read_full(file, buffer, offset);
    plan_with(source, &options, read).map_err(|failure| match failure {
        PlanFailure::Image(error) => MapImageError::Plan(error),
        PlanFailure::Read(error) => MapImageError::Read(error),
    })
}

/// Maps the segments of `file` into this process. Stores into them are nobody else's; `file` may be closed then.
///
/// May block as long as reading the file does. Whoever changes the file changes what is mapped, and whoever cuts it
/// off makes loads of what is gone trap, as for every private mapping of the kernel.
///
/// # Errors
///
/// See [`MapImageError`]. They are checked in the order of mmapobj(2), and whatever the error, nothing is mapped.
pub fn map_image(file: &impl AsFd, options: &ImageMapOptions) -> Result<MappedImage, MapImageError> {
    let plan = plan_image(file, options)?;
    let (host, start) = KernelHost::reserve(file, &plan)?;
    if memobj_linux::image::is_locked(file).map_err(MapImageError::Read)? {
        return Err(MapImageError::Locked);
    }
    let memory = do_steps(host, &plan, start)?;
    Ok(MappedImage::new(memory, plan.records_at(start)))
}

/// Has `host`, who has taken its memory with the first byte at `start`, do the steps of `plan`.
pub(crate) fn do_steps<H: ImageHost>(
    mut host: H,
    plan: &ImagePlan,
    start: VirtAddr,
) -> Result<H::Memory, MapImageError> {
    for step in plan.steps.iter().map(|step| step.moved(start.0)) {
        host.apply(&step).map_err(|error| step_failed(&step, error))?;
    }
    Ok(host.finish())
}

/// The checks of mmapobj(2) that come before all others: whether `file` is open, and for reading.
///
/// # Errors
///
/// `NotOpen` and `NotReadable`.
pub fn check_descriptor(file: &impl AsFd) -> Result<(), MapImageError> {
    let flags = rustix::fs::fcntl_getfl(file).map_err(|_| MapImageError::NotOpen)?;
    if flags.contains(OFlags::PATH) {
        return Err(MapImageError::NotOpen);
    }
    match flags & OFlags::ACCMODE {
        OFlags::WRONLY => Err(MapImageError::NotReadable),
        _ => Ok(()),
    }
}

/// What the planner must know of `file`.
fn source(file: &impl AsFd, options: &ImageOptions) -> Result<FileFacts, MapImageError> {
    let stat = rustix::fs::fstat(file).map_err(|error| MapImageError::Read(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        // What is wrong with the request itself is told first.
        let any = FileFacts { length_bytes: 1, execution: Execution::Allowed };
        return Err(match plan(any, options) {
            Err(error @ (ImageError::PaddingTooLarge { .. } | ImageError::TooFewRecords { .. })) => {
                error.into()
            }
            _ => MapImageError::NotMappable,
        });
    }
    // A file system that does not tell its flags refuses the mapping itself.
    let noexec = rustix::fs::fstatvfs(file).is_ok_and(|info| info.f_flag.contains(StatVfsMountFlags::NOEXEC));
    let execution = if noexec { Execution::Forbidden } else { Execution::Allowed };
    Ok(FileFacts { length_bytes: stat.st_size as u64, execution })
}

fn step_failed(step: &Step, source: io::Error) -> MapImageError {
    let (range, prot) = match *step {
        Step::MapFile { pages, prot, .. } => (pages, prot),
        Step::ZeroTail { bytes, .. } | Step::ReadFile { bytes, .. } => (bytes, Prot::NONE),
        Step::Reserve { pages } | Step::MapZero { pages, .. } => (pages, Prot::NONE),
        Step::Protect { pages, .. } | Step::Release { pages } => (pages, Prot::NONE),
    };
    let refused = source.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error());
    if refused && prot.contains(Prot::EXECUTE) {
        // mmap(2) says EPERM for a file on a file system that is mounted noexec, mmapobj(2) says EACCES.
        return MapImageError::NoExec;
    }
    let is_filled = matches!(step, Step::ZeroTail { .. } | Step::ReadFile { .. });
    match source.raw_os_error() == Some(rustix::io::Errno::FAULT.raw_os_error()) && is_filled {
        true => MapImageError::FileEnds { range },
        false => MapImageError::Map { range, source },
    }
}
