//! Closes objects that nobody maps any more.
//!
//! Nobody tells of an munmap(2), so it is looked: a space keeps the objects that it maps, as the kernel's table says, and
//! lets go of the others. What only this module has at two looks in a row is closed. A fork that is under way during one
//! look is known by the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Files, FramesId, MappedObject};

/// How often it is looked.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
const CLOSED_AT_LOOK: u32 = 2;

impl FramesId {
    /// Of a range that maps a file.
    pub(crate) fn of(found: &memobj_tracer::MappedFile) -> Self {
        Self { device: found.device, inode: found.inode }
    }
}

impl Files {
    pub(crate) fn close_idle(&self) {
        let mut current = self.current.lock();
        let mut by_frames = self.by_frames.write();
        let mut closed = Vec::new();
        for object in by_frames.values() {
            let known =
                current.get(&(object.id, object.mapping_kind)).is_some_and(|it| Arc::ptr_eq(it, object));
            // Nobody else has it: nobody can come by it while both tables are locked.
            let ours = 1 + usize::from(known);
            let looks = match Arc::strong_count(object) > ours {
                true => 0,
                false => object.idle_looks.load(Ordering::Relaxed) + 1,
            };
            object.idle_looks.store(looks, Ordering::Relaxed);
            if looks >= CLOSED_AT_LOOK {
                closed.push(Arc::clone(object));
            }
        }
        for object in &closed {
            by_frames.remove(&object.frames);
            if current.get(&(object.id, object.mapping_kind)).is_some_and(|known| Arc::ptr_eq(known, object))
            {
                current.remove(&(object.id, object.mapping_kind));
            }
        }
        drop((current, by_frames));
        closed.into_iter().for_each(|object| self.close(object));
    }

    fn close(&self, object: Arc<MappedObject>) {
        self.let_go(&object);
    }
}
