//! Software that does what the kernel does.

use super::disk::Disk;
use super::table;
use super::{SoftFrames, SoftMmu};
use memobj_core::address::VirtAddr;
use memobj_core::budget::Budget;
use memobj_core::prot::{Access, Prot};
use memobj_linux::oracle::{Answer, Order, Process, Signal, bytes_mark, trap_mark};
use memobj_vm::fault::{Attached, Fill, FrameNumber, Memory, ObjectTable, PagedSpace, Stop, Trap, VerbError};
use memobj_vm::space::abi::{self, Errno, Verb, linux};
use memobj_vm::space::{
    Change, Invalidate, Limits, Loads, Lock, ObjectId, ObjectKind, ObjectView, SpaceError, SyncMode,
};
use std::sync::Arc;

const PAGE: u64 = 4096;
/// Where the window starts.
pub const WINDOW_START: u64 = 0x1000_0000_0000;
/// The most bytes that can be locked.
pub(super) const LOCKED_BYTES: u64 = 24 * PAGE;

/// The most bytes of frames of objects: more than any history needs.
const BUDGET_BYTES: u64 = 1 << 30;

/// What the files of a history are: which of the two, and for what it was opened.
pub const FILES: [(u64, Prot); 4] = [
    (0, Prot::READ.union(Prot::WRITE)),
    (0, Prot::READ),
    (0, Prot::WRITE),
    (1, Prot::READ.union(Prot::WRITE)),
];

/// What is in file `which` when a history begins.
pub fn file_bytes(which: u64) -> Vec<u8> {
    let length = [5 * PAGE + 100, 2 * PAGE][which as usize];
    (0..length).map(|at| crate::known_byte(which, at)).collect()
}

/// Two processes at most, two files, and their memory.
#[derive(Debug)]
pub struct Machine {
    pub(super) objects: ObjectTable<SoftFrames>,
    pub(super) disk: Disk,
    spaces: [Option<(PagedSpace, SoftMmu)>; 2],
    pages: u64,
    next_memory: u64,
    parted: Option<&'static str>,
}

/// The answer to who executes memory that may not be loaded.
pub(super) const EXECUTE_ONLY: i64 = 1;

impl Machine {
    /// One process with a window of so many pages, on a processor that lets `loads` pass for loads.
    pub fn new(pages: u64, loads: Loads) -> Self {
        let end = VirtAddr(WINDOW_START + pages * PAGE);
        let limits = Limits {
            locked_bytes: LOCKED_BYTES,
            loads,
            segments: 65530,
            ..Limits::between(VirtAddr(WINDOW_START), end)
        };
        let budget = Arc::new(Budget::new(BUDGET_BYTES));
        let mut objects = ObjectTable::new(SoftFrames::default(), budget, ObjectId(1 << 32));
        for which in 0..2 {
            objects.open(ObjectId(which), file_bytes(which).len() as u64, Fill::Pager);
        }
        let first = Some((PagedSpace::new(limits), SoftMmu::default()));
        Self { objects, disk: Disk::new(), spaces: [first, None], pages, next_memory: 1000, parted: None }
    }

    /// Does what `order` says in `process`, which is there.
    pub fn carry_out(&mut self, process: Process, order: Order) -> Answer {
        let process = process as usize;
        self.parted = self.parted.or_else(|| self.parts_ways(process, order));
        self.disk.stir(&mut self.objects);
        self.settle();
        let answer = match order {
            Order::Load { address } => self.access(process, address, Access::Read, 0),
            Order::Store { address, byte } => self.access(process, address, Access::Write, byte),
            Order::Execute { address } => self.access(process, address, Access::Execute, 0),
            Order::Digest => self.digest(process),
            Order::Table { detail } => {
                let text =
                    self.spaces[process].as_ref().map(|(space, _)| table::of_space(space.space(), detail));
                Answer { data: text.unwrap_or_default().into_bytes(), ..value(0) }
            }
            Order::CopyOut { address, length } => self.copy_out(process, address, length),
            Order::CopyIn { address, length, byte } => {
                let bytes = vec![byte; length as usize];
                let count = self.transfer(process, |space, done| {
                    space.copy_in(VirtAddr(address.wrapping_add(done as u64)), &bytes[done..])
                });
                value(transferred(count, length))
            }
            Order::Pwrite { .. } | Order::Pread { .. } | Order::Truncate { .. } | Order::Punch { .. } => {
                self.file_order(order)
            }
            Order::Fork => {
                let child = self.with(process, |space| space.fork());
                self.spaces[1] = Some((child, SoftMmu::default()));
                value(0)
            }
            Order::Exit => {
                self.with(process, |space| space.clear());
                self.spaces[process] = None;
                value(0)
            }
            verb => match self.verb(process, verb) {
                Ok(number) => value(number as i64),
                Err(errno) => value(-i64::from(errno.linux())),
            },
        };
        self.settle();
        answer
    }

