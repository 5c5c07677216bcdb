//! What a verb did, for the host to do to its page tables.

use super::{Guard, Segment};
use memobj_core::address::VirtAddr;

/// One thing that happened to an address space. Verbs report changes in the order in which hosts have to apply them,
/// also those that took effect before the verb was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// This is mapped now, and nothing was.
    Mapped(Segment),
    /// This was mapped, and is not now.
    Unmapped(Segment),
    /// This has other attributes than before; what is in its pages stays.
    Changed {
        /// As it was.
        before: Segment,
        /// As it is.
        after: Segment,
    },
    /// What was in the pages of this goes: private ones become what is behind the segment. Guards stay.
    Dropped(Segment),
    /// What was in the private pages of `from` is now in those of `to`, as long, and so are their guards.
    Moved {
        /// Where it was.
        from: Segment,
        /// Where it is; nothing was there.
        to: VirtAddr,
    },
    /// Guards are laid over the pages of this, whose contents go; or they are taken away.
    Guarded(Segment, Guard),
    /// A hole is to be punched into the object behind this.
    Punched(Segment),
    /// What was stored into the object behind this is to be written back.
    Synced(Segment),
}
