//! A new program: its mappings of files become segments of memory objects before its first instruction.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memobj_linux::uffd::{ForeignFaults, Shows};
use memobj_tracer::{Call, CallSite, MapCall, MappedFile, Maps, Registers, Resume, Sites, Thread};

use memobj_linux::uffd::Forks;

use crate::descriptor_budget::Want;
use crate::error::NotServed;
use crate::files::{FramesId, MappedObject, MappingKind};
use crate::history::ProgramEnd;
use crate::options::Counting;
use crate::pages::{FaultsBy, Pages};
use crate::program_space::ProgramSpace;
use crate::supervisor::resolve::{Sought, rights_of};
use crate::supervisor::{Filters, Supervisor, command_of, kill};

const PAGE: u64 = 4096;
const PROT_WRITE: u64 = 2;
const MAP_PRIVATE: u64 = 2;
const MMAP: i64 = 9;
const MAP_FIXED: u64 = 0x10;
/// How far below its first byte the stack of a new program is nobody's.
const TABLE_BELOW: u64 = 32 << 10;
/// Files that are mapped when a program begins: its own, and its dynamic linker.
const MOST_FILES: usize = 8;
/// Of the auxiliary vector: the address of the vDSO.
const AT_SYSINFO_EHDR: u64 = 33;

/// A range of a new program that becomes a segment.
struct PlacedSegment {
    object: Arc<MappedObject>,
    map: MapCall,
}

impl Supervisor {
    /// A thread runs a new program: it is the only one of its process now.
    pub(crate) fn program_begins(&mut self, pid: i32) -> Resume {
        let former = Thread(pid).event_message().map_or(pid, |former| former as i32);
        if former != pid {
            // Another thread than the first has called: it goes by the process's number from now on.
            if let Some(thread) = self.threads.remove(&former) {
                let first = self.threads.insert(pid, thread);
                self.leaves(first.and_then(|first| first.space));
            }
        }
        let Some(thread) = self.threads.get_mut(&pid) else { return Resume::Run };
        let (parent, before, filters) = (thread.parent, thread.program, thread.filters);
        let old_space = thread.space.take();
        self.leaves(old_space);
        self.history_builder.ended(before, ProgramEnd::Replaced);
        let program = self.history_builder.program(pid as u32, parent as u32, command_of(pid));
        self.tell_of_lost_rights(pid);
        if self.options.names.is_empty() || may_trace_all() {
            // From its first program on nothing needs this process's memory. Mapped names are opened by its descriptors: by
            // programs that may trace everybody's process, or this one.
            memobj_tracer::close_to_others();
        }
        let served = match filters {
            Filters::Ours => self.serve_program(pid, program),
            // Calls in its name might be the death of it.
            Filters::ItsOwn => Ok(None),
        };
        match served {
            Ok(space) => {
                if let Some(thread) = self.threads.get_mut(&pid) {
                    thread.program = program;
                    thread.space = space;
                }
            }
            Err(why) => {
                if let Some(thread) = self.threads.get_mut(&pid) {
                    thread.program = program;
                }
                if matches!(why, NotServed::Ended) {
                    return Resume::Run;
                }
                let why = why.to_string();
                if !self.unserved.contains(&why) {
                    self.tell(&format!(
                        "process {pid} ({}) runs without memobj: {why}; further ones are not reported",
                        name_of(pid)
                    ));
                    self.unserved.insert(why);
                }
            }
        }
        Resume::Run
    }

    /// A program that would have run with the rights of its owner runs without.
    fn tell_of_lost_rights(&self, pid: i32) {
        use std::os::unix::fs::MetadataExt;
        const SET_USER: u32 = 0o4000;
        const SET_GROUP: u32 = 0o2010;
        let rights = rights_of(Path::new(&format!("/proc/{pid}/exe")));
        let Some((mode, owner, group)) = rights.filter(|(mode, ..)| mode & (SET_USER | SET_GROUP) != 0)
        else {
            return;
        };
        let Ok(process) = std::fs::metadata(format!("/proc/{pid}")) else { return };
        let set_user = mode & SET_USER != 0 && owner != process.uid();
        let set_group = mode & SET_GROUP == SET_GROUP && group != process.gid();
        if set_user || set_group {
            self.tell(&format!(
                "process {pid} ({}) runs without the rights of its file's owner",
                name_of(pid)
            ));
        }
    }

