//! Closes objects that nobody maps any more.
//!
//! Nobody tells of an munmap(2), so it is looked: a space keeps the objects that it maps, as the kernel's table says, and
//! lets go of the others. What only this module has at two looks in a row is closed. A fork that is under way during one
//! look is known by the next.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Files, FramesId, MappedObject};
use crate::space::Space;
use crate::supervisor::Supervisor;

/// How often it is looked.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// At least this many times as long as the last look took.
const PAUSE_FACTOR: u32 = 20;
const CLOSED_AT_LOOK: u32 = 2;

/// When to look for objects that nobody maps.
#[derive(Debug)]
pub(crate) struct Looks {
    next: Instant,
}

impl Looks {
    pub(crate) fn new() -> Self {
        Self { next: Instant::now() }
    }
}

impl Supervisor {
    /// Closes what nobody has mapped for two looks, unless it is too early to look again.
    pub(crate) fn look_for_idle(&mut self) {
        let begun = Instant::now();
        if begun < self.looks.next || self.births_are_under_way() {
            return;
        }
        for space in self.faults.spaces() {
            if let Some(mapped) = self.mapped_frames(&space) {
                space.keep_only(&mapped);
            }
        }
        self.files.close_idle();
        self.looks.next = Instant::now() + begun.elapsed() * PAUSE_FACTOR;
    }

    /// Which frames the space maps. `None`: that cannot be known, or it is gone.
    fn mapped_frames(&self, space: &Space) -> Option<HashSet<FramesId>> {
        let files = space.maps.files().ok()?;
        Some(files.iter().map(FramesId::of).collect())
    }
}

impl FramesId {
    /// Of a range that maps a file.
    pub(crate) fn of(found: &memobj_sys::trace::MappedFile) -> Self {
        Self { device: found.device, inode: found.inode }
    }
}

impl Files {
    fn close_idle(&self) {
        let mut current = self.current();
        let mut by_frames = self.by_frames();
        let mut closed = Vec::new();
        for object in by_frames.values() {
            let known = current.get(&(object.id, object.wish)).is_some_and(|it| Arc::ptr_eq(it, object));
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
            if current.get(&(object.id, object.wish)).is_some_and(|known| Arc::ptr_eq(known, object)) {
                current.remove(&(object.id, object.wish));
            }
        }
        drop((current, by_frames));
        closed.into_iter().for_each(|object| self.close(object));
    }

    fn close(&self, object: Arc<MappedObject>) {
        object.give_way();
        self.guardian.forget(object.hold);
    }
}
