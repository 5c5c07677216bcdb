//! The third side: a space of this process, whose segments are of objects over the same bytes.
//!
//! Objects are read only, so histories are of mapping, protection, moves and private stores. Between orders pages of the
//! objects are evicted, which nobody may notice.

use super::machine::{WINDOW_START, file_bytes};
use super::mapped::compare_mapped;
use super::{History, table};
use crate::random::Random;
use memobj::space::{SegmentRequest, SegmentSource, Sharing, Space, SpaceOptions, VerbError, VirtAddr};
use memobj::{
    Cache, CacheOptions, FrameSize, FrameVisibility, MapOptions, Mapping, MemoryObject, ObjectOptions, pagers,
};
use memobj_core::prot::Prot;
use memobj_linux::oracle::{Answer, Detail, Order, Signal, access, bytes_mark, trap_mark};
use memobj_vm::space::abi::{self, Errno, Verb, linux};
use memobj_vm::space::{ObjectId, ObjectKind, ObjectView, SegmentContent};

const PAGE: u64 = 4096;
const SIGSEGV: i32 = 11;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;

/// Objects with the bytes of the files of histories, and the cache that they are of.
#[derive(Debug)]
pub struct RealObjects {
    objects: [MemoryObject; 2],
    /// What evicts their pages.
    mappings: [Mapping; 2],
    _cache: Cache,
}

impl RealObjects {
    /// In memory, with frames of their own.
    pub fn new() -> Self {
        let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20)).expect("a cache");
        let options = ObjectOptions::new().visibility(FrameVisibility::Shared).frames(FrameSize::Small);
        let objects = [0, 1].map(|which| {
            let pager = pagers::Bytes::new(file_bytes(which));
            cache.object(&format!("file {which}"), pager, options.clone()).expect("an object")
        });
        let whole =
            |object: &MemoryObject| object.map(0..object.len(), MapOptions::default()).expect("mapped");
        let mappings = [whole(&objects[0]), whole(&objects[1])];
        Self { objects, mappings, _cache: cache }
    }

    fn evict(&self, which: usize) {
        let mapping = &self.mappings[which];
        mapping.advise(0..mapping.len(), memobj::Advice::DontNeed).expect("the mapping is whole");
    }
}

impl Default for RealObjects {
    fn default() -> Self {
        Self::new()
    }
}

/// A window of this process in which histories are carried out.
#[derive(Debug)]
pub struct RealSpace<'a> {
    space: Space,
    objects: &'a RealObjects,
    pages: u64,
    random: Random,
}

impl<'a> RealSpace<'a> {
    /// An empty window of so many pages, at the addresses of the other sides. There is one at a time in a process.
    pub fn new(objects: &'a RealObjects, history: &History) -> Self {
        let options =
            SpaceOptions::new().window_bytes(history.pages * PAGE).window_start(VirtAddr(WINDOW_START));
        let space = Space::new(options).expect("a window");
        Self { space, objects, pages: history.pages, random: Random::new(history.orders.len() as u64) }
    }

    /// Does what `order` says.
    pub fn carry_out(&mut self, order: Order) -> Answer {
        if self.random.below(4) == 0 {
            self.objects.evict(self.random.below(2) as usize);
        }
        match order {
            Order::Load { .. } | Order::Store { .. } | Order::Execute { .. } => accessed(self.access(order)),
            Order::Digest => self.digest(),
            Order::Table { .. } => {
                if let Err(difference) = compare_mapped(&self.space) {
                    return Answer { data: difference.into_bytes(), ..value(0) };
                }
                let text =
                    table::of_segments(self.space.table().into_iter(), |id| self.name(id), Detail::Lines);
                Answer { data: text.into_bytes(), ..value(0) }
            }
            verb => value(self.verb(verb).map_or_else(|errno| -i64::from(errno.linux()), |done| done as i64)),
        }
    }

    /// One access. Holes of the window are addresses that nobody may access, where the kernel alone has nothing at all:
    /// the declared difference "holes-are-reserved".
    fn access(&self, order: Order) -> Result<i64, Signal> {
        access(order).map_err(|signal| {
            let is_hole = (signal.number, signal.code) == (SIGSEGV, SEGV_ACCERR)
                && self.space.lookup(VirtAddr(signal.address)).is_none();
            if is_hole { Signal { code: SEGV_MAPERR, ..signal } } else { signal }
        })
    }