    /// `Ok(None)`: it is a program that cannot be served, of 32 bits.
    fn serve_program(&mut self, pid: i32, program: usize) -> Result<Option<Arc<ProgramSpace>>, NotServed> {
        let thread = Thread(pid);
        let base = thread.run_to_end_of_call()?;
        if !base.is_64_bit() {
            return Ok(None);
        }
        if !sees_our_files(pid) {
            return Err(NotServed::Refused("its file system is not the supervisor's".into()));
        }
        if !self.descriptors.is_left(Want::Program) {
            let most = self.descriptors.most();
            return Err(NotServed::Refused(format!("five eighths of {most} descriptors are open")));
        }
        let vdso = vdso_of(pid).ok_or_else(|| NotServed::Refused("it has no vDSO".into()))?;
        let site = CallSite::prepare(thread, vdso)?
            .ok_or_else(|| NotServed::Refused("its vDSO has no room".into()))?;
        let site = Sites::new(site, Arc::new(Maps::open(pid)?));
        let placed = match self.pages {
            Pages::Objects(_) => self.placed(pid, site.maps())?,
            Pages::Kernels => Vec::new(),
        };
        let served = self.make_space(thread, &base, site, program);
        let space = match served {
            Ok(space) => space,
            Err(why @ NotServed::Ended) => return Err(why),
            Err(why) => {
                continue_from(thread, &base)?;
                return Err(why);
            }
        };
        match place(thread, &base, &space, &placed, self.shows()) {
            Ok(None) => {}
            Ok(Some(why)) => {
                // Its mappings are those that the kernel has made.
                continue_from(thread, &base)?;
                return Err(NotServed::Refused(why));
            }
            Err(why) => {
                if !matches!(why, NotServed::Ended) {
                    // What is mapped is not registered: it would read zeros.
                    kill(pid);
                }
                return Err(why);
            }
        }
        placed.iter().for_each(|placed| self.history_builder.mapping(placed.object.file));
        continue_from(thread, &base)?;
        if let Err(error) = self.faults.serve(&space) {
            // Its first fault would sleep for ever.
            kill(pid);
            return Err(error.into());
        }
        Ok(Some(space))
    }

    pub(crate) fn shows(&self) -> Shows {
        match self.options.counting {
            Counting::Totals => Shows::ByItself,
            Counting::Touches => Shows::WhenTold,
        }
    }

    /// What of the new program becomes a segment.
    fn placed(&mut self, pid: i32, maps: &Maps) -> io::Result<Vec<PlacedSegment>> {
        let mut placed = Vec::new();
        let mut known: Vec<(MappedFile, Option<Arc<MappedObject>>)> = Vec::new();
        for found in maps.files()? {
            let is_same = |other: &MappedFile| (other.device, other.inode) == (found.device, found.inode);
            let object = match known.iter().find(|(other, _)| is_same(other)) {
                Some((_, object)) => object.clone(),
                None => {
                    let object = self.object_at(pid, maps, &found);
                    known.push((found, object.clone()));
                    object
                }
            };
            let Some(object) = object.filter(|_| !found.is_shared && known.len() <= MOST_FILES) else {
                continue;
            };
            // The kernel has cleared the last page of what can be written behind the end of its file's part: that page
            // is the program's own by now, and stays.
            let end = if found.prot & PROT_WRITE != 0 { found.end - PAGE } else { found.end };
            if end > found.start {
                let map = MapCall {
                    address: found.start,
                    length: end - found.start,
                    prot: found.prot,
                    flags: MAP_PRIVATE | MAP_FIXED,
                    offset: found.offset,
                };
                placed.push(PlacedSegment { object, map });
            }
        }
        Ok(placed)
    }

    fn object_at(&mut self, pid: i32, maps: &Maps, found: &MappedFile) -> Option<Arc<MappedObject>> {
        let is_it = |path: &Path| {
            use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
            // What the kernel knows, without asking a server.
            let known = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
            known.is_ok_and(|it| {
                (it.stx_ino, (it.stx_dev_major, it.stx_dev_minor)) == (found.inode, found.device)
            })
        };
        let program = PathBuf::from(format!("/proc/{pid}/exe"));
        let path = if is_it(&program) {
            program
        } else {
            let name = maps.name_at(found.start).ok()??;
            Some(PathBuf::from(format!("/proc/{pid}/root{name}"))).filter(|path| is_it(path))?
        };
        self.find(Sought { path, mapping_kind: MappingKind::Private })
    }

