//! Moving segments and changing their length.

use super::index::{PAGE, check_aligned, round_up};
use super::{AddressSpace, Attributes, Change, Lock, Place, Segment, Sharing, SpaceError, Usage};
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;

/// Where a segment may be after it was remapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemapTo {
    /// Where it was.
    Same,
    /// Where it was, or anywhere if there is no room.
    Anywhere,
    /// Here, instead of what is there.
    Fixed(VirtAddr),
    /// Here if there is room, else anywhere; the old range stays mapped, without its private pages.
    Keep(VirtAddr),
    /// Here, instead of what is there; the old range stays mapped, without its private pages.
    KeepFixed(VirtAddr),
}

impl RemapTo {
    const fn address(self) -> Option<VirtAddr> {
        match self {
            RemapTo::Same | RemapTo::Anywhere => None,
            RemapTo::Fixed(to) | RemapTo::Keep(to) | RemapTo::KeepFixed(to) => Some(to),
        }
    }

    const fn is_fixed(self) -> bool {
        matches!(self, RemapTo::Fixed(_) | RemapTo::KeepFixed(_))
    }

    const fn keeps(self) -> bool {
        matches!(self, RemapTo::Keep(_) | RemapTo::KeepFixed(_))
    }
}

/// One remap of one segment, lengths in whole pages.
#[derive(Clone, Copy)]
struct Remap {
    from: u64,
    old: u64,
    new: u64,
    to: RemapTo,
}

impl AddressSpace {
    /// Makes what is at the `old` bytes at `from` `new` bytes long (both rounded up to pages), perhaps elsewhere, and
    /// returns where it is.
    ///
    /// As on Linux: `old` = 0 maps a shared segment a second time. A longer segment shows what follows in its object.
    /// A move to a fixed place frees that place first, and if it is refused after that, the place stays free; of the
    /// same length it may span segments and holes, and if it is refused at one, those before it have moved.
    pub fn remap(
        &mut self,
        from: VirtAddr,
        old: u64,
        new: u64,
        to: RemapTo,
        changes: &mut Vec<Change>,
    ) -> Result<VirtAddr, SpaceError> {
        check_aligned(from.0)?;
        let remap =
            Remap { from: from.0, old: round_up(old).unwrap_or(0), new: round_up(new).unwrap_or(0), to };
        self.check_remap(&remap)?;
        if to.is_fixed() && remap.old == remap.new {
            return self.move_all(&remap, changes);
        }
        let segment = self.check_source(&remap)?;
        if to.address().is_some() {
            return self.move_to(remap, changes);
        }
        if remap.new > remap.old {
            return self.expand(&remap, segment, changes);
        }
        self.shrink(&remap, changes)?;
        Ok(from)
    }

    /// What can be said without looking at segments.
    fn check_remap(&self, remap: &Remap) -> Result<(), SpaceError> {
        let &Remap { from, old, new, to } = remap;
        let high = self.limits.high.0;
        if new == 0 {
            return Err(SpaceError::Empty);
        }
        if new > high {
            return Err(SpaceError::TooLong { length: new });
        }
        let Some(start) = to.address() else { return Ok(()) };
        check_aligned(start.0)?;
        if start.0 > high - new {
            return Err(SpaceError::OutOfRange { start, length: new });
        }
        if to.keeps() && old != new {
            return Err(SpaceError::KeptResized);
        }
        if from < start.0 + new && start.0 < from.saturating_add(old) {
            return Err(SpaceError::Overlaps);
        }
        // A move needs room for the pieces that it makes on the way.
        self.check_count(6)
    }

    /// The segment at the start, if it can become what is asked for.
    fn check_source(&self, remap: &Remap) -> Result<Segment, SpaceError> {
        let &Remap { from, old, new, to } = remap;
        let segment = self.lookup(VirtAddr(from));
        let segment = segment.ok_or(SpaceError::Hole { address: VirtAddr(from) })?;
        if new <= old && to.address().is_none() {
            return Ok(segment);
        }
        if old == 0 && segment.attributes.sharing != Sharing::Shared {
            return Err(SpaceError::WrongKind { start: segment.start });
        }
        if old.min(new) > segment.end().0 - from {
            return Err(SpaceError::SeveralSegments { end: segment.end() });
        }
        if new > old {
            let more = Segment { length: new - old, ..segment };
            if segment.backing.advanced((from - segment.start.0).saturating_add(new)).is_none() {
                return Err(SpaceError::OffsetTooLarge { offset: from - segment.start.0, length: new });
            }
            if segment.attributes.lock != Lock::Unlocked {
                self.check_locked(more.length)?;
            }
            self.check_usage(Usage::of(&more), Usage::default())?;
        }
        Ok(segment)
    }

