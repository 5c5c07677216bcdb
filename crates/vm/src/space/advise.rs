//! What is told about the use of segments.

use super::index::{check_aligned, round_up};
use super::{
    AddressSpace, Attributes, Backing, Change, Dump, Guard, Lock, Pattern, Segment, Sharing, SpaceError,
};
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;

/// What is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Advice {
    /// In which order the pages will be used.
    Use(Pattern),
    /// Pages will be needed, are cold, should be huge, and so on: nothing that could be seen.
    Hint,
    /// As [`Advice::Hint`], about unlocked segments only: pages are cold, or should leave memory.
    Cold,
    /// Private pages are dropped. Loads give what is behind the segment.
    DontNeed,
    /// The same, also of locked segments.
    DontNeedLocked,
    /// Pages of anonymous segments may be dropped until they are stored to again. Here they stay.
    Free,
    /// A hole is punched into the object.
    Remove,
    /// A forked child does not have the segment.
    DontFork,
    /// It does.
    DoFork,
    /// A forked child has zeros in place of the contents.
    WipeOnFork,
    /// It has the contents.
    KeepOnFork,
    /// Whether a dump holds the segment.
    Dump(Dump),
    /// Guards are laid over pages, whose contents go; or taken away.
    Guard(Guard),
}

impl AddressSpace {
    /// Takes `advice`, or finds that it was none, for the `length` bytes at `start`, rounded up to pages.
    ///
    /// Goes on past holes, and reports one at the end; a segment that the advice is not for ends it, and what lies
    /// below has been done.
    pub fn advise(
        &mut self,
        start: VirtAddr,
        length: u64,
        advice: Result<Advice, SpaceError>,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        let advice = advice?;
        let Some(end) = checked_end(start, length)? else { return Ok(()) };
        let (mut at, mut hole) = (start.0, None);
        for part in self.collect(start.0, end) {
            if part.start.0 != at {
                hole = hole.or(Some(at));
            }
            self.advise_part(part, advice, changes)?;
            at = part.end().0;
        }
        match hole.or((at < end).then_some(at)) {
            Some(address) => Err(SpaceError::Hole { address: VirtAddr(address) }),
            None => Ok(()),
        }
    }

    fn advise_part(
        &mut self,
        part: Segment,
        advice: Advice,
        changes: &mut Vec<Change>,
    ) -> Result<(), SpaceError> {
        let old = part.attributes;
        let (start, anonymous) = (part.start, part.backing == Backing::Anonymous);
        let locked = old.lock != Lock::Unlocked;
        let attributes = match advice {
            Advice::Hint => old,
            Advice::Cold | Advice::DontNeed | Advice::Free | Advice::Remove if locked => {
                return Err(SpaceError::IsLocked { start });
            }
            Advice::Guard(Guard::Guarded) if locked => return Err(SpaceError::IsLocked { start }),
            Advice::Free | Advice::WipeOnFork if !anonymous => {
                return Err(SpaceError::WrongKind { start });
            }
            Advice::Cold | Advice::Free => old,
            Advice::DontNeed | Advice::DontNeedLocked => {
                changes.push(Change::Dropped(part));
                old
            }
            Advice::Remove => {
                check_removable(&part)?;
                changes.push(Change::Punched(part));
                old
            }
            Advice::Use(pattern) => Attributes { pattern, ..old },
            Advice::DontFork => Attributes { on_fork: old.on_fork.dropped(), ..old },
            Advice::DoFork => Attributes { on_fork: old.on_fork.inherited(), ..old },
            Advice::WipeOnFork => Attributes { on_fork: old.on_fork.wiped(), ..old },
            Advice::KeepOnFork => Attributes { on_fork: old.on_fork.kept(), ..old },
            Advice::Dump(dump) => Attributes { dump, ..old },
            Advice::Guard(guard) => {
                changes.push(Change::Guarded(part, guard));
                old
            }
        };
        if attributes == old { Ok(()) } else { self.change(part, attributes, changes) }
    }
}

fn check_removable(part: &Segment) -> Result<(), SpaceError> {
    let attributes = part.attributes;
    match part.backing {
        Backing::Object { .. } if attributes.sharing != Sharing::Shared => {}
        Backing::Object { .. } if attributes.max_prot.contains(Prot::WRITE) => return Ok(()),
        Backing::Object { .. } => {}
        Backing::Anonymous | Backing::Reserved => return Err(SpaceError::WrongKind { start: part.start }),
    }
    Err(SpaceError::ProtDenied { start: part.start, max_prot: attributes.max_prot })
}

/// The end of a range that is empty (`None`), or whose start is aligned and whose end does not wrap.
pub(super) fn checked_end(start: VirtAddr, length: u64) -> Result<Option<u64>, SpaceError> {
    check_aligned(start.0)?;
    let end = round_up(length).and_then(|length| start.0.checked_add(length));
    match end {
        Some(end) if end == start.0 => Ok(None),
        Some(end) => Ok(Some(end)),
        None => Err(SpaceError::OutOfRange { start, length }),
    }
}