    /// The number of the file whose object is `id`.
    fn name(&self, id: ObjectId) -> Option<u64> {
        let is = |object: &MemoryObject| self.space.id_of(object) == Some(id);
        self.objects.objects.iter().position(is).map(|which| which as u64)
    }

    fn digest(&self) -> Answer {
        let mut data = Vec::new();
        for page in 0..self.pages {
            let address = WINDOW_START + page * PAGE;
            let byte = |at: u64| self.access(Order::Load { address: address + at });
            let mark = match byte(0) {
                Ok(_) => bytes_mark((0..PAGE / 8).map(|word| {
                    let bytes = (0..8).rev().map(|at| byte(word * 8 + at).expect("its page is there"));
                    bytes.fold(0, |all, byte| all << 8 | byte as u64)
                })),
                Err(signal) => trap_mark(signal.number, signal.code),
            };
            data.extend(mark.to_ne_bytes());
        }
        Answer { data, ..value(0) }
    }

    fn map(&self, order: Order) -> Result<u64, Errno> {
        let Order::Mmap { address, length, prot, flags, file, offset } = order else {
            return Err(Errno::EINVAL);
        };
        let which = usize::try_from(file).ok().and_then(|file| [0, 0, 0, 1].get(file).copied());
        let view = |which| {
            let (opened, kind) = (Prot::READ, ObjectKind::Plain);
            ObjectView { id: ObjectId(which), opened, kind, largest: i64::MAX as u64 }
        };
        let (object, memory) = (which.map(view), ObjectId(9));
        let (request, _) =
            linux::mmap(&linux::Mmap { address, length, prot, flags, object, offset, memory })?;
        let source = match request.source {
            SegmentContent::Object { view, offset } => {
                SegmentSource::Object { object: &self.objects.objects[view.id.0 as usize], offset }
            }
            _ => SegmentSource::Anonymous,
        };
        let sharing: Sharing = request.sharing.map_err(|_| Errno::EINVAL)?;
        let (length, place, prot) = (request.length, request.place, request.prot);
        let mapped = self.space.map(&SegmentRequest::new(length, source, prot, sharing).place(place));
        mapped.map(|segment| segment.start.0).map_err(|error| errno(Verb::Map, &error))
    }

    fn verb(&self, order: Order) -> Result<u64, Errno> {
        let space = &self.space;
        match order {
            Order::Mmap { .. } => self.map(order),
            Order::Munmap { address, length } => done(space.unmap(VirtAddr(address), length), Verb::Unmap),
            Order::Mprotect { address, length, prot } => {
                done(space.protect(VirtAddr(address), length, linux::NUMBERS.prot(prot)), Verb::Protect)
            }
            Order::Mremap { address, old, new, flags, to } => {
                let to = linux::mremap(flags, to)?;
                let moved = space.remap(VirtAddr(address), old, new, to);
                moved.map(|at| at.0).map_err(|error| errno(Verb::Remap, &error))
            }
            Order::Madvise { address, length, advice } => match linux::madvise(advice) {
                Ok(linux::Madvise::Advise(advice)) => {
                    done(space.advise(VirtAddr(address), length, advice), Verb::Advise)
                }
                _ => Err(Errno::EINVAL),
            },
            other => panic!("{other:?} is not in the profile"),
        }
    }
}

fn done(result: Result<(), VerbError>, verb: Verb) -> Result<u64, Errno> {
    result.map(|()| 0).map_err(|error| errno(verb, &error))
}

fn errno(verb: Verb, error: &VerbError) -> Errno {
    match error {
        VerbError::Space(error) => abi::errno(verb, error),
        other => panic!("{other}"),
    }
}

fn accessed(access: Result<i64, Signal>) -> Answer {
    match access {
        Ok(loaded) => value(loaded),
        Err(signal) => Answer { signal: Some(signal), ..value(0) },
    }
}

fn value(value: i64) -> Answer {
    Answer { value, signal: None, data: Vec::new() }
}