    /// The declared difference that an order before brought about: from there on answers may differ.
    pub fn parted(&self) -> Option<&'static str> {
        self.parted
    }

    /// The declared difference that `order` would bring about without its answer telling.
    fn parts_ways(&self, process: usize, order: Order) -> Option<&'static str> {
        let (space, _) = self.spaces[process].as_ref()?;
        match order {
            Order::Mremap { address, old, flags, .. } if flags & 4 != 0 => {
                let mut sources = space.space().iter_range(VirtAddr(address), old.max(1));
                let locked = sources.any(|source| source.attributes.lock != Lock::Unlocked);
                locked.then_some("keep-unlocks-more")
            }
            _ => None,
        }
    }

    /// Ends all processes; every frame has to be free then, but for those of the files.
    pub fn end(mut self) {
        for process in 0..2 {
            if self.spaces[process].is_some() {
                self.carry_out(process as Process, Order::Exit);
            }
        }
        self.disk.land();
        for which in 0..2 {
            self.objects.close(ObjectId(which));
        }
        assert_eq!(self.objects.memory().in_use(), 0, "frames were lost");
    }

    /// Passes notices on to all processes.
    pub(super) fn settle(&mut self) {
        for notice in self.objects.memory().notices() {
            for process in 0..2 {
                if self.spaces[process].is_some() {
                    self.with(process, |space| space.notice(notice));
                }
            }
        }
    }

    pub(super) fn with<T>(
        &mut self,
        process: usize,
        verb: impl FnOnce(&mut Attached<'_, SoftFrames, SoftMmu>) -> T,
    ) -> T {
        let (space, mmu) = self.spaces[process].as_mut().expect("the process is there");
        verb(&mut space.on(&mut self.objects, mmu))
    }

    fn access(&mut self, process: usize, address: u64, access: Access, byte: u8) -> Answer {
        let frame = match self.reach(process, address, access) {
            Ok(frame) => frame,
            Err(trap) => return Answer { signal: Some(signal(trap, address)), ..value(0) },
        };
        let (at, mut loaded) = ((address % PAGE) as usize, [0]);
        match access {
            Access::Read => self.objects.memory().read(frame, at, &mut loaded),
            Access::Write => self.objects.memory().write(frame, at, &[byte]),
            Access::Execute if !self.may_load(process, address) => return value(EXECUTE_ONLY),
            Access::Execute => {}
        }
        value(i64::from(loaded[0]))
    }

    fn may_load(&self, process: usize, address: u64) -> bool {
        let (space, _) = self.spaces[process].as_ref().expect("the process is there");
        let segment = space.space().lookup(VirtAddr(address));
        let limits = space.space().limits();
        segment.is_some_and(|segment| limits.effective(segment.attributes.prot).allows(Access::Read))
    }

    /// The frame that an access reaches, after as many faults as it takes.
    fn reach(&mut self, process: usize, address: u64, access: Access) -> Result<FrameNumber, Trap> {
        for _ in 0..3 {
            let (_, mmu) = self.spaces[process].as_mut().expect("the process is there");
            if let Some(frame) = mmu.translate(address, access) {
                return Ok(frame);
            }
            let fault =
                |space: &mut Attached<'_, SoftFrames, SoftMmu>| space.fault(VirtAddr(address), access);
            match self.until_supplied(|machine| machine.with(process, fault).map_err(VerbError::Stop)) {
                Ok(()) => {}
                Err(VerbError::Stop(Stop::Trap(trap))) => return Err(trap),
                Err(other) => panic!("memory is plenty: {other:?}"),
            }
        }
        panic!("{access:?} at {address:#x} faults again and again")
    }

    fn digest(&mut self, process: usize) -> Answer {
        let mut data = Vec::new();
        for page in 0..self.pages {
            let address = WINDOW_START + page * PAGE;
            let mark = match self.reach(process, address, Access::Read) {
                Ok(frame) => {
                    let mut bytes = vec![0; PAGE as usize];
                    self.objects.memory().read(frame, 0, &mut bytes);
                    bytes_mark(
                        bytes
                            .chunks_exact(8)
                            .map(|word| word.iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte))),
                    )
                }
                Err(trap) => {
                    let signal = signal(trap, address);
                    trap_mark(signal.number, signal.code)
                }
            };
            data.extend(mark.to_ne_bytes());
        }
        Answer { data, ..value(0) }
    }

    fn copy_out(&mut self, process: usize, address: u64, length: u64) -> Answer {
        let mut data = vec![0; length as usize];
        let count = self.transfer(process, |space, done| {
            space.copy_out(VirtAddr(address.wrapping_add(done as u64)), &mut data[done..])
        });
        data.truncate(count);
        Answer { data, ..value(transferred(count, length)) }
    }

    fn file_order(&mut self, order: Order) -> Answer {
        let (Order::Pwrite { file, .. }
        | Order::Pread { file, .. }
        | Order::Truncate { file, .. }
        | Order::Punch { file, .. }) = order
        else {
            return value(0);
        };
        let (which, opened) = FILES[file as usize];
        let id = ObjectId(which);
        let writable = opened.contains(Prot::WRITE);
        match order {
            Order::Pread { offset, length, .. } if opened.contains(Prot::READ) => {
                let mut data = vec![0; length as usize];
                let count = self.of_file(|objects| objects.read_at(id, offset, &mut data));
                data.truncate(count);
                Answer { data, ..value(count as i64) }
            }
            Order::Pwrite { offset, length, byte, .. } if writable => {
                self.of_file(|objects| objects.write_at(id, offset, &vec![byte; length as usize]));
                value(length as i64)
            }
            Order::Truncate { length, .. } if writable => {
                self.of_file(|objects| objects.set_length(id, length));
                self.disk.set_length(id, length);
                value(0)
            }
            Order::Truncate { .. } => value(-i64::from(Errno::EINVAL.linux())),
            Order::Punch { length: 0, .. } => value(-i64::from(Errno::EINVAL.linux())),
            Order::Punch { offset, length, .. } if writable => {
                self.of_file(|objects| objects.punch(id, (offset, offset + length)));
                value(0)
            }
            _ => value(-i64::from(Errno::EBADF.linux())),
        }
    }

    fn verb(&mut self, process: usize, order: Order) -> Result<u64, Errno> {
        self.bring_files_in();
        match order {
            Order::Mmap { address, length, prot, flags, file, offset } => {
                self.next_memory += 1;
                let memory = ObjectId(self.next_memory);
                let object = usize::try_from(file).ok().and_then(|file| FILES.get(file));
                let object = object.map(|&(which, opened)| view(which, opened));
                let call = linux::Mmap { address, length, prot, flags, object, offset, memory };
                let (request, populate) = linux::mmap(&call)?;
                let mapped = self.with(process, |space| space.map(&request, populate));
                mapped.map(|segment| segment.start.0).map_err(|error| errno(Verb::Map, &error))
            }
            Order::Munmap { address, length } => {
                let done = self.with(process, |space| space.unmap(VirtAddr(address), length));
                done.map(|()| 0).map_err(|error| errno(Verb::Unmap, &error))
            }
            Order::Mprotect { address, length, prot } => {
                let (prot, from) = linux::mprotect(prot)?;
                let at = VirtAddr(address);
                let done = self.with(process, |space| space.protect(at, length, prot, from));
                done.map(|()| 0).map_err(|error| errno(Verb::Protect, &error))
            }
            Order::Mremap { address, old, new, flags, to } => {
                let to = linux::mremap(flags, to)?;
                let at = VirtAddr(address);
                let done = self.with(process, |space| space.remap(at, (old, new), to));
                done.map(|at| at.0).map_err(|error| errno(Verb::Remap, &error))
            }
            Order::Madvise { address, length, advice } => self.advise(process, address, length, advice),
            Order::Mlock { flags: 2.., .. } => Err(Errno::EINVAL),
            Order::Mlock { address, length, flags } => {
                let lock = if flags == 0 { Lock::Locked } else { Lock::OnFault };
                self.lock(process, address, length, lock)
            }
            Order::Munlock { address, length } => self.lock(process, address, length, Lock::Unlocked),
            Order::Msync { address, length, flags } => self.sync(process, address, length, flags),
            other => panic!("{other:?} is no verb"),
        }
    }

    fn lock(&mut self, process: usize, address: u64, length: u64, lock: Lock) -> Result<u64, Errno> {
        let lock =
            |space: &mut Attached<'_, SoftFrames, SoftMmu>| space.lock(VirtAddr(address), length, lock);
        let done = self.until_supplied(|machine| machine.with(process, lock));
        done.map(|()| 0).map_err(|error| errno(Verb::Lock, &error))
    }

    fn advise(&mut self, process: usize, address: u64, length: u64, number: i32) -> Result<u64, Errno> {
        let (advice, at, mut punched) = (linux::madvise(number), VirtAddr(address), Vec::new());
        let done = self.until_supplied(|machine| {
            punched.clear();
            machine.with(process, |space| space.advise(at, length, advice, &mut punched))
        });
        for change in punched {
            if let Change::Punched(part) = change
                && let Some((id, offset)) = part.object_at(part.start)
            {
                let range = (offset.0, offset.0 + part.length);
                self.of_file(|objects| objects.punch(id, range));
            }
        }
        done.map(|()| 0).map_err(|error| errno(Verb::Advise, &error))
    }

    fn sync(&mut self, process: usize, address: u64, length: u64, flags: i32) -> Result<u64, Errno> {
        if flags & !7 != 0 || flags & 5 == 5 {
            return Err(Errno::EINVAL);
        }
        let mode = if flags & 4 != 0 { SyncMode::Now } else { SyncMode::Later };
        let invalidate = if flags & 2 != 0 { Invalidate::Yes } else { Invalidate::No };
        let mut changes = Vec::new();
        let (space, _) = self.spaces[process].as_ref().expect("the process is there");
        // Without a word on when, nothing is written back, and all of the range is looked at.
        let done = space.space().sync(VirtAddr(address), length, mode, invalidate, &mut changes);
        for change in changes {
            if let Change::Synced(part) = change
                && let Some((id, offset)) = part.object_at(part.start)
                && self.objects.length(id).is_some_and(|end| offset.0 < end && end <= offset.0 + part.length)
            {
                self.disk.land();
                self.disk.begin(&mut self.objects, id);
                self.disk.land();
            }
        }
        done.map(|()| 0).map_err(|error| abi::errno(Verb::Sync, &error))
    }
}

fn view(which: u64, opened: Prot) -> ObjectView {
    ObjectView { id: ObjectId(which), opened, kind: ObjectKind::Plain, largest: i64::MAX as u64 }
}

fn errno(verb: Verb, error: &VerbError) -> Errno {
    match error {
        VerbError::Space(SpaceError::NotResident { .. }) if verb != Verb::Lock => Errno::EFAULT,
        VerbError::Space(error) => abi::errno(verb, error),
        VerbError::Stop(_) | VerbError::NoSnapshot => Errno::ENOMEM,
    }
}

fn value(value: i64) -> Answer {
    Answer { value, signal: None, data: Vec::new() }
}

/// What a system call returns that copied so many bytes.
fn transferred(count: usize, wanted: u64) -> i64 {
    if count == 0 && wanted > 0 { -i64::from(Errno::EFAULT.linux()) } else { count as i64 }
}

fn signal(trap: Trap, address: u64) -> Signal {
    let (number, code) = match trap {
        Trap::Unmapped => (11, 1),
        Trap::Denied => (11, 2),
        Trap::Beyond | Trap::Failed => (7, 2),
    };
    Signal { number, code, address }
}
