//! Placing segments.

use super::index::check_aligned;
use super::place::mapped_length;
use super::{
    AddressSpace, Attributes, Backing, Change, Growth, Lock, MapRequest, ObjectKind, ObjectView, Place,
    Segment, SegmentContent, Sharing, SpaceError, Usage,
};
use alloc::vec::Vec;
use memobj_core::address::ObjectOffset;
use memobj_core::prot::Prot;

const ALL: Prot = Prot::READ.union(Prot::WRITE).union(Prot::EXECUTE);

impl AddressSpace {
    /// Maps what `request` asks for and returns the segment, as it was before it was joined to its neighbours.
    ///
    /// Errors come in the order in which Linux looks for them, and when one is returned nothing has changed:
    /// offset, length, number of segments, place, what may be locked, the object's range, the flags, what the object
    /// was opened for, and at last the limits. As on Linux, a map is refused only if there are more segments than
    /// the limit before it, so that there can be one more.
    pub fn map(&mut self, request: &MapRequest, changes: &mut Vec<Change>) -> Result<Segment, SpaceError> {
        if let SegmentContent::Object { offset, .. } = request.source {
            check_aligned(offset)?;
        }
        let length = mapped_length(request.length)?;
        self.check_count(0)?;
        let start = self.choose(request.place, length)?;
        let lock = self.lock_of_new(request.lock, length)?;
        let (backing, mut attributes) = describe(request, length)?;
        attributes.lock = lock;
        let segment = Segment { start, length, backing, attributes };
        self.replace(segment, changes)?;
        Ok(segment)
    }

    /// The lock of a new segment, if it may have it.
    fn lock_of_new(&self, asked: Lock, length: u64) -> Result<Lock, SpaceError> {
        if asked != Lock::Unlocked && self.limits.locked_bytes == 0 {
            return Err(SpaceError::LockForbidden);
        }
        let lock = if asked == Lock::Unlocked { self.lock_later } else { asked };
        if lock != Lock::Unlocked {
            self.check_locked(length)?;
        }
        Ok(lock)
    }

    /// Puts `segment` in place of what is there, if the limits allow it.
    fn replace(&mut self, segment: Segment, changes: &mut Vec<Change>) -> Result<(), SpaceError> {
        let (start, end) = (segment.start.0, segment.end().0);
        self.check_hole(start, end)?;
        let old = self.collect(start, end);
        let less = old.iter().fold(Usage::default(), |sum, part| sum.plus(Usage::of(part)));
        self.check_usage(Usage::of(&segment), less)?;
        for part in old {
            self.take(part);
            changes.push(Change::Unmapped(part));
        }
        self.put(segment);
        changes.push(Change::Mapped(segment));
        Ok(())
    }

    /// Maps anywhere what `request` asks for, without saying what changed: for spaces that nothing is applied to.
    pub fn map_quietly(&mut self, request: &MapRequest) -> Result<Segment, SpaceError> {
        self.map(request, &mut Vec::new())
    }
}

impl Place {
    /// Whether the caller chose the address.
    pub const fn is_fixed(self) -> bool {
        matches!(self, Place::Fixed(_) | Place::FixedFree(_))
    }
}

/// What the segment will be, if the object and the flags allow it.
fn describe(request: &MapRequest, length: u64) -> Result<(Backing, Attributes), SpaceError> {
    if let SegmentContent::Object { view, offset } = request.source {
        check_object_range(&view, offset, length)?;
    }
    let sharing = request.sharing?;
    let mut attributes = Attributes {
        prot: request.prot,
        max_prot: ALL,
        sharing,
        lock: request.lock,
        growth: request.growth,
        charge: request.charge,
        on_fork: request.on_fork,
        on_exec: request.on_exec,
        ..Attributes::default()
    };
    let backing = match request.source {
        SegmentContent::Object { view, offset } => {
            attributes.max_prot = check_view(&view, request.prot, sharing)?;
            Backing::Object { id: view.id, offset: ObjectOffset(offset) }
        }
        SegmentContent::Anonymous { memory } if sharing == Sharing::Shared => {
            Backing::Object { id: memory, offset: ObjectOffset(0) }
        }
        SegmentContent::Anonymous { .. } => Backing::Anonymous,
        SegmentContent::Reserved => {
            (attributes.prot, attributes.max_prot) = (Prot::NONE, Prot::NONE);
            Backing::Reserved
        }
    };
    if request.growth == Growth::Down && backing != Backing::Anonymous {
        return Err(SpaceError::BadFlags);
    }
    if let SegmentContent::Object { view, .. } = request.source
        && view.kind == ObjectKind::Sealed
        && sharing == Sharing::Shared
    {
        if request.prot.contains(Prot::WRITE) {
            return Err(SpaceError::Sealed);
        }
        attributes.max_prot = Prot::READ | Prot::EXECUTE;
    }
    Ok((backing, attributes))
}

fn check_object_range(view: &ObjectView, offset: u64, length: u64) -> Result<(), SpaceError> {
    match offset.checked_add(length) {
        Some(end) if end <= view.largest => Ok(()),
        _ => Err(SpaceError::OffsetTooLarge { offset, length }),
    }
}

/// The most that a segment of the object may be protected to, if it may be what is asked for now.
fn check_view(view: &ObjectView, prot: Prot, sharing: Sharing) -> Result<Prot, SpaceError> {
    let mut max_prot = ALL;
    let writable = view.opened.contains(Prot::WRITE);
    if sharing == Sharing::Shared {
        if prot.contains(Prot::WRITE) && !writable {
            return Err(SpaceError::ObjectDenied { missing: Prot::WRITE });
        }
        if view.kind == ObjectKind::AppendOnly && writable {
            return Err(SpaceError::AppendOnly);
        }
        if !writable {
            max_prot = Prot::READ | Prot::EXECUTE;
        }
    }
    if !view.opened.contains(Prot::READ) {
        return Err(SpaceError::ObjectDenied { missing: Prot::READ });
    }
    match view.kind {
        ObjectKind::NoExecute if prot.contains(Prot::EXECUTE) => Err(SpaceError::NoExecute),
        ObjectKind::NoExecute => Ok(max_prot.without(Prot::EXECUTE)),
        ObjectKind::NotMappable => Err(SpaceError::NotMappable),
        _ => Ok(max_prot),
    }
}
