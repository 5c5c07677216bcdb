//! Spaces, one object, and maybe its disk.

use memobj_core::address::{PageIndex, VirtAddr};
use memobj_core::budget::Budget;
use memobj_core::prot::{Access, Prot};
use memobj_sim::space::{SoftFrames, SoftMmu};
use memobj_vm::fault::{Attached, Fill, FrameNumber, Memory, ObjectTable, PagedSpace, Stop, VerbError};
use memobj_vm::space::abi::linux::Populate;
use memobj_vm::space::{
    Limits, MapRequest, ObjectId, ObjectKind, ObjectView, Place, SegmentContent, Sharing,
};
use std::sync::Arc;

pub const PAGE: u64 = 4096;
pub const BASE: u64 = 1 << 40;
pub const FILE: ObjectId = ObjectId(1);
pub const RW: Prot = Prot::READ.union(Prot::WRITE);

pub struct ObjectsFixture {
    pub objects: ObjectTable<SoftFrames>,
    pub spaces: Vec<(PagedSpace, SoftMmu)>,
    /// Supplies what is needed, if it is there.
    pub disk: Option<Vec<u8>>,
}

pub type Loan<'a> = Attached<'a, SoftFrames, SoftMmu>;

impl ObjectsFixture {
    pub fn new(length: u64, fill: Fill) -> Self {
        Self::with_budget(length, fill, 1 << 30)
    }

    pub fn with_budget(length: u64, fill: Fill, budget_bytes: u64) -> Self {
        let limits = Limits::between(VirtAddr(BASE), VirtAddr(BASE * 2));
        let budget = Arc::new(Budget::new(budget_bytes));
        let mut objects = ObjectTable::new(SoftFrames::default(), budget, ObjectId(1 << 32));
        objects.open(FILE, length, fill);
        let spaces = vec![(PagedSpace::new(limits), SoftMmu::default())];
        Self { objects, spaces, disk: None }
    }

    /// An object with these bytes on a disk.
    pub fn on_disk(bytes: Vec<u8>) -> Self {
        let fixture = Self::new(bytes.len() as u64, Fill::Pager);
        Self { disk: Some(bytes), ..fixture }
    }

    /// Supplies `page`, if there is a disk.
    pub fn supply(&mut self, page: PageIndex) -> bool {
        let Some(disk) = &self.disk else { return false };
        let at = disk.len().min((page.0 * PAGE) as usize);
        let bytes = &disk[at..disk.len().min(at + PAGE as usize)];
        let frame = self.objects.memory().zeroed().unwrap();
        self.objects.memory().write(frame, 0, bytes);
        self.objects.supply(FILE, page, frame);
        true
    }

    /// Changes or reads the object, once all that takes is supplied.
    pub fn object<T>(&mut self, mut act: impl FnMut(&mut ObjectTable<SoftFrames>) -> Result<T, Stop>) -> T {
        loop {
            match act(&mut self.objects) {
                Err(Stop::Need(FILE, page)) if self.supply(page) => {}
                done => return done.unwrap(),
            }
        }
    }

    /// Writes to the disk what it does not have.
    pub fn write_back(&mut self) {
        let mut disk = self.disk.take();
        self.object(|objects| {
            objects.write_back(FILE, |offset, bytes, claim| {
                if let Some(disk) = &mut disk {
                    let end = offset as usize + bytes.len();
                    disk.resize(disk.len().max(end), 0);
                    disk[offset as usize..end].copy_from_slice(bytes);
                }
                claim.written();
            })
        });
        self.disk = disk;
    }

    pub fn with<T>(&mut self, space: usize, verb: impl FnOnce(&mut Loan<'_>) -> T) -> T {
        let (paged, mmu) = &mut self.spaces[space];
        verb(&mut paged.on(&mut self.objects, mmu))
    }

    pub fn settle(&mut self) {
        for notice in self.objects.memory().notices() {
            for space in 0..self.spaces.len() {
                self.with(space, |paged| paged.notice(notice));
            }
        }
    }

    pub fn map(&mut self, page: u64, pages: u64, first: u64, sharing: Sharing) -> Result<(), VerbError> {
        let view = ObjectView { id: FILE, opened: RW, kind: ObjectKind::Plain, largest: i64::MAX as u64 };
        let source = SegmentContent::Object { view, offset: first * PAGE };
        let place = Place::Fixed(VirtAddr(BASE + page * PAGE));
        let request = MapRequest::new(pages * PAGE, source, RW, sharing).at(place);
        let mapped = self.with(0, |paged| paged.map(&request, Populate::No)).map(drop);
        self.settle();
        mapped
    }

    pub fn reach(&mut self, space: usize, address: u64, access: Access) -> Result<FrameNumber, Stop> {
        for _ in 0..4 {
            if let Some(frame) = self.spaces[space].1.translate(address, access) {
                return Ok(frame);
            }
            let resolved = self.with(space, |paged| paged.fault(VirtAddr(address), access));
            self.settle();
            match resolved {
                Err(Stop::Need(FILE, page)) if self.supply(page) => {}
                resolved => resolved?,
            }
        }
        panic!("{access:?} at {address:#x} faults again and again");
    }

    pub fn load(&mut self, space: usize, address: u64) -> Result<u8, Stop> {
        let frame = self.reach(space, address, Access::Read)?;
        let mut byte = [0];
        self.objects.memory().read(frame, (address % PAGE) as usize, &mut byte);
        Ok(byte[0])
    }

    pub fn store(&mut self, space: usize, address: u64, byte: u8) -> Result<(), Stop> {
        let frame = self.reach(space, address, Access::Write)?;
        self.objects.memory().write(frame, (address % PAGE) as usize, &[byte]);
        Ok(())
    }

    pub fn fork(&mut self) {
        let child = self.with(0, |paged| paged.fork());
        self.spaces.push((child, SoftMmu::default()));
    }

    pub fn end(mut self) {
        for space in 0..self.spaces.len() {
            self.with(space, |paged| paged.clear());
        }
        self.objects.close(FILE);
        assert_eq!(self.objects.memory().in_use(), 0, "frames were lost");
    }
}
