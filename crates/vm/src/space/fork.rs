//! What a forked child and a new program have.

use super::{AddressSpace, Attributes, Change, Lock, OnExec, Segment};
use alloc::vec::Vec;

impl AddressSpace {
    /// The address space of a forked child: without what is not inherited, and with nothing locked.
    ///
    /// The contents, and with them the guards, are the host's concern.
    pub fn fork(&self) -> Self {
        let mut child = Self::new(self.limits);
        for segment in self.iter().filter(|segment| segment.attributes.on_fork.is_inherited()) {
            let attributes = Attributes { lock: Lock::Unlocked, ..segment.attributes };
            child.put(Segment { attributes, ..segment });
        }
        child
    }

    /// Drops what another program does not get, which is all that was not mapped to be kept; nothing stays locked.
    pub fn exec(&mut self, changes: &mut Vec<Change>) {
        self.lock_later = Lock::Unlocked;
        let kept = Self::new(self.limits);
        let before = core::mem::replace(self, kept);
        for segment in before.iter() {
            if segment.attributes.on_exec == OnExec::Drop {
                changes.push(Change::Unmapped(segment));
                continue;
            }
            let attributes = Attributes { lock: Lock::Unlocked, ..segment.attributes };
            let after = Segment { attributes, ..segment };
            self.put(after);
            changes.push(Change::Changed { before: segment, after });
        }
    }
}
