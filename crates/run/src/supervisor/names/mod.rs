//! Names that stand for other files, as if each were a bind mount.
//!
//! ```text
//!   call    what a stopped thread is about to ask for
//!   walk    where its name leads: component by component, over links and mapped names
//!   place   mapped names, and places in the tree that programs see
//!   helper  the thread that walks
//! ```
//!
//! A call whose name leads over a mapped one is made, in the program's name, on a descriptor of the supervisor: what is
//! opened is an ordinary descriptor of the other file. All other calls are the kernel's.

mod call;
pub(crate) mod helper;
mod place;
mod walk;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use memobj_tracer::{Call, Registers, Resume, Thread, write_memory};
use rustix::fs::FileType;
use rustix::io::Errno;

use call::{Kind, Naming, flags};
use helper::Begun;
use place::{Named, Place};
pub(crate) use place::{Names, guests};
use walk::{Found, Wanted};

use crate::error::NotServed;
use crate::objects::Opened;
use crate::program_space::ProgramSpace;
use crate::supervisor::Supervisor;
use crate::supervisor::events::go_on;
use crate::supervisor::programs::{continue_from, name_of, sees_our_files};
use crate::supervisor::waiting::GoesOn;

const PAGE: u64 = 4096;
/// How long programs are blocked by file systems that do not answer.
const LATE: Duration = Duration::from_secs(2);
/// Where names stand for objects: how long all programs wait; then only the thread that has named it does.
const SOON: Duration = Duration::from_millis(5);
/// How long that one waits at most.
const LATEST: Duration = Duration::from_secs(40);

/// What becomes of a call.
enum Verdict {
    /// It returns this.
    Answer(i64),
    /// It is made on this file, and while this object is open if the file is one.
    File(Arc<Named>, Option<Arc<Opened>>),
    /// It is made on this entry of a folder.
    Entry(Arc<Named>, Vec<u8>),
    /// It reads this link.
    Text(Vec<u8>),
}

impl Supervisor {
    /// The stopped thread is about to make a call that names a file. Whether it is to wait until that was found out: then
    /// it stays stopped.
    pub(crate) fn names_file(&mut self, pid: i32, registers: &Registers) -> GoesOn {
        if self.names.is_empty() {
            return GoesOn::Now;
        }
        let Some(naming) = Naming::read(pid, registers) else { return GoesOn::Now };
        match self.verdict(pid, &naming) {
            Looked::Found(verdict) => self.make_named_call(pid, registers, naming, verdict),
            Looked::Nothing => {}
            Looked::Later(verdict) => {
                if self.wait_for_verdict(pid, registers, naming, verdict) {
                    return GoesOn::Later;
                }
            }
        }
        GoesOn::Now
    }

    /// Makes the call as it was found out.
    fn make_named_call(&mut self, pid: i32, registers: &Registers, naming: Naming, verdict: Verdict) {
        let Some(space) = self.space_of(pid).filter(|space| !space.is_left_alone() && sees_our_files(pid))
        else {
            return;
        };
        let thread = Thread(pid);
        match carry_out(thread, registers, &space, naming, verdict) {
            Ok(answer) => {
                let mut after = *registers;
                after.skip_call(answer);
                let _ = thread.set_registers(&after);
            }
            // The next reports tell of it.
            Err(NotServed::Ended) => {}
            Err(NotServed::Refused(_)) => {
                let _ = continue_from(thread, registers);
            }
        }
    }

    /// What becomes of the call.
    fn verdict(&mut self, pid: i32, naming: &Naming) -> Looked {
        let process = self.threads.get(&pid).map_or(pid, |thread| thread.process);
        let names = Arc::clone(&self.names);
        let same = naming.clone();
        let limit = if self.names.objects().is_some() { SOON } else { LATE };
        match self.names.helper.begin(limit, move || verdict(&names, &same, (process, pid))) {
            Begun::Done(Some(verdict)) => Looked::Found(verdict),
            Begun::Done(None) => Looked::Nothing,
            Begun::Late(later) if self.names.objects().is_some() => Looked::Later(later),
            Begun::Late(_) | Begun::Refused => self.too_late(pid, naming),
        }
    }

