//! Images through the engine: segments of an ELF file that are segments of an object.

use std::io;

use memobj_core::address::{PageSize, VirtAddr};
use memobj_core::prot::Prot;
use memobj_vm::image::{
    AddressRange, Execution, FileFacts, ImageOptions, ImagePlan, ImageRecord, Placement, PlanFailure, Step,
    plan_with,
};
use memobj_vm::space::{Place, Sharing, SpaceError};

use super::{SegmentRequest, SegmentSource, Space, TouchError, VerbError};
use crate::error::AccessError;
use crate::image::{ImageHost, ImageMapOptions, MapImageError, do_steps};
use crate::mapping::Mapping;
use crate::object::MemoryObject;
use crate::options::{self, Delivery, MapOptions};

const PAGE: u64 = 4096;

/// The segments of an image in a space. They are unmapped on drop, unless [`leak`](Self::leak)ed: then they stay as long
/// as the space, or until they are unmapped there.
#[derive(Debug)]
pub struct SpaceImage<'a> {
    memory: Taken<'a>,
    records: Vec<ImageRecord>,
}

impl SpaceImage<'_> {
    /// One record for each segment, with its addresses in this process.
    pub fn records(&self) -> &[ImageRecord] {
        &self.records
    }

    /// Copies what is at `address`, wherever that is in the space, to `buffer`.
    pub fn read_at(&self, address: VirtAddr, buffer: &mut [u8]) -> Result<(), TouchError> {
        self.memory.space.read_at(address, buffer)
    }

    /// Leaves everything mapped.
    pub fn leak(mut self) -> Vec<ImageRecord> {
        self.memory.ranges.clear();
        std::mem::take(&mut self.records)
    }
}

impl Space {
    /// Maps the segments of the ELF file that `object` has the bytes of, all or nothing, as
    /// [`map_image`](crate::image::map_image) maps those of a file: private segments of the object, within the budget
    /// of its cache. What is zeros, or stored to, is not.
    ///
    /// Programs of fixed addresses need a window that holds these, and their place free there.
    ///
    /// # Errors
    ///
    /// `Object` if the object cannot lend its frames. Then those of `map_image`, in the same order, but for what is
    /// about open files.
    pub fn map_image(
        &self,
        object: &MemoryObject,
        options: &ImageMapOptions,
    ) -> Result<SpaceImage<'_>, MapImageError> {
        let pins = MapOptions::new().delivery(Delivery::PinOnly).sharing(options::Sharing::Shared);
        // First, since what is only pinned has no frames to lend; and kept until the first segment has them.
        let lent = object.lend_frames().map_err(MapImageError::Object)?;
        let bytes = object.map(0..object.len(), pins).map_err(MapImageError::Object)?;
        let plan = plan_object(&bytes, options)?;
        let (memory, start) = Taken::reserve(self, &plan)?;
        let host = SpaceHost { memory, object, bytes };
        let memory = do_steps(host, &plan, start)?;
        drop(lent);
        Ok(SpaceImage { memory, records: plan.records_at(start) })
    }
}

fn plan_object(bytes: &Mapping, options: &ImageMapOptions) -> Result<ImagePlan, MapImageError> {
    let ImageMapOptions { interpret, padding_bytes, room_records } = *options;
    let options = ImageOptions { interpret, padding_bytes, room_records, page_size: PageSize::SMALL };
    let source = FileFacts { length_bytes: bytes.len(), execution: Execution::Allowed };
    let read = |offset: u64, buffer: &mut [u8]| {
        let count = bytes.len().saturating_sub(offset).min(buffer.len() as u64) as usize;
        bytes.read_at(offset, &mut buffer[..count]).map(|()| count)
    };
    plan_with(source, &options, read).map_err(|failure| match failure {
        PlanFailure::Image(error) => MapImageError::Plan(error),
        PlanFailure::Read(error) => MapImageError::Read(unreadable(error)),
    })
}

/// Ranges of a space that belong to one image.
#[derive(Debug)]
struct Taken<'a> {
    space: &'a Space,
    ranges: Vec<AddressRange>,
}

impl<'a> Taken<'a> {
    /// Takes the addresses of `plan`, and says where its first byte is.
    fn reserve(space: &'a Space, plan: &ImagePlan) -> Result<(Self, VirtAddr), MapImageError> {
        let mut taken = Self { space, ranges: Vec::new() };
        match plan.placement {
            Placement::Anywhere { length_bytes, base_bytes, align_bytes } => {
                let start = taken
                    .anywhere(length_bytes, base_bytes, align_bytes)
                    .map_err(|_| MapImageError::NoRoom { length_bytes })?;
                Ok((taken, start))
            }
            Placement::Fixed => {
                let reserved = plan.steps.iter().filter_map(|step| match step {
                    Step::Reserve { pages } => Some(*pages),
                    _ => None,
                });
                for pages in reserved {
                    let at = Place::FixedFree(VirtAddr(pages.start));
                    taken.take(at, pages.length_bytes()).map_err(|error| not_taken(pages, error))?;
                }
                Ok((taken, VirtAddr(0)))
            }
        }
    }

