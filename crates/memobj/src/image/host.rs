//! Who does the steps of a plan.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use memobj_core::address::VirtAddr;
use memobj_linux::image::{ImageMemory, Taken};
use memobj_vm::image::{AddressRange, ImagePlan, Placement, Step};

use crate::image::MapImageError;

/// Does the steps of a plan in memory that it has taken.
///
/// It is given each step in order, with the addresses that it has chosen. When it is dropped before
/// [`finish`](Self::finish), nothing of the image is left.
pub(crate) trait ImageHost {
    /// What holds the image in the end, and gives its memory back on drop.
    type Memory;

    /// Does one step, which lies in what was taken. May block.
    fn apply(&mut self, step: &Step) -> io::Result<()>;

    /// Hands over the memory.
    fn finish(self) -> Self::Memory;
}

/// Private mappings of a file by the kernel, in this process.
#[derive(Debug)]
pub(super) struct KernelHost<'a, F> {
    file: &'a F,
    memory: ImageMemory,
}

impl<'a, F: AsFd> KernelHost<'a, F> {
    /// Takes the memory of `plan`, and says where its first byte is. Nobody may access it yet.
    pub(super) fn reserve(file: &'a F, plan: &ImagePlan) -> Result<(Self, VirtAddr), MapImageError> {
        let (memory, start) = match plan.placement {
            Placement::Anywhere { length_bytes, base_bytes, align_bytes } => {
                let no_room = |_| MapImageError::NoRoom { length_bytes };
                ImageMemory::anywhere(length_bytes as usize, base_bytes as usize, align_bytes as usize)
                    .map_err(no_room)?
            }
            Placement::Fixed => {
                let ranges = plan.steps.iter().filter_map(|step| match step {
                    Step::Reserve { pages } => Some(range(*pages)),
                    _ => None,
                });
                (ImageMemory::fixed(&ranges.collect::<Vec<_>>()).map_err(taken)?, 0)
            }
        };
        Ok((Self { file, memory }, VirtAddr(start as u64)))
    }
}

impl<F: AsFd> ImageHost for KernelHost<'_, F> {
    type Memory = ImageMemory;

    fn apply(&mut self, step: &Step) -> io::Result<()> {
        let memory = &mut self.memory;
        match *step {
            Step::Reserve { .. } => Ok(()),
            Step::MapFile { pages, offset, prot } => memory.map_file(range(pages), self.file, offset.0, prot),
            Step::ZeroTail { bytes, offset, prot } => {
                memory.zero_tail(range(bytes), self.file, offset.0, prot)
            }
            Step::MapZero { pages, prot } => memory.map_zero(range(pages), prot),
            Step::ReadFile { bytes, offset } => memory.read_file(range(bytes), self.file, offset.0),
            Step::Protect { pages, prot } => memory.protect(range(pages), prot),
            Step::Release { pages } => memory.release(range(pages)),
        }
    }

    fn finish(self) -> Self::Memory {
        self.memory
    }
}

fn range(addresses: AddressRange) -> Range<usize> {
    addresses.start as usize..addresses.end as usize
}

fn taken(taken: Taken) -> MapImageError {
    let range = AddressRange { start: taken.range.start as u64, end: taken.range.end as u64 };
    MapImageError::of_range(range, taken.source)
}
