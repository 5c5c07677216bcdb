//! System calls at which programs are stopped.

use std::path::PathBuf;
use std::sync::Arc;

use memobj_tracer::{Call, MapCall, Registers, Resume, Thread, far_away, read_memory};

use crate::error::NotServed;
use crate::files::{FramesId, MappedObject, MappingKind};
use crate::program_space::ProgramSpace;
use crate::supervisor::resolve::Sought;
use crate::supervisor::waiting::GoesOn;
use crate::supervisor::{Filters, PassNext, Supervisor};

const PAGE: u64 = 4096;
const PROT_NONE: u64 = 0;
const PROT_WRITE: u64 = 2;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_KIND: u64 = 0xf;
const MAP_FIXED: u64 = 0x10;
const MAP_POPULATE: u64 = 0x8000;
/// What makes a mapping more than pages of a file: growing down, locked, of huge pages, synchronous.
const MAP_SPECIAL: u64 = 0x0100 | 0x2000 | 0x4_0000 | 0x8_0000;

/// The numbers of x86-64.
mod numbers {
    pub(super) const MMAP: i64 = 9;
    pub(super) const MREMAP: i64 = 25;
    pub(super) const CLONE: i64 = 56;
    pub(super) const EXECVE: i64 = 59;
    pub(super) const MLOCKALL: i64 = 151;
    pub(super) const PRCTL: i64 = 157;
    pub(super) const SECCOMP: i64 = 317;
    pub(super) const EXECVEAT: i64 = 322;
    pub(super) const CLONE3: i64 = 435;
}

/// What mmap(2) was asked for.
#[derive(Clone, Copy)]
struct MmapArguments {
    address: u64,
    length: u64,
    prot: u64,
    flags: u64,
    descriptor: i32,
    offset: u64,
}

impl MmapArguments {
    /// The same, of frames.
    fn as_it_is(&self) -> MapCall {
        MapCall {
            address: self.address,
            length: self.length,
            prot: self.prot,
            flags: self.flags & !(MAP_KIND | MAP_POPULATE) | MAP_PRIVATE,
            offset: self.offset,
        }
    }
}

/// Whether it is really the object that is mapped at `start`. Another thread can have put another file in the place of the
/// descriptor, and where /proc is that of other processes the path names something else.
fn shows(space: &ProgramSpace, start: u64, object: &MappedObject) -> bool {
    space.maps.at(start).is_ok_and(|at| at.is_some_and(|at| FramesId::of(&at) == object.frames))
}

/// A child that asks not to be traced would find nobody who resolves its faults: it is traced all the same, which it
/// cannot see.
fn keep_traced(pid: i32, mut registers: Registers) {
    const UNTRACED: u64 = 0x80_0000;
    let first = registers.arguments()[0];
    if registers.call() == numbers::CLONE {
        registers.set_argument(0, first & !UNTRACED);
        let _ = Thread(pid).set_registers(&registers);
        return;
    }
    let mut flags = [0; 8];
    if matches!(read_memory(pid, first, &mut flags), Ok(8)) {
        let flags = u64::from_ne_bytes(flags);
        if flags & UNTRACED != 0 {
            let _ = Thread(pid).poke(first, &(flags & !UNTRACED).to_ne_bytes());
        }
    }
}

/// Makes the call in the thread's name; the answer is the kernel's.
fn map_frames(
    thread: Thread,
    base: &Registers,
    space: &ProgramSpace,
    object: &MappedObject,
    map: &MapCall,
) -> Result<i64, NotServed> {
    space.map_descriptor(thread, base, object.lent.file(), *map)
}

impl Supervisor {
    /// A thread is about to make a call.
    pub(crate) fn call(&mut self, pid: i32) -> GoesOn {
        let Ok(registers) = Thread(pid).registers() else { return GoesOn::Now };
        match registers.call() {
            numbers::MMAP => self.maps_file(pid, &registers),
            numbers::PRCTL | numbers::SECCOMP => self.filters_itself(pid, &registers),
            numbers::MREMAP => self.duplicates(pid, &registers),
            numbers::MLOCKALL => {
                if let Some(space) = self.space_of(pid) {
                    space.lock_future();
                }
            }
            numbers::CLONE | numbers::CLONE3 => keep_traced(pid, registers),
            numbers::EXECVE | numbers::EXECVEAT => self.look_at_segments(pid),
            _ if self.opens_in_haste(pid, &registers) => {}
            // A mark that nobody waits for: its close is of nothing.
            _ => return self.names_file(pid, &registers),
        }
        GoesOn::Now
    }