    fn take(&mut self, place: Place, length: u64) -> Result<VirtAddr, VerbError> {
        let (source, sharing) = (SegmentSource::Reserved, Sharing::Private);
        let request = SegmentRequest::new(length, source, Prot::NONE, sharing).place(place);
        let start = self.space.map(&request)?.start;
        self.ranges.push(AddressRange { start: start.0, end: start.0 + length });
        Ok(start)
    }

    /// Takes `length` bytes such that `base` bytes further on is a multiple of `align`.
    fn anywhere(&mut self, length: u64, base: u64, align: u64) -> Result<VirtAddr, VerbError> {
        let padded = length.checked_add(align - PAGE).ok_or(SpaceError::TooLong { length })?;
        let raw = self.take(Place::Anywhere, padded)?.0;
        let start = (raw + base).next_multiple_of(align) - base;
        let (head, tail) = (start - raw, raw + padded - (start + length));
        if head > 0 {
            self.space.unmap(VirtAddr(raw), head)?;
        }
        if tail > 0 {
            self.space.unmap(VirtAddr(start + length), tail)?;
        }
        self.ranges = std::iter::once(AddressRange { start, end: start + length }).collect();
        Ok(VirtAddr(start))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for range in &self.ranges {
            // It fails only where the kernel has no memory to split a mapping; then it stays until the space goes.
            let _ = self.space.unmap(VirtAddr(range.start), range.length_bytes());
        }
    }
}

fn not_taken(range: AddressRange, error: VerbError) -> MapImageError {
    match error {
        VerbError::Space(SpaceError::Taken { .. }) => MapImageError::InUse { range },
        VerbError::Space(_) => MapImageError::NoRoom { length_bytes: range.length_bytes() },
        other => MapImageError::Map { range, source: refused(other) },
    }
}

/// Does the steps of a plan in a space.
#[derive(Debug)]
struct SpaceHost<'a, 'b> {
    memory: Taken<'a>,
    object: &'b MemoryObject,
    bytes: Mapping,
}

impl SpaceHost<'_, '_> {
    fn map(&self, pages: AddressRange, source: SegmentSource<'_>, prot: Prot) -> io::Result<()> {
        let (place, sharing) = (Place::Fixed(VirtAddr(pages.start)), Sharing::Private);
        let request = SegmentRequest::new(pages.length_bytes(), source, prot, sharing).place(place);
        self.memory.space.map(&request).map(drop).map_err(refused)
    }

    fn map_zero(&self, pages: AddressRange, prot: Prot) -> io::Result<()> {
        self.map(pages, SegmentSource::Anonymous, prot)
    }

    fn protect(&self, pages: AddressRange, prot: Prot) -> io::Result<()> {
        let (start, length) = (VirtAddr(pages.start), pages.length_bytes());
        self.memory.space.protect(start, length, prot).map_err(refused)
    }

    /// Copies bytes of the object to zeros that can be stored to.
    fn copy(&self, bytes: AddressRange, offset: u64) -> io::Result<()> {
        let mut buffer = vec![0; (64 << 10).min(bytes.length_bytes() as usize)];
        let mut done = 0;
        while done < bytes.length_bytes() {
            let part = &mut buffer[..(bytes.length_bytes() - done).min(64 << 10) as usize];
            self.bytes.read_at(offset + done, part).map_err(unreadable)?;
            let at = VirtAddr(bytes.start + done);
            self.memory.space.write_at(at, part).map_err(io::Error::other)?;
            done += part.len() as u64;
        }
        Ok(())
    }
}

impl<'a> ImageHost for SpaceHost<'a, '_> {
    type Memory = Taken<'a>;

    fn apply(&mut self, step: &Step) -> io::Result<()> {
        match *step {
            Step::Reserve { .. } => Ok(()),
            Step::MapFile { pages, offset, prot } => {
                self.map(pages, SegmentSource::Object { object: self.object, offset: offset.0 }, prot)
            }
            Step::ZeroTail { bytes, offset, prot } => {
                let page = AddressRange { start: bytes.start / PAGE * PAGE, end: bytes.end };
                self.map_zero(page, Prot::READ | Prot::WRITE)?;
                self.copy(AddressRange { end: bytes.start, ..page }, offset.0)?;
                self.protect(page, prot)
            }
            Step::MapZero { pages, prot } => self.map_zero(pages, prot),
            Step::ReadFile { bytes, offset } => self.copy(bytes, offset.0),
            Step::Protect { pages, prot } => self.protect(pages, prot),
            Step::Release { pages } => {
                self.memory.space.unmap(VirtAddr(pages.start), pages.length_bytes()).map_err(refused)
            }
        }
    }

    fn finish(self) -> Self::Memory {
        self.memory
    }
}

fn refused(error: VerbError) -> io::Error {
    match error {
        VerbError::System { source, .. } => source,
        other => io::Error::other(other),
    }
}

fn unreadable(error: AccessError) -> io::Error {
    match error {
        // What a file that ends too early is to the kernel's host.
        AccessError::OutOfRange { .. } => rustix::io::Errno::FAULT.into(),
        other => io::Error::other(other),
    }
}
