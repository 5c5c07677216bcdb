//! The objects that have segments.

use std::collections::HashMap;

use memobj_vm::space::ObjectId;

use crate::lend::LentFrames;

/// Frames of objects, by the names that segments have for them; kept as long as a byte of them is mapped.
#[derive(Debug, Default)]
pub(super) struct Objects {
    lent: HashMap<ObjectId, Lent>,
    ids: HashMap<usize, ObjectId>,
    next: u64,
}

#[derive(Debug)]
struct Lent {
    frames: LentFrames,
    mapped_bytes: u64,
}

impl Objects {
    /// A name that was not used before.
    pub(super) fn new_id(&mut self) -> ObjectId {
        self.next += 1;
        ObjectId(self.next)
    }

    /// The name of an object that has segments.
    pub(super) fn known(&self, key: usize) -> Option<ObjectId> {
        self.ids.get(&key).copied()
    }

    /// The name of the object of `frames`, which is new if it has no segment.
    pub(super) fn admit(&mut self, frames: LentFrames) -> ObjectId {
        let key = frames.key();
        self.known(key).unwrap_or_else(|| {
            let id = self.new_id();
            self.ids.insert(key, id);
            self.lent.insert(id, Lent { frames, mapped_bytes: 0 });
            id
        })
    }

    pub(super) fn frames(&self, id: ObjectId) -> Option<&LentFrames> {
        self.lent.get(&id).map(|lent| &lent.frames)
    }

    pub(super) fn retain(&mut self, id: ObjectId, bytes: u64) {
        if let Some(lent) = self.lent.get_mut(&id) {
            lent.mapped_bytes += bytes;
        }
    }

    pub(super) fn release(&mut self, id: ObjectId, bytes: u64) {
        if let Some(lent) = self.lent.get_mut(&id) {
            lent.mapped_bytes = lent.mapped_bytes.saturating_sub(bytes);
        }
    }

    /// The frames of objects that have no segment any more: to be dropped without a lock, since that can end an object.
    pub(super) fn take_unused(&mut self) -> Vec<LentFrames> {
        let unused: Vec<ObjectId> =
            self.lent.iter().filter(|(_, lent)| lent.mapped_bytes == 0).map(|(id, _)| *id).collect();
        let taken: Vec<LentFrames> =
            unused.iter().filter_map(|id| self.lent.remove(id)).map(|lent| lent.frames).collect();
        for frames in &taken {
            self.ids.remove(&frames.key());
        }
        taken
    }
}