    pub(crate) fn space_of(&self, pid: i32) -> Option<Arc<ProgramSpace>> {
        self.threads.get(&pid)?.space.clone()
    }

    /// mremap(2) without an old length maps what is shared once more. Of a served mapping, which is private to the kernel,
    /// the frames are mapped again instead.
    fn duplicates(&mut self, pid: i32, registers: &Registers) {
        const MAY_MOVE: u64 = 1;
        const FIXED: u64 = 2;
        let [from, old_length, length, flags, to, _] = registers.arguments();
        let Some(space) = self.space_of(pid).filter(|space| !space.is_left_alone()) else { return };
        let Ok(Some(found)) = space.maps.at(from) else { return };
        let object = self.files.of_frames(FramesId::of(&found)).filter(|object| object.may_be_shared());
        let (Some(object), true) = (object, old_length == 0 && length > 0 && flags & MAY_MOVE != 0) else {
            return;
        };
        let is_fixed = flags & FIXED != 0;
        let arguments = MmapArguments {
            address: if is_fixed { to } else { 0 },
            length,
            prot: found.prot,
            flags: MAP_SHARED | if is_fixed { MAP_FIXED } else { 0 },
            descriptor: -1,
            offset: found.offset + (from - found.start),
        };
        match self.map_object(Thread(pid), registers, &space, &object, &arguments) {
            Ok(()) => self.history_builder.mapping(object.file),
            // If it has ended, its next report tells of it.
            Err(NotServed::Ended) => {}
            Err(NotServed::Refused(_)) => {
                // The kernel refuses it: it is made once more, and finds no such mapping.
                let _ = crate::supervisor::programs::continue_from(Thread(pid), registers);
            }
        }
    }

    /// The thread puts itself behind a filter of its own. From then on calls in its name might be the death of it, so what
    /// it maps is handed over to the kernel before.
    fn filters_itself(&mut self, pid: i32, registers: &Registers) {
        if let Some(thread) = self.threads.get_mut(&pid) {
            thread.filters = Filters::ItsOwn;
        }
        let Some(space) = self.space_of(pid).filter(|space| !space.is_left_alone()) else { return };
        space.leave_alone();
        let thread = Thread(pid);
        match self.hand_over_all(thread, registers, &space) {
            // It was ended instead: its next report tells of it.
            Err(NotServed::Ended) => return,
            Err(NotServed::Refused(why)) => {
                self.tell(&format!(
                    "process {} ({}) installs a seccomp filter of its own; its mappings stay memobj's ({why})",
                    space.process,
                    crate::supervisor::programs::name_of(pid)
                ));
            }
            Ok(()) => {}
        }
        // It stops here again, and is left alone.
        let mut again = *registers;
        again.repeat_call();
        let _ = thread.set_registers(&again);
    }

    fn maps_file(&mut self, pid: i32, registers: &Registers) {
        let Some(thread) = self.threads.get_mut(&pid) else { return };
        let passes = std::mem::take(&mut thread.passes_next_map) == PassNext::Yes;
        let Some(space) = thread.space.clone() else { return };
        let [address, length, prot, flags, descriptor, offset] = registers.arguments();
        let arguments = MmapArguments { address, length, prot, flags, descriptor: descriptor as i32, offset };
        let is_kernels = passes || space.is_left_alone() || space.faults().is_none();
        let object = if is_kernels { None } else { self.object_for(pid, &arguments) };
        let Some(object) = object else { return self.history_builder.passed_through() };
        match self.map_object(Thread(pid), registers, &space, &object, &arguments) {
            Ok(()) => self.history_builder.mapping(object.file),
            // The next reports tell of it.
            Err(NotServed::Ended) => {}
            Err(NotServed::Refused(_)) => {
                // The kernel maps it: the call is made once more, and not looked at.
                if let Some(thread) = self.threads.get_mut(&pid) {
                    thread.passes_next_map = PassNext::Yes;
                }
                let mut again = *registers;
                again.repeat_call();
                let _ = Thread(pid).set_registers(&again);
            }
        }
    }