    /// An address space for the stopped thread, nothing of which is registered.
    pub(crate) fn make_space(
        &mut self,
        thread: Thread,
        base: &Registers,
        site: Sites,
        program: usize,
    ) -> Result<Arc<ProgramSpace>, NotServed> {
        let faults = match self.pages {
            Pages::Kernels => None,
            Pages::Objects(way) => {
                let number = open_faults(way, thread, base, &site)?;
                let faults = ForeignFaults::take(thread.0, number as i32, self.forks)?;
                site.one(thread, base, Call::close(number as i32))?;
                Some(faults)
            }
        };
        self.next_space += 1;
        Ok(Arc::new(ProgramSpace::new(self.next_space, thread.0, program, faults, site)))
    }

    /// Whether anything of a stopped process is served: a fork is told of only then.
    pub(crate) fn maps_frames(&self, pid: i32) -> bool {
        let files = Maps::open(pid).and_then(|maps| maps.files());
        // What cannot be known is waited for.
        files.map_or(true, |files| {
            files.iter().any(|found| self.files.of_frames(FramesId::of(found)).is_some())
        })
    }

    /// An address space for the first thread of a process that was forked from one that runs in `parent`: what it has
    /// inherited is registered before it touches it. `None`: it has inherited nothing, and nothing more is served.
    pub(crate) fn copy_space(
        &mut self,
        pid: i32,
        parent: &Arc<ProgramSpace>,
        program: usize,
        faults: Option<ForeignFaults>,
    ) -> Result<Option<Arc<ProgramSpace>>, NotServed> {
        let inherits = faults.is_some() || self.maps_frames(pid);
        if !inherits && parent.is_left_alone() {
            return Ok(None);
        }
        if !self.descriptors.is_left(Want::Child) {
            return Err(NotServed::Refused(format!(
                "nearly all of {} descriptors are open",
                self.descriptors.most()
            )));
        }
        let site = parent.site.copy(Arc::new(Maps::open(pid)?));
        let space = match self.forks {
            _ if parent.faults().is_none() => {
                self.next_space += 1;
                Arc::new(ProgramSpace::new(self.next_space, pid, program, None, site))
            }
            Forks::Told if inherits => {
                let faults = match faults {
                    Some(faults) => faults,
                    None => child_of(parent, &site, Thread(pid))?,
                };
                self.next_space += 1;
                Arc::new(ProgramSpace::new(self.next_space, pid, program, Some(faults), site))
            }
            Forks::Told | Forks::Untold => self.register_inherited(Thread(pid), site, program)?,
        };
        space.inherit_from(parent);
        Self::hand_over_inherited(Thread(pid), &space)?;
        self.faults.serve(&space)?;
        Ok(Some(space))
    }

    fn register_inherited(
        &mut self,
        thread: Thread,
        site: Sites,
        program: usize,
    ) -> Result<Arc<ProgramSpace>, NotServed> {
        let base = thread.registers()?;
        let space = self.make_space(thread, &base, site, program)?;
        for found in space.maps.files()? {
            if self.files.of_frames(FramesId::of(&found)).is_some() {
                space.served()?.register(found.start, found.end - found.start, self.shows())?;
            }
        }
        continue_from(thread, &base)?;
        Ok(space)
    }
}

/// Makes a userfaultfd in the name of the thread.
fn open_faults(way: FaultsBy, thread: Thread, base: &Registers, site: &Sites) -> Result<i64, NotServed> {
    let refused = |answer: i64| {
        let error = io::Error::from_raw_os_error(-answer as i32);
        NotServed::Refused(format!("it may not make a userfaultfd ({error})"))
    };
    let checked = |answer: i64| if answer < 0 { Err(refused(answer)) } else { Ok(answer) };
    match way {
        FaultsBy::Call => checked(site.one(thread, base, Call::userfaultfd())?),
        FaultsBy::Device => {
            let path = site.any_path(thread, base, "/dev/userfaultfd")?;
            let device = checked(site.one(thread, base, Call::open_to_write(path))?)? as i32;
            let number = site.one(thread, base, Call::userfaultfd_of(device))?;
            site.one(thread, base, Call::close(device))?;
            checked(number)
        }
    }
}

