//! What the verbs of a space and the event loop share.

use std::ops::Range;

use memobj_core::address::{ObjectOffset, VirtAddr};
use memobj_core::prot::Prot;
use memobj_linux::capability::loads;
use memobj_vm::space::{
    AddressSpace, Backing, Limits, MapRequest, ObjectId, ObjectKind, ObjectView, OnFork, Segment,
    SegmentContent,
};

use super::failures::Failures;
use super::objects::Objects;
use super::{SegmentRequest, SegmentSource, SpaceError, SpaceOptions};
use crate::lend::LentFrames;

/// Bytes of an object that one fault obtains at most.
const AROUND: u64 = 64 << 10;

/// The table of segments, and what belongs to it. While it is locked nobody touches memory of the space.
#[derive(Debug)]
pub(super) struct State {
    pub(super) space: AddressSpace,
    pub(super) objects: Objects,
    pub(super) failures: Failures,
}

/// What is behind an address.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) frames: LentFrames,
    pub(super) id: ObjectId,
    /// The byte of the object that is behind the page.
    pub(super) offset: u64,
    /// Which of its bytes may be obtained together: those of the segment, near the page.
    pub(super) around: Range<u64>,
}

impl State {
    pub(super) fn new(window: Range<usize>, options: &SpaceOptions) -> Self {
        let limits = Limits {
            segments: options.segments,
            loads: loads(),
            ..Limits::between(VirtAddr(window.start as u64), VirtAddr(window.end as u64))
        };
        Self { space: AddressSpace::new(limits), objects: Objects::default(), failures: Failures::default() }
    }

    /// What is behind the page at `address`, if that is an object.
    pub(super) fn behind(&self, address: VirtAddr) -> Option<Behind> {
        let segment = self.space.lookup(address)?;
        let (id, ObjectOffset(at)) = segment.object_at(address)?;
        let Backing::Object { offset: ObjectOffset(first), .. } = segment.backing else { return None };
        let frames = self.objects.frames(id)?.clone();
        let offset = at / 4096 * 4096;
        let around = (offset / AROUND * AROUND).max(first);
        let end = (offset / AROUND * AROUND).saturating_add(AROUND).min(first.saturating_add(segment.length));
        Some(Behind { frames, id, offset, around: around..end })
    }

    /// Whether `request` would be accepted, for what is behind it under the name `id`.
    pub(super) fn check(&mut self, request: &MapRequest) -> Result<Segment, SpaceError> {
        let mut changes = Vec::new();
        let mapped = self.space.map(request, &mut changes);
        self.space.revert(&changes);
        mapped
    }
}

/// `request` in the words of core, with `id` as the name of its object.
pub(super) fn translate(request: &SegmentRequest<'_>, id: ObjectId) -> MapRequest {
    let source = match request.source {
        SegmentSource::Anonymous => SegmentContent::Anonymous { memory: id },
        SegmentSource::Reserved => SegmentContent::Reserved,
        SegmentSource::Object { offset, .. } => {
            let (opened, kind) = (Prot::READ, ObjectKind::Plain);
            SegmentContent::Object { view: ObjectView { id, opened, kind, largest: i64::MAX as u64 }, offset }
        }
    };
    let new = MapRequest::new(request.length, source, request.prot, request.sharing);
    MapRequest { place: request.place, on_fork: OnFork::Drop, ..new }
}
