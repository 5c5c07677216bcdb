//! Hands mappings of an object over to the kernel: the file itself takes the place of its frames.
//!
//! ```text
//!   a writer waits for the lease        some thread of each address space that maps the object makes the calls
//!     shared     the whole mapping becomes the kernel's, in one step
//!     private    stores are blocked; pages that were stored to are copied; the mapping becomes the kernel's, in one step
//!   then the lease is given back, and the writer goes on
//! ```
//!
//! Nothing is seen of it: until the lease is given back the file and its frames have the same bytes. What cannot be handed
//! over in time is ended, with a line: it would see old bytes.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj_tracer::{
    Call, MapCall, MappedFile, Present, Registers, Thread, far_away, read_memory, write_memory,
};

use crate::error::NotServed;
use crate::files::{FramesId, MappedObject, MappingKind, time_to_hand_over};
use crate::program_space::ProgramSpace;
use crate::supervisor::stops::NotDone;
use crate::supervisor::{Supervisor, kill};

const PAGE: u64 = 4096;
const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
/// Of a private mapping so many bytes are handed over at a time: marks of protected pages take page tables.
const PART_BYTES: u64 = 1 << 30;
const EAGAIN: i32 = 11;
/// How long it may take until a fork is read of.
const PATIENCE: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Hands over all mappings of `object` and lets who waits for its lease go on.
    pub(crate) fn hand_over(&mut self, object: &Arc<MappedObject>, until: Instant) {
        self.hand_over_but(object, until, HashSet::new());
    }

    /// The same from the stopped thread `pid`, which is about to change the file and would not wait. Returns whether it has
    /// made calls: then it is where it stopped, and stops there again.
    pub(crate) fn hand_over_from(&mut self, pid: i32, base: &Registers, object: &Arc<MappedObject>) -> bool {
        let until = time_to_hand_over();
        let mut done = HashSet::new();
        let own = self.space_of(pid).filter(|space| space.keeps(object));
        if let Some(space) = &own {
            match hand_over_in(Thread(pid), base, space, object) {
                Ok(()) | Err(NotServed::Ended) => {}
                Err(why) => self.end_instead(space, object, &NotDone::Refused(why)),
            }
            done.insert(space.number);
        }
        self.files.breaks(object);
        self.hand_over_but(object, until, done);
        if own.is_some() {
            let mut again = *base;
            again.repeat_call();
            // One that has ended is told of.
            let _ = Thread(pid).set_registers(&again);
        }
        own.is_some()
    }

    /// The same, but for spaces that have nothing of it any more.
    fn hand_over_but(&mut self, object: &Arc<MappedObject>, until: Instant, mut done: HashSet<u64>) {
        loop {
            let spaces = self.faults.spaces();
            let next = spaces.into_iter().find(|space| !done.contains(&space.number) && space.keeps(object));
            let Some(space) = next else { break };
            done.insert(space.number);
            let answer =
                self.in_space(&space, until, |_, thread, base| hand_over_in(thread, base, &space, object));
            match answer {
                Ok(()) | Err(NotDone::Gone) => {}
                Err(why) => self.end_instead(&space, object, &why),
            }
        }
        self.files.retire(object);
    }

    /// Hands over all that `space` maps, in the name of one of its threads, which is stopped.
    pub(crate) fn hand_over_all(
        &mut self,
        thread: Thread,
        base: &Registers,
        space: &Arc<ProgramSpace>,
    ) -> Result<(), NotServed> {
        space.kept().iter().try_for_each(|object| hand_over_in(thread, base, space, object))
    }

    /// Hands over what a forked child has inherited of objects whose files have changed or are about to.
    pub(crate) fn hand_over_inherited(thread: Thread, space: &Arc<ProgramSpace>) -> Result<(), NotServed> {
        let base = thread.registers()?;
        let is_changed =
            |object: &Arc<MappedObject>| !object.is_current() || space.handed_over(object).is_some();
        let changed: Vec<_> = space.kept().into_iter().filter(is_changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        changed.iter().try_for_each(|object| hand_over_in(thread, &base, space, object))?;
        Ok(crate::supervisor::programs::continue_from(thread, &base)?)
    }

    fn end_instead(&mut self, space: &Arc<ProgramSpace>, object: &MappedObject, why: &NotDone) {
        let why = match why {
            NotDone::Gone => return,
            NotDone::Late => "all its threads sleep".to_string(),
            NotDone::Refused(why) => why.to_string(),
        };
        let processes: HashSet<i32> = self
            .threads
            .values()
            .filter(|thread| thread.space.as_ref().is_some_and(|other| Arc::ptr_eq(other, space)))
            .map(|thread| thread.process)
            .collect();
        for process in processes {
            self.tell(&format!(
                "process {process} is ended: {} is written to by others, and could not be mapped again in time ({why})",
                self.files.name(object)
            ));
            kill(process);
        }
    }
}