/// The userfaultfd of a child that was forked from `parent`.
fn child_of(parent: &ProgramSpace, site: &Sites, thread: Thread) -> Result<ForeignFaults, NotServed> {
    let none = || NotServed::Refused("its fork was not reported".into());
    // Several threads can have forked at once: the child's is the one that knows a page which only the child has.
    let base = thread.registers()?;
    let page = site.one(thread, &base, Call::map_nothing(PAGE))?;
    if page < 0 {
        return Err(none());
    }
    let knows = |faults: &ForeignFaults| faults.register(page as u64, PAGE, Shows::ByItself).is_ok();
    let is_alive = || thread.registers().is_ok();
    let found = parent.take_child(knows, is_alive);
    // One that has ended is heard of.
    thread.registers()?;
    let found = found.ok_or_else(none)?;
    site.one(thread, &base, Call::unmap(page as u64, PAGE))?;
    continue_from(thread, &base)?;
    Ok(found)
}

/// Lets a thread that has made calls go on from `base`, as if it had not.
pub(crate) fn continue_from(thread: Thread, base: &Registers) -> io::Result<()> {
    let mut registers = *base;
    registers.skip_call(base.answer());
    thread.set_registers(&registers)
}

/// Maps the objects over what the kernel has mapped, and registers them. `Some`: nothing was mapped, for this reason. A
/// program that has given up rights may not open descriptors of the supervisor.
fn place(
    thread: Thread,
    base: &Registers,
    space: &Arc<ProgramSpace>,
    placed: &[PlacedSegment],
    shows: Shows,
) -> Result<Option<String>, NotServed> {
    let mut calls = Vec::new();
    let mut descriptors = Vec::new();
    for PlacedSegment { object, .. } in placed {
        if descriptors.contains(&object.frames_descriptor()) {
            continue;
        }
        calls.push(Call::ask_for_descriptor());
        descriptors.push(object.frames_descriptor());
        let same = placed.iter().filter(|other| Arc::ptr_eq(&other.object, object));
        calls.extend(same.map(|placed| Call::map_that_file(placed.map)));
        calls.push(Call::close_that_file());
    }
    if calls.is_empty() {
        return Ok(None);
    }
    let table = (base.stack() - TABLE_BELOW) & !15;
    let answers = space.site.list(thread, base, &calls, &descriptors, table)?;
    let failed = |answer: &i64| (-4095..0).contains(answer);
    if let Some(answer) = answers.iter().find(|answer| failed(answer)) {
        let error = io::Error::from_raw_os_error(-answer as i32);
        let why = format!("its files cannot be mapped ({error})");
        let mut made = calls.iter().zip(&answers).filter(|(call, _)| call.number == MMAP);
        return if made.all(|(_, answer)| failed(answer)) {
            Ok(Some(why))
        } else {
            Err(NotServed::Refused(why))
        };
    }
    for PlacedSegment { object, map } in placed {
        space.keep(object);
        let is_it = space.maps.at(map.address)?.is_some_and(|at| FramesId::of(&at) == object.frames);
        if !is_it {
            return Err(NotServed::Refused("something else is mapped there already".into()));
        }
        space.served()?.register(map.address, map.length, shows)?;
    }
    Ok(None)
}

/// Whether paths, those of /proc among them, mean to a process what they mean here.
pub(crate) fn sees_our_files(pid: i32) -> bool {
    static OURS: std::sync::OnceLock<[Option<PathBuf>; 2]> = std::sync::OnceLock::new();
    let links =
        |who: &str| ["ns/mnt", "root"].map(|what| std::fs::read_link(format!("/proc/{who}/{what}")).ok());
    *OURS.get_or_init(|| links("self")) == links(&pid.to_string())
}

/// Whether this process, and programs that keep its rights, may look at all processes (CAP_SYS_PTRACE, which root of a
/// container may lack).
fn may_trace_all() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE))
}

fn vdso_of(pid: i32) -> Option<u64> {
    let vector = std::fs::read(format!("/proc/{pid}/auxv")).ok()?;
    let mut pairs = vector.chunks_exact(16).map(|pair| {
        let word = |at: usize| u64::from_ne_bytes(pair[at..at + 8].try_into().unwrap_or_default());
        (word(0), word(8))
    });
    pairs.find(|(kind, _)| *kind == AT_SYSINFO_EHDR).map(|(_, value)| value)
}

pub(crate) fn name_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_string()
}