    /// It could not be found out.
    fn too_late(&self, pid: i32, naming: &Naming) -> Looked {
        let name = String::from_utf8_lossy(&naming.name);
        self.tell(&format!("process {pid} ({}): {name} could not be resolved in time", name_of(pid)));
        // Another file in place of a mapped one would be wrong.
        match self.names.above(Path::new(OsStr::from_bytes(&naming.name))) {
            Some(_) => Looked::Found(Verdict::Answer(-i64::from(Errno::TIMEDOUT.raw_os_error()))),
            None => Looked::Nothing,
        }
    }

    /// Has the stopped thread wait until `verdict` has come. Whether it waits.
    fn wait_for_verdict(
        &mut self,
        pid: i32,
        registers: &Registers,
        naming: Naming,
        verdict: Receiver<Option<Verdict>>,
    ) -> bool {
        let number = self.waiting.begin(pid);
        let (jobs, registers) = (self.jobs.clone(), *registers);
        let wait = move || {
            let found = verdict.recv_timeout(LATEST);
            jobs.post(Box::new(move |supervisor| {
                supervisor.verdict_came(pid, number, registers, naming, found)
            }));
        };
        let waits = std::thread::Builder::new().name("memobj-names".into()).spawn(wait).is_ok();
        if !waits {
            self.waiting.end(pid);
        }
        waits
    }

    /// Makes the call that `pid` has waited with, if it waits still.
    fn verdict_came(
        &mut self,
        pid: i32,
        number: u64,
        registers: Registers,
        naming: Naming,
        found: Result<Option<Verdict>, RecvTimeoutError>,
    ) {
        if !self.waiting.ends(pid, number) {
            return;
        }
        let looked = match found {
            Ok(Some(verdict)) => Looked::Found(verdict),
            Ok(None) => Looked::Nothing,
            Err(_) => self.too_late(pid, &naming),
        };
        if let Looked::Found(verdict) = looked {
            self.make_named_call(pid, &registers, naming, verdict);
        }
        go_on(pid, Resume::Run);
    }
}

/// What is known of a call.
enum Looked {
    /// What becomes of it.
    Found(Verdict),
    /// It is the kernel's.
    Nothing,
    /// It comes: `None` if the call is the kernel's.
    Later(Receiver<Option<Verdict>>),
}

/// What becomes of the call; `None`: it is the kernel's.
fn verdict(names: &Names, naming: &Naming, caller: (i32, i32)) -> Option<Verdict> {
    match verdict_once(names, naming, caller) {
        // There is another version of an object than was listed. As the kernel does, it is looked once more.
        Some(Verdict::Answer(answer)) if answer == -i64::from(Errno::STALE.raw_os_error()) => {
            verdict_once(names, naming, caller)
        }
        verdict => verdict,
    }
}

fn verdict_once(names: &Names, naming: &Naming, caller: (i32, i32)) -> Option<Verdict> {
    let wanted = Wanted {
        name: &naming.name,
        start: start(names, naming, caller.1)?,
        last_link: naming.last_link,
        missing: naming.missing,
        resolve: naming.resolve,
        caller,
    };
    let walked = walk::walk(names, wanted);
    if !walked.crossed {
        return None;
    }
    Some(match walked.found.and_then(|found| of_found(names, naming, found)) {
        Ok(verdict) => verdict,
        Err(errno) => Verdict::Answer(-i64::from(errno.raw_os_error())),
    })
}

/// Where a name that is not absolute begins. `None`: the kernel refuses it.
fn start(names: &Names, naming: &Naming, thread: i32) -> Option<Option<Place>> {
    let is_scoped = naming.resolve & (walk::resolve::BENEATH | walk::resolve::IN_ROOT) != 0;
    if naming.name.starts_with(b"/") && !is_scoped {
        return Some(None);
    }
    let open = |what: String| Named::open(&PathBuf::from(format!("/proc/{thread}/{what}"))).ok();
    Some(Some(match naming.folder {
        // Programs do not come to what is mapped by chdir(2), but by its own name.
        None => Place::of(open("cwd".into())?),
        Some(descriptor) => names.seen_by_programs(open(format!("fd/{descriptor}"))?),
    }))
}