    /// The object that is to be mapped; `None`: the kernel maps the file.
    fn object_for(&mut self, pid: i32, arguments: &MmapArguments) -> Option<Arc<MappedObject>> {
        let mapping_kind = match arguments.flags & MAP_KIND {
            MAP_PRIVATE => MappingKind::Private,
            MAP_SHARED if arguments.prot & PROT_WRITE == 0 => MappingKind::Shared,
            _ => return None,
        };
        let is_plain = arguments.flags & MAP_SPECIAL == 0
            && arguments.length > 0
            && arguments.offset.is_multiple_of(PAGE);
        let path = PathBuf::from(format!("/proc/{pid}/fd/{}", arguments.descriptor));
        let link = std::fs::symlink_metadata(&path).ok().filter(|_| is_plain)?;
        use std::os::unix::fs::PermissionsExt;
        let mode = link.permissions().mode();
        // What can be read and written through the descriptor is what may be done to the mapping.
        if mode & 0o400 == 0 || (mapping_kind == MappingKind::Shared && mode & 0o200 != 0) {
            return None;
        }
        self.find(Sought { path, mapping_kind })
    }

    /// Maps the frames of `object` in place of the file, registered before anybody can touch them.
    fn map_object(
        &self,
        thread: Thread,
        base: &Registers,
        space: &Arc<ProgramSpace>,
        object: &Arc<MappedObject>,
        arguments: &MmapArguments,
    ) -> Result<(), NotServed> {
        space.keep(object);
        let answer = match space.is_quiet() {
            true => self.map_quietly(thread, base, space, object, arguments)?,
            false => self.map_among_others(thread, base, space, object, arguments)?,
        };
        if answer >= 0 && arguments.flags & MAP_POPULATE != 0 {
            let range = arguments.offset..arguments.offset.saturating_add(arguments.length);
            object.lent.prefetch(std::slice::from_ref(&range));
        }
        let mut after = *base;
        after.skip_call(answer);
        Ok(thread.set_registers(&after)?)
    }

    /// Where nobody else runs until it is registered.
    fn map_quietly(
        &self,
        thread: Thread,
        base: &Registers,
        space: &ProgramSpace,
        object: &MappedObject,
        arguments: &MmapArguments,
    ) -> Result<i64, NotServed> {
        let answer = map_frames(thread, base, space, object, &arguments.as_it_is())?;
        if answer >= 0 {
            let (start, length) = (answer as u64, arguments.length.next_multiple_of(PAGE));
            if !shows(space, start, object) || space.served()?.register(start, length, self.shows()).is_err()
            {
                space.site.one(thread, base, Call::unmap(start, length))?;
                return Err(NotServed::Refused("its mapping cannot be registered".into()));
            }
        }
        Ok(answer)
    }

    /// Where others run: nobody may access it until it is registered. What is to take the place of something else does
    /// so in one step, at the end.
    fn map_among_others(
        &self,
        thread: Thread,
        base: &Registers,
        space: &ProgramSpace,
        object: &MappedObject,
        arguments: &MmapArguments,
    ) -> Result<i64, NotServed> {
        let replaces = arguments.flags & MAP_FIXED != 0;
        let mut closed = MapCall { prot: PROT_NONE, ..arguments.as_it_is() };
        if replaces {
            // Not where it is to go: what overlaps cannot be moved.
            closed.address = far_away();
            closed.flags &= !MAP_FIXED;
        }
        let answer = map_frames(thread, base, space, object, &closed)?;
        if answer < 0 {
            return Ok(answer);
        }
        let (start, length) = (answer as u64, arguments.length.next_multiple_of(PAGE));
        if !shows(space, start, object) || space.served()?.register(start, length, self.shows()).is_err() {
            space.site.one(thread, base, Call::unmap(start, length))?;
            return Err(NotServed::Refused("its mapping cannot be registered".into()));
        }
        space.site.one(thread, base, Call::protect(start, length, arguments.prot))?;
        if !replaces {
            return Ok(answer);
        }
        let moved = space.site.one(thread, base, Call::move_to(start, length, arguments.address))?;
        if moved < 0 {
            space.site.one(thread, base, Call::unmap(start, length))?;
        }
        Ok(moved)
    }

    /// A thread is about to end.
    pub(crate) fn about_to_exit(&mut self, pid: i32) -> Resume {
        let is_first = self.threads.get(&pid).is_some_and(|thread| thread.process == pid);
        if is_first {
            self.look_at_segments(pid);
        }
        Resume::Run
    }
}
