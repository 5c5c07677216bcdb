//! What changes of the table do to the memory of this process.

use std::io;
use std::ops::Range;

use memobj_core::address::VirtAddr;
use memobj_linux::space::{Charged, NotMapped, Shows, SpaceMemory};
use memobj_vm::space::{Backing, Change, Charge, Segment};

use super::VerbError;
use super::state::State;

const MAP: &str = "map a segment";

impl State {
    /// Does to the memory what a verb has changed; if that is refused on the way, the rest of the changes is taken back.
    pub(super) fn apply(&mut self, memory: &SpaceMemory, changes: &[Change]) -> Result<(), VerbError> {
        let mut rest = changes;
        while !rest.is_empty() {
            match self.apply_first(memory, rest) {
                Ok(count) => rest = &rest[count..],
                Err((kept, what, source)) => {
                    self.space.revert(&rest[kept..]);
                    return Err(VerbError::System { what, source });
                }
            }
        }
        Ok(())
    }

    /// Does the first of `changes` and those that belong to it; how many these were. The error says how many of them
    /// stay done.
    fn apply_first(&mut self, memory: &SpaceMemory, changes: &[Change]) -> Result<usize, Refused> {
        match changes[0] {
            Change::Mapped(segment) => {
                let (NotMapped::Kept(source) | NotMapped::Lost(source)) =
                    match self.map(memory, segment, changes.get(1)) {
                        Ok(count) => return Ok(count),
                        Err(error) => error,
                    };
                Err((0, MAP, source))
            }
            Change::Unmapped(_) => self.unmap(memory, changes),
            Change::Changed { before, after } => {
                memory.protect(range(&after), after.attributes.prot).map_err(|source| {
                    // Of several mappings of the kernel's, the first ones can have changed.
                    let _ = memory.protect(range(&before), before.attributes.prot);
                    (0, "protect a segment", source)
                })?;
                Ok(1)
            }
            Change::Dropped(segment) => {
                let dropped = match segment.backing {
                    Backing::Reserved => Ok(()),
                    _ => memory.drop_pages(range(&segment)),
                };
                dropped.map_err(|source| (0, "drop the pages of a segment", source))?;
                self.failures.forget(addresses(&segment));
                Ok(1)
            }
            // A move comes with the mapping before it; the others are refused before they get here.
            Change::Moved { .. } | Change::Guarded(..) | Change::Punched(_) | Change::Synced(_) => Ok(1),
        }
    }

    /// Frees a range; if something is mapped over all of it next, by one call for both.
    fn unmap(&mut self, memory: &SpaceMemory, changes: &[Change]) -> Result<usize, Refused> {
        let gone = |change: &Change| if let Change::Unmapped(part) = change { Some(*part) } else { None };
        let parts: Vec<Segment> = changes.iter().map_while(gone).collect();
        if let Some(Change::Mapped(next)) = changes.get(parts.len())
            && parts.iter().all(|part| next.start <= part.start && part.end() <= next.end())
        {
            let count = parts.len();
            return match self.map(memory, *next, changes.get(count + 1)) {
                Ok(more) => {
                    parts.iter().for_each(|part| self.forget(part));
                    Ok(count + more)
                }
                Err(NotMapped::Lost(source)) => {
                    parts.iter().for_each(|part| self.forget(part));
                    Err((count, MAP, source))
                }
                Err(NotMapped::Kept(source)) => Err((0, MAP, source)),
            };
        }
        memory.reserve(range(&parts[0])).map_err(|source| (0, "unmap a segment", source))?;
        self.forget(&parts[0]);
        Ok(1)
    }

    fn forget(&mut self, part: &Segment) {
        self.failures.forget(addresses(part));
        if let Backing::Object { id, .. } = part.backing {
            self.objects.release(id, part.length);
        }
    }

    /// Maps `segment`, and moves into it what `next` says. How many changes these were.
    fn map(
        &mut self,
        memory: &SpaceMemory,
        segment: Segment,
        next: Option<&Change>,
    ) -> Result<usize, NotMapped> {
        let moved = match next {
            Some(Change::Moved { from, to }) if *to == segment.start => Some(*from),
            _ => None,
        };
        self.map_new(memory, &segment)?;
        if let Some(from) = moved {
            self.move_in(memory, &from, &segment).map_err(|source| {
                let _ = memory.reserve(range(&segment));
                NotMapped::Lost(source)
            })?;
        }
        if let Backing::Object { id, .. } = segment.backing {
            self.objects.retain(id, segment.length);
        }
        Ok(1 + usize::from(moved.is_some()))
    }

    fn map_new(&self, memory: &SpaceMemory, segment: &Segment) -> Result<(), NotMapped> {
        let (pages, prot) = (range(segment), segment.attributes.prot);
        let charged = match segment.attributes.charge {
            Charge::Counted => Charged::Yes,
            Charge::Uncounted => Charged::No,
        };
        match segment.backing {
            Backing::Reserved => memory.reserve(pages).map_err(NotMapped::Kept),
            Backing::Anonymous => memory.map_anonymous(pages, prot, charged),
            Backing::Object { id, offset } => {
                let unknown = || NotMapped::Kept(io::ErrorKind::NotFound.into());
                let frames = self.objects.frames(id).ok_or_else(unknown)?;
                memory.map_frames(pages, frames.file(), offset.0, prot, charged)
            }
        }
    }

    /// Moves the pages of `from` to the start of `segment`, which was just mapped.
    fn move_in(&mut self, memory: &SpaceMemory, from: &Segment, segment: &Segment) -> io::Result<()> {
        let shows = match segment.backing {
            Backing::Reserved => return Ok(()),
            Backing::Anonymous => Shows::Anonymous,
            Backing::Object { .. } => Shows::Frames,
        };
        // Poison does not go along: who comes to a failed page at its new address finds it anew.
        for page in self.failures.in_range(addresses(from)) {
            memory.drop_pages(page as usize..page as usize + 4096)?;
            self.failures.forget(page..page + 4096);
        }
        let (old, prot) = (range(from), segment.attributes.prot);
        let moved = memory.move_pages(old.clone(), segment.start.0 as usize, prot, shows);
        // Nobody may access it now. If it is to stay, it is as it was, without its private pages.
        let opened = memory.protect(old, from.attributes.prot);
        moved.and(opened)
    }
}

/// How many of the changes stay done, what was refused, and why.
type Refused = (usize, &'static str, io::Error);

fn addresses(segment: &Segment) -> Range<u64> {
    segment.start.0..segment.end().0
}

fn range(segment: &Segment) -> Range<usize> {
    let (VirtAddr(start), VirtAddr(end)) = (segment.start, segment.end());
    start as usize..end as usize
}
