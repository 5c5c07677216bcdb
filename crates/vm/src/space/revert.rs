//! Taking back what a host could not do.

use super::{AddressSpace, Change};

impl AddressSpace {
    /// Makes segments what they were before `changes`, the last of what verbs have changed, in the order in which they
    /// were reported. For hosts that cannot apply them: for want of memory, say.
    ///
    /// What pages hold is the host's own: of moved, dropped and guarded pages there is nothing to take back here.
    pub fn revert(&mut self, changes: &[Change]) {
        for change in changes.iter().rev() {
            match *change {
                Change::Mapped(segment) => self.take(segment),
                Change::Unmapped(segment) => self.put(segment),
                Change::Changed { before, after } => {
                    self.take(after);
                    self.put(before);
                }
                Change::Dropped(_)
                | Change::Moved { .. }
                | Change::Guarded(..)
                | Change::Punched(_)
                | Change::Synced(_) => {}
            }
        }
    }
}