/// Makes all mappings of `object` in `space` the kernel's. What fails has changed nothing but whole parts.
fn hand_over_in(
    thread: Thread,
    base: &Registers,
    space: &ProgramSpace,
    object: &MappedObject,
) -> Result<(), NotServed> {
    for found in space.maps.files()?.iter().filter(|found| FramesId::of(found) == object.frames) {
        match object.mapping_kind {
            MappingKind::Shared => {
                map_file(thread, base, space, object, found, found.start..found.end)?;
                space.served()?.wake(found.start, found.end - found.start);
            }
            MappingKind::Private => {
                for start in (found.start..found.end).step_by(PART_BYTES as usize) {
                    let part = start..found.end.min(start + PART_BYTES);
                    hand_over_part(thread, base, space, object, found, part)?;
                }
            }
        }
    }
    Ok(())
}

/// Makes `part` of a private mapping the kernel's, with the pages that were stored to.
///
/// They are copied into a mapping of the file beside, which takes the place of the old one in one step. Stores are blocked
/// meanwhile; loads find the same bytes before and after. So the pages are the kernel's in all respects: it drops them,
/// too, if the file is cut off.
fn hand_over_part(
    thread: Thread,
    base: &Registers,
    space: &ProgramSpace,
    object: &MappedObject,
    found: &MappedFile,
    part: Range<u64>,
) -> Result<(), NotServed> {
    let length = part.end - part.start;
    let faults = space.served()?;
    // Of what is swapped out it cannot be told later whether it is a page or the mark of a protected hole. A space that
    // was forked meanwhile has such marks from the beginning: who touched one would sleep on it.
    let inherited = space.handed_over(object).unwrap_or_default();
    let mut own = own_pages(thread, &part, Place::Anywhere(&inherited))?;
    patiently(|| faults.register_to_protect(part.start, length))?;
    patiently(|| faults.protect(part.start, length))?;
    let answer = own_pages(thread, &part, Place::InMemory).map_err(NotServed::from).and_then(|now| {
        own.extend(now);
        space.hands_over(object, &own);
        match own.is_empty() {
            true => map_file(thread, base, space, object, found, part.clone()),
            false => replace_with_copy(thread, base, space, object, found, &part, &own),
        }
    });
    if answer.is_err() {
        faults.unprotect(part.start, length);
    }
    faults.wake(part.start, length);
    answer
}

/// The kernel answers EAGAIN while it waits for a thread of this process to read of a fork.
fn patiently(call: impl Fn() -> std::io::Result<()>) -> std::io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(error) if error.raw_os_error() == Some(EAGAIN) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            answer => return answer,
        }
    }
}

/// Maps the file elsewhere, copies `own` pages of `part` into it, and moves it into the place of `part`.
fn replace_with_copy(
    thread: Thread,
    base: &Registers,
    space: &ProgramSpace,
    object: &MappedObject,
    found: &MappedFile,
    part: &Range<u64>,
    own: &[Range<u64>],
) -> Result<(), NotServed> {
    let length = part.end - part.start;
    let offset = found.offset + (part.start - found.start);
    let (prot, flags) = (PROT_READ | PROT_WRITE, MAP_PRIVATE);
    let beside = MapCall { address: far_away(), length, prot, flags, offset };
    let beside = checked(space.map_descriptor(thread, base, object.file_descriptor()?, beside)?)? as u64;
    let moved = copy_pages(thread, part.start, beside, own).map_err(NotServed::from).and_then(|()| {
        if found.prot != prot {
            checked(space.site.one(thread, base, Call::protect(beside, length, found.prot))?)?;
        }
        checked(space.site.one(thread, base, Call::move_to(beside, length, part.start))?)
    });
    if matches!(moved, Err(NotServed::Refused(_))) {
        space.site.one(thread, base, Call::unmap(beside, length))?;
    }
    moved.map(drop)
}

