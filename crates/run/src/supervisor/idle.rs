//! When to look for objects that nobody maps any more.

use std::collections::HashSet;
use std::time::Instant;

use super::Supervisor;
use crate::files::FramesId;
use crate::program_space::ProgramSpace;

/// At least this many times as long as the last look took.
const PAUSE_FACTOR: u32 = 20;

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
    fn mapped_frames(&self, space: &ProgramSpace) -> Option<HashSet<FramesId>> {
        let files = space.maps.files().ok()?;
        Some(files.iter().map(FramesId::of).collect())
    }
}