fn of_found(names: &Names, naming: &Naming, found: Found) -> Result<Verdict, Errno> {
    if naming.changes() && names.refuse_changes(&found.at) {
        return Err(Errno::ROFS);
    }
    let makes = naming.flags & flags::CREATE != 0;
    let is_fifo = found.file.as_ref().is_some_and(|file| file.kind() == FileType::Fifo);
    if naming.kind == Kind::Open && is_fifo && waits(naming.flags) {
        return Err(Errno::NXIO);
    }
    let file = match (found.file, found.entry) {
        // The kernel knows best who may make, or open by such a call, what in which folder.
        (_, Some((folder, name))) if makes && !names.has_objects(&folder) => {
            return Ok(Verdict::Entry(folder, name));
        }
        (Some(file), _) => file,
        (None, _) => return Err(if makes { Errno::ROFS } else { Errno::NOENT }),
    };
    let kind = file.kind();
    match naming.kind {
        Kind::Ask => {}
        Kind::ReadLink if kind == FileType::Symlink => return Ok(Verdict::Text(file.link()?)),
        Kind::ReadLink => return Err(Errno::INVAL),
        Kind::Open if makes && naming.flags & flags::EXCLUSIVE != 0 => return Err(Errno::EXIST),
        Kind::Open if makes && kind == FileType::Directory => return Err(Errno::ISDIR),
        Kind::Open if kind == FileType::Symlink => match () {
            () if naming.flags & flags::DIRECTORY != 0 => return Err(Errno::NOTDIR),
            () if naming.flags & flags::PATH == 0 => return Err(Errno::LOOP),
            () => {}
        },
        Kind::Open => {}
    }
    let reads = naming.kind == Kind::Open && naming.flags & (flags::PATH | flags::ACCESS) == 0;
    let opened = if reads { names.ready_to_open(&file)? } else { None };
    Ok(Verdict::File(file, opened))
}

/// Whether the opening of a FIFO waits for its other end: the supervisor cannot wait, since the other end may be waiting
/// for it.
fn waits(flags: u64) -> bool {
    flags & (flags::NONBLOCK | flags::PATH | flags::DIRECTORY) == 0
        && flags & flags::ACCESS != flags::READ_WRITE
}

fn carry_out(
    thread: Thread,
    registers: &Registers,
    space: &ProgramSpace,
    naming: Naming,
    verdict: Verdict,
) -> Result<i64, NotServed> {
    match verdict {
        Verdict::Answer(answer) => Ok(answer),
        Verdict::File(file, _opened) => {
            let path = space.site.path_of(thread, registers, file.as_fd().as_raw_fd())?;
            Ok(space.site.one(thread, registers, naming.of_what_is_there().on(path))?)
        }
        Verdict::Entry(folder, name) => {
            let mut path = space.site.path_text(folder.as_fd().as_raw_fd());
            path.pop();
            path.push(b'/');
            path.extend(name);
            path.push(0);
            on_page(thread, registers, space, &path, |path| naming.on(path))
        }
        Verdict::Text(text) => {
            let (address, room) = naming.link_room();
            let text = &text[..text.len().min(room as usize)];
            Ok(match write_memory(thread.0, address, text) {
                Ok(()) => text.len() as i64,
                Err(_) => -i64::from(Errno::FAULT.raw_os_error()),
            })
        }
    }
}

/// Makes a call on a path that is in a page of its own for so long.
fn on_page(
    thread: Thread,
    registers: &Registers,
    space: &ProgramSpace,
    path: &[u8],
    call: impl FnOnce(u64) -> Call,
) -> Result<i64, NotServed> {
    const MMAP: i64 = 9;
    const READ_WRITE: u64 = 3;
    const PRIVATE_ANONYMOUS: u64 = 0x22;
    let map = Call { number: MMAP, arguments: [0, PAGE, READ_WRITE, PRIVATE_ANONYMOUS, u64::MAX, 0] };
    let page = space.site.one(thread, registers, map)?;
    if page < 0 {
        return Err(NotServed::Refused("its address space has no room for a page".into()));
    }
    let written = write_memory(thread.0, page as u64, path);
    let answer = match written {
        Ok(()) => Ok(space.site.one(thread, registers, call(page as u64))?),
        Err(error) => Err(NotServed::from(error)),
    };
    space.site.one(thread, registers, Call::unmap(page as u64, PAGE))?;
    answer
}