/// Copies pages of one process from where they are, in a mapping that starts at `from`, to one that starts at `to`.
fn copy_pages(thread: Thread, from: u64, to: u64, pages: &[Range<u64>]) -> std::io::Result<()> {
    let mut page = [0; PAGE as usize];
    for at in pages.iter().flat_map(|range| range.clone().step_by(PAGE as usize)) {
        // One that traps has no bytes to keep.
        if read_memory(thread.0, at, &mut page).is_ok_and(|count| count == page.len()) {
            write_memory(thread.0, to + (at - from), &page)?;
        }
    }
    Ok(())
}

/// Maps the file over `range`, a part of `found`, with the protection that it has.
fn map_file(
    thread: Thread,
    base: &Registers,
    space: &ProgramSpace,
    object: &MappedObject,
    found: &MappedFile,
    range: Range<u64>,
) -> Result<(), NotServed> {
    let sharing = if object.mapping_kind == MappingKind::Shared { MAP_SHARED } else { MAP_PRIVATE };
    let map = MapCall {
        address: range.start,
        length: range.end - range.start,
        prot: found.prot,
        flags: sharing | MAP_FIXED,
        offset: found.offset + (range.start - found.start),
    };
    checked(space.map_descriptor(thread, base, object.file_descriptor()?, map)?).map(drop)
}

/// The answer of a call that must succeed.
fn checked(answer: i64) -> Result<i64, NotServed> {
    match answer {
        -4095..0 => {
            let error = std::io::Error::from_raw_os_error(-answer as i32);
            Err(NotServed::Refused(format!("the file cannot be mapped: {error}")))
        }
        answer => Ok(answer),
    }
}

/// Which of its own pages are meant.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// All; of those that may be marks only those within these ranges, which are in order.
    Anywhere(&'a [Range<u64>]),
    InMemory,
}

/// The ranges of `range` that the process has stored to.
fn own_pages(thread: Thread, range: &Range<u64>, place: Place<'_>) -> std::io::Result<Vec<Range<u64>>> {
    let present = Present::of(thread.0, range.start, range.end)?;
    Ok(present.iter().filter(|run| run.is_own).flat_map(|run| place.part_of(run)).collect())
}

impl Place<'_> {
    fn part_of(self, run: &Present) -> Vec<Range<u64>> {
        let within = |own: &Range<u64>| own.start.max(run.start)..own.end.min(run.end);
        let whole = 0..u64::MAX;
        let meant = match self {
            _ if run.is_resident => std::slice::from_ref(&whole),
            Place::InMemory => &[],
            Place::Anywhere(_) if !run.is_protected => std::slice::from_ref(&whole),
            Place::Anywhere(known) => known,
        };
        let first = meant.partition_point(|own| own.end <= run.start);
        meant[first..].iter().take_while(|own| own.start < run.end).map(within).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_pages_only_where_the_space_had_stored_to() {
        let run = |start, end, is_resident, is_protected| Present {
            start,
            end,
            is_own: true,
            is_resident,
            is_protected,
        };
        let known = [0..4, 10..20, 30..40, 50..60];
        let parts = |place: Place<'_>, run: Present| -> Vec<(u64, u64)> {
            place.part_of(&run).into_iter().map(|part| (part.start, part.end)).collect()
        };
        let anywhere = Place::Anywhere(&known);
        assert_eq!(parts(anywhere, run(15, 35, false, true)), [(15, 20), (30, 35)]);
        assert_eq!(parts(anywhere, run(4, 10, false, true)), []);
        assert_eq!(parts(anywhere, run(4, 10, false, false)), [(4, 10)], "it was swapped out");
        assert_eq!(parts(anywhere, run(4, 10, true, true)), [(4, 10)]);
        assert_eq!(parts(Place::InMemory, run(10, 20, false, false)), []);
        assert_eq!(parts(Place::InMemory, run(4, 10, true, true)), [(4, 10)]);
    }
}