    fn shrink(&mut self, remap: &Remap, changes: &mut Vec<Change>) -> Result<(), SpaceError> {
        let &Remap { from, old, new, .. } = remap;
        if new < old {
            let (start, length) = (VirtAddr(from), old - new);
            let tail = start.checked_add(new).ok_or(SpaceError::OutOfRange { start, length })?;
            self.unmap(tail, length, changes)?;
        }
        Ok(())
    }

    fn expand(
        &mut self,
        remap: &Remap,
        segment: Segment,
        changes: &mut Vec<Change>,
    ) -> Result<VirtAddr, SpaceError> {
        let &Remap { from, old, new, to } = remap;
        let (end, length) = (segment.end(), new - old);
        let at_end = from.saturating_add(old) == end.0 && old > 0;
        if at_end && self.is_free(end.0, length) {
            let backing = segment.backing.advanced(segment.length).unwrap_or(segment.backing);
            let piece = Segment { start: end, length, backing, ..segment };
            self.put(piece);
            changes.push(Change::Mapped(piece));
            return Ok(VirtAddr(from));
        }
        if to == RemapTo::Same {
            return Err(SpaceError::NoRoom { length });
        }
        let start = self.choose(Place::Anywhere, new)?;
        self.move_one(remap, start, changes)?;
        Ok(start)
    }

    /// Moves every segment in the old range; the distances between them stay.
    fn move_all(&mut self, remap: &Remap, changes: &mut Vec<Change>) -> Result<VirtAddr, SpaceError> {
        let &Remap { from, old, to, .. } = remap;
        let target = to.address().unwrap_or(VirtAddr(from));
        let parts = self.collect(from, from.saturating_add(old));
        if parts.first().is_none_or(|part| part.start.0 != from) {
            return Err(SpaceError::Hole { address: VirtAddr(from) });
        }
        for part in parts {
            let at = VirtAddr(target.0 + (part.start.0 - from));
            let to = if to.keeps() { RemapTo::KeepFixed(at) } else { RemapTo::Fixed(at) };
            let one = Remap { from: part.start.0, old: part.length, new: part.length, to };
            self.check_source(&one)?;
            self.move_to(one, changes)?;
        }
        Ok(target)
    }

    /// Moves one segment to an address that the caller chose, or to one near it.
    fn move_to(&mut self, remap: Remap, changes: &mut Vec<Change>) -> Result<VirtAddr, SpaceError> {
        let Remap { from, new, to, .. } = remap;
        let mut remap = remap;
        if let (true, Some(target)) = (to.is_fixed(), to.address()) {
            self.unmap(target, new, changes)?;
        }
        if new < remap.old {
            self.shrink(&remap, changes)?;
            remap.old = new;
        }
        let segment = self.lookup(VirtAddr(from)).ok_or(SpaceError::Hole { address: VirtAddr(from) })?;
        if to.keeps() {
            let more = Usage::of(&Segment { length: new, ..segment });
            self.check_usage(more, Usage::default())?;
        }
        let place = match to {
            RemapTo::Fixed(to) | RemapTo::KeepFixed(to) => Place::Fixed(to),
            RemapTo::Keep(hint) => Place::Hint(hint),
            RemapTo::Same | RemapTo::Anywhere => Place::Anywhere,
        };
        let start = self.choose(place, new)?;
        self.move_one(&remap, start, changes)?;
        Ok(start)
    }

    /// Moves one segment to `start`, which is free.
    fn move_one(
        &mut self,
        remap: &Remap,
        start: VirtAddr,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        let &Remap { from, old, new, to } = remap;
        let whole = self.lookup(VirtAddr(from)).ok_or(SpaceError::Hole { address: VirtAddr(from) })?;
        let Some(backing) = whole.backing.advanced(from - whole.start.0) else { return Ok(()) };
        let part = whole.part(VirtAddr(from), VirtAddr(from + old));
        self.check_count(4)?;
        debug_assert!(new.is_multiple_of(PAGE) && new > 0);
        let moved = Segment { start, length: new, backing, ..whole };
        self.put(moved);
        changes.push(Change::Mapped(moved));
        // Without an old range this was the second mapping of a shared segment.
        let Some(part) = part else { return Ok(()) };
        changes.push(Change::Moved { from: part, to: start });
        if to.keeps() {
            return self.change(part, Attributes { lock: Lock::Unlocked, ..part.attributes }, changes);
        }
        self.take(part);
        changes.push(Change::Unmapped(part));
        Ok(())
    }
}
