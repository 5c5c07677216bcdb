//! Copy segments, pagers and many mappings, in software: what the kernel cannot be asked about.

use memobj_core::address::{PageIndex, PageRange, VirtAddr};
use memobj_core::budget::Budget;
use memobj_core::fault::{
    Attached, Block, Fill, FrameNumber, Memory, ObjectTable, PagedSpace, Stop, Trap, VerbError,
};
use memobj_core::pages::WriteClaim;
use memobj_core::prot::{Access, Prot};
use memobj_core::space::abi::linux::Populate;
use memobj_core::space::{Limits, MapRequest, ObjectId, ObjectKind, ObjectView, Place, Sharing, Source};
use memobj_sim::space::{SoftFrames, SoftMmu};
use memobj_sim::{Random, known_byte};
use proptest::prelude::*;
use std::sync::Arc;

const PAGE: u64 = 4096;
const BASE: u64 = 1 << 40;
const FILE: ObjectId = ObjectId(1);
const RW: Prot = Prot::READ.union(Prot::WRITE);

struct Rig {
    objects: ObjectTable<SoftFrames>,
    spaces: Vec<(PagedSpace, SoftMmu)>,
    /// Supplies what is needed, if it is there.
    disk: Option<Vec<u8>>,
}

type Loan<'a> = Attached<'a, SoftFrames, SoftMmu>;

impl Rig {
    fn new(length: u64, fill: Fill) -> Self {
        Self::with_budget(length, fill, 1 << 30)
    }

    fn with_budget(length: u64, fill: Fill, budget_bytes: u64) -> Self {
        let limits = Limits::between(VirtAddr(BASE), VirtAddr(BASE * 2));
        let budget = Arc::new(Budget::new(budget_bytes));
        let mut objects = ObjectTable::new(SoftFrames::default(), budget, ObjectId(1 << 32));
        objects.open(FILE, length, fill);
        let spaces = vec![(PagedSpace::new(limits), SoftMmu::default())];
        Self { objects, spaces, disk: None }
    }

    /// An object with these bytes on a disk.
    fn on_disk(bytes: Vec<u8>) -> Self {
        let rig = Self::new(bytes.len() as u64, Fill::Pager);
        Self { disk: Some(bytes), ..rig }
    }

    /// Supplies `page`, if there is a disk.
    fn supply(&mut self, page: PageIndex) -> bool {
        let Some(disk) = &self.disk else { return false };
        let at = disk.len().min((page.0 * PAGE) as usize);
        let bytes = &disk[at..disk.len().min(at + PAGE as usize)];
        let frame = self.objects.memory().zeroed().unwrap();
        self.objects.memory().write(frame, 0, bytes);
        self.objects.supply(FILE, page, frame);
        true
    }

    /// Changes or reads the object, once all that takes is supplied.
    fn object<T>(&mut self, mut act: impl FnMut(&mut ObjectTable<SoftFrames>) -> Result<T, Stop>) -> T {
        loop {
            match act(&mut self.objects) {
                Err(Stop::Need(FILE, page)) if self.supply(page) => {}
                done => return done.unwrap(),
            }
        }
    }

    /// Writes to the disk what it does not have.
    fn write_back(&mut self) {
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

    fn with<T>(&mut self, space: usize, verb: impl FnOnce(&mut Loan<'_>) -> T) -> T {
        let (paged, mmu) = &mut self.spaces[space];
        verb(&mut paged.on(&mut self.objects, mmu))
    }

    fn settle(&mut self) {
        for notice in self.objects.memory().notices() {
            for space in 0..self.spaces.len() {
                self.with(space, |paged| paged.notice(notice));
            }
        }
    }

    fn map(&mut self, page: u64, pages: u64, first: u64, sharing: Sharing) -> Result<(), VerbError> {
        let view = ObjectView { id: FILE, opened: RW, kind: ObjectKind::Plain, largest: i64::MAX as u64 };
        let source = Source::Object { view, offset: first * PAGE };
        let place = Place::Fixed(VirtAddr(BASE + page * PAGE));
        let request = MapRequest::new(pages * PAGE, source, RW, sharing).at(place);
        let mapped = self.with(0, |paged| paged.map(&request, Populate::No)).map(drop);
        self.settle();
        mapped
    }

    fn reach(&mut self, space: usize, address: u64, access: Access) -> Result<FrameNumber, Stop> {
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

    fn load(&mut self, space: usize, address: u64) -> Result<u8, Stop> {
        let frame = self.reach(space, address, Access::Read)?;
        let mut byte = [0];
        self.objects.memory().read(frame, (address % PAGE) as usize, &mut byte);
        Ok(byte[0])
    }

    fn store(&mut self, space: usize, address: u64, byte: u8) -> Result<(), Stop> {
        let frame = self.reach(space, address, Access::Write)?;
        self.objects.memory().write(frame, (address % PAGE) as usize, &[byte]);
        Ok(())
    }

    fn fork(&mut self) {
        let child = self.with(0, |paged| paged.fork());
        self.spaces.push((child, SoftMmu::default()));
    }

    fn end(mut self) {
        for space in 0..self.spaces.len() {
            self.with(space, |paged| paged.clear());
        }
        self.objects.close(FILE);
        assert_eq!(self.objects.memory().in_use(), 0, "frames were lost");
    }
}

/// The bytes of a page that are always looked at.
const LOOKED_AT: [u64; 4] = [0, 99, 2000, 4095];

#[derive(Clone, Debug)]
enum Step {
    Write { offset: u64, length: u64, byte: u8 },
    Length(u64),
    Punch { offset: u64, length: u64 },
    StoreShared { at: u64, byte: u8 },
    StoreCopy { space: bool, at: u64, byte: u8 },
    Look,
    WrittenBack,
    Evict,
    Fork,
    CopyAgain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..20_u8, 0..5 * PAGE, 1..9000_u64, any::<u8>(), any::<bool>()).prop_map(
        |(kind, offset, length, byte, space)| {
            // Single bytes are stored where they are looked at.
            let at = offset / PAGE * PAGE + LOOKED_AT[(offset % PAGE) as usize % LOOKED_AT.len()];
            match kind {
                0..4 => Step::Write { offset, length, byte },
                4 | 5 => Step::Length(offset),
                6 => Step::Punch { offset, length },
                7..10 => Step::StoreShared { at, byte },
                10..12 => Step::StoreCopy { space, at, byte },
                12..15 => Step::Look,
                15 => Step::WrittenBack,
                16 => Step::Fork,
                17 | 18 => Step::Evict,
                _ => Step::CopyAgain,
            }
        },
    );
    prop::collection::vec(step, 1..40)
}

/// What a copy segment has to show: the bytes of its moment, and what its space stored. `None` is past the end.
type Shown = Vec<Option<u8>>;

fn shown_now(rig: &mut Rig) -> Shown {
    let length = rig.objects.length(FILE).unwrap();
    let mut bytes = vec![0; length as usize];
    rig.object(|objects| objects.read_at(FILE, 0, &mut bytes));
    let whole = length.next_multiple_of(PAGE);
    bytes.resize(whole as usize, 0);
    let mut shown: Shown = bytes.into_iter().map(Some).collect();
    shown.resize(6 * PAGE as usize, None);
    shown
}

fn check(rig: &mut Rig, space: usize, base: u64, shown: &Shown) -> Result<(), TestCaseError> {
    let mut random = Random::new(base ^ shown.len() as u64);
    for page in 0..6 {
        for at in LOOKED_AT.into_iter().chain([random.below(PAGE)]).map(|byte| page * PAGE + byte) {
            let expected = shown[at as usize].ok_or(Stop::Trap(Trap::Beyond));
            prop_assert_eq!(rig.load(space, base + at), expected, "byte {} of a copy in {}", at, space);
        }
    }
    Ok(())
}

const SHARED: u64 = BASE;
const COPY: u64 = BASE + 100 * PAGE;
const SECOND: u64 = BASE + 200 * PAGE;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is written, stored by others, cut, extended or punched later; whether the object is in memory only or on
    /// a disk, and whenever it is written there and goes.
    #[test]
    fn a_copy_shows_its_moment(on_disk in any::<bool>(), before in steps(), after in steps()) {
        let bytes: Vec<u8> = (0..3 * PAGE + 100).map(|at| known_byte(5, at)).collect();
        let mut rig = if on_disk { Rig::on_disk(bytes) } else {
            let mut rig = Rig::new(0, Fill::Zeros);
            rig.objects.write_at(FILE, 0, &bytes).unwrap();
            rig
        };
        rig.map(0, 6, 0, Sharing::Shared).unwrap();
        let mut copies: Vec<(usize, u64, Shown)> = Vec::new();
        for (index, step) in before.iter().map(Some).chain([None]).chain(after.iter().map(Some)).enumerate() {
            match step {
                None => {
                    rig.map(100, 6, 0, Sharing::Copy).unwrap();
                    copies.push((0, COPY, shown_now(&mut rig)));
                }
                Some(Step::CopyAgain) if copies.len() == 1 => {
                    rig.map(200, 6, 0, Sharing::Copy).unwrap();
                    copies.push((0, SECOND, shown_now(&mut rig)));
                }
                Some(Step::Fork) if rig.spaces.len() == 1 => {
                    rig.fork();
                    let theirs: Vec<_> = copies.iter().map(|(_, base, shown)| (1, *base, shown.clone())).collect();
                    copies.extend(theirs);
                }
                Some(&Step::StoreCopy { space, at, byte }) => {
                    let space = usize::from(space && rig.spaces.len() == 2);
                    let copy = copies.iter_mut().find(|copy| copy.0 == space && copy.1 == COPY);
                    if let Some((_, _, shown)) = copy {
                        let stored = rig.store(space, COPY + at, byte);
                        prop_assert_eq!(stored.is_ok(), shown[at as usize].is_some());
                        if stored.is_ok() {
                            shown[at as usize] = Some(byte);
                        }
                    }
                }
                Some(step) => change(&mut rig, step),
            }
            if index % 3 == 0 || matches!(step, Some(Step::Look)) {
                for (space, base, shown) in &copies {
                    check(&mut rig, *space, *base, shown)?;
                }
            }
        }
        for (space, base, shown) in &copies {
            check(&mut rig, *space, *base, shown)?;
        }
        rig.end();
    }
}

/// Changes the object, or stores through the shared segment.
fn change(rig: &mut Rig, step: &Step) {
    match *step {
        Step::Write { offset, length, byte } => {
            let length = length.min(6 * PAGE - offset);
            rig.object(|objects| objects.write_at(FILE, offset, &vec![byte; length as usize]));
        }
        Step::Length(length) => {
            rig.object(|objects| objects.set_length(FILE, length));
            if let Some(disk) = &mut rig.disk {
                disk.truncate(length as usize);
            }
        }
        Step::Punch { offset, length } => {
            rig.object(|objects| objects.punch(FILE, (offset, offset + length)))
        }
        Step::WrittenBack => rig.write_back(),
        Step::Evict => drop(rig.objects.evict(FILE, PageRange { start: 0, end: 4 })),
        // Past the end it is a trap, as it should be.
        Step::StoreShared { at, byte } => drop(rig.store(0, SHARED + at, byte)),
        _ => {}
    }
    rig.settle();
}

#[test]
fn a_page_that_is_not_here_is_an_answer_and_its_tail_is_zero() {
    let mut rig = Rig::new(PAGE + 100, Fill::Pager);
    rig.map(0, 3, 0, Sharing::Private).unwrap();
    rig.map(10, 2, 0, Sharing::Copy).unwrap();
    for page in [0, 1] {
        let need = Err(Stop::Need(FILE, PageIndex(page)));
        assert_eq!(rig.load(0, BASE + page * PAGE), need);
        assert_eq!(rig.store(0, BASE + page * PAGE, 1).map(|()| 0), need);
        assert_eq!(rig.load(0, BASE + (10 + page) * PAGE), need);
        // Before it changes, a copy has to have it.
        let write = rig.objects.write_at(FILE, page * PAGE, &[7]);
        assert!(write.is_err());
        let frame = rig.objects.memory().zeroed().unwrap();
        rig.objects.memory().write(frame, 0, &[0x61; 4096]);
        rig.objects.supply(FILE, PageIndex(page), frame);
    }
    assert_eq!(rig.load(0, BASE + 4095), Ok(0x61));
    assert_eq!((rig.load(0, BASE + PAGE + 99), rig.load(0, BASE + PAGE + 100)), (Ok(0x61), Ok(0)));
    assert_eq!(rig.load(0, BASE + 2 * PAGE), Err(Stop::Trap(Trap::Beyond)));
    rig.objects.write_at(FILE, 0, &[7]).unwrap();
    rig.settle();
    assert_eq!((rig.load(0, BASE), rig.load(0, BASE + 10 * PAGE)), (Ok(7), Ok(0x61)));
    rig.end();
}

#[test]
fn what_comes_too_late_is_given_back() {
    let mut rig = Rig::new(PAGE, Fill::Pager);
    for _ in 0..2 {
        let frame = rig.objects.memory().zeroed().unwrap();
        rig.objects.supply(FILE, PageIndex(0), frame);
    }
    assert_eq!(rig.objects.memory().in_use(), 1);
    rig.end();
}

#[test]
fn ten_thousand_mappings_of_one_object_are_one_page() {
    let mut rig = Rig::new(4 * PAGE, Fill::Zeros);
    for index in 0..10_000 {
        // Every second page, so that none continues another.
        rig.map(2 * index, 1, 1, Sharing::Shared).unwrap();
    }
    assert_eq!(rig.spaces[0].0.space().len(), 10_000);
    rig.store(0, BASE + 77, 42).unwrap();
    for index in 0..10_000 {
        assert_eq!(rig.load(0, BASE + 2 * index * PAGE + 77), Ok(42));
    }
    assert_eq!(rig.objects.memory().in_use(), 1);
    rig.objects.set_length(FILE, PAGE).unwrap();
    rig.settle();
    for index in 0..10_000 {
        assert_eq!(rig.load(0, BASE + 2 * index * PAGE), Err(Stop::Trap(Trap::Beyond)));
    }
    rig.objects.close(FILE);
    rig.with(0, |paged| paged.unmap(VirtAddr(BASE), 30_000 * PAGE)).unwrap();
    assert_eq!((rig.objects.memory().in_use(), rig.objects.length(FILE)), (0, None));
}

#[test]
fn a_snapshot_ends_with_its_last_byte() {
    let mut rig = Rig::new(2 * PAGE, Fill::Zeros);
    rig.map(0, 2, 0, Sharing::Copy).unwrap();
    rig.store(0, BASE + 1, 9).unwrap();
    rig.objects.write_at(FILE, 0, &[1; 8192]).unwrap();
    rig.settle();
    let snapshot = ObjectId(1 << 32);
    for page in [0, 1] {
        assert_eq!(rig.objects.length(snapshot), Some(2 * PAGE));
        rig.with(0, |paged| paged.unmap(VirtAddr(BASE + page * PAGE), PAGE)).unwrap();
    }
    assert_eq!(rig.objects.length(snapshot), None);
    assert_eq!(rig.objects.snapshot(ObjectId(5)), None);
    assert!(rig.map(0, 0, 0, Sharing::Copy).is_err());
    rig.end();
}

#[test]
fn exec_keeps_what_is_to_be_kept() {
    let mut rig = Rig::new(PAGE, Fill::Zeros);
    rig.map(0, 1, 0, Sharing::Shared).unwrap();
    let source = Source::Anonymous { memory: ObjectId(50) };
    let kept = MapRequest {
        on_exec: memobj_core::space::OnExec::Keep,
        ..MapRequest::new(PAGE, source, RW, Sharing::Private).at(Place::Fixed(VirtAddr(BASE + PAGE)))
    };
    rig.with(0, |paged| paged.map(&kept, Populate::No)).unwrap();
    rig.store(0, BASE + PAGE, 5).unwrap();
    rig.with(0, |paged| paged.exec());
    assert_eq!(rig.load(0, BASE), Err(Stop::Trap(Trap::Unmapped)));
    assert_eq!(rig.load(0, BASE + PAGE), Ok(5));
    rig.end();
}

const WHOLE: PageRange = PageRange { start: 0, end: u64::MAX };

/// A frame of these bytes, supplied as `page`.
fn supply(rig: &mut Rig, page: u64, byte: u8) {
    let frame = rig.objects.memory().zeroed().unwrap();
    rig.objects.memory().write(frame, 0, &[byte; PAGE as usize]);
    rig.objects.supply(FILE, PageIndex(page), frame);
}

type Flight = (u64, Vec<u8>, WriteClaim<Block<SoftFrames>>);

/// What the object has written, unanswered.
fn write_back(rig: &mut Rig) -> Vec<Flight> {
    let mut flights = Vec::new();
    let begun = rig.objects.write_back(FILE, |at, bytes, claim| flights.push((at, bytes.to_vec(), claim)));
    begun.unwrap();
    rig.settle();
    flights
}

#[test]
fn a_page_that_fails_traps_until_it_is_retried() {
    let mut rig = Rig::new(2 * PAGE, Fill::Pager);
    rig.map(0, 2, 0, Sharing::Shared).unwrap();
    rig.map(10, 2, 0, Sharing::Copy).unwrap();
    let need = Err(Stop::Need(FILE, PageIndex(1)));
    assert_eq!((rig.load(0, BASE + PAGE), rig.load(0, BASE + 11 * PAGE)), (need, need));
    rig.objects.fail(FILE, PageIndex(1));
    let failed = Err(Stop::Trap(Trap::Failed));
    assert_eq!((rig.load(0, BASE + PAGE), rig.load(0, BASE + 11 * PAGE)), (failed, failed));
    assert_eq!(rig.store(0, BASE + PAGE, 1), Err(Stop::Trap(Trap::Failed)));
    assert!(rig.objects.write_at(FILE, PAGE, &[1]).is_err());
    // An answer that comes after it is nobody's.
    supply(&mut rig, 1, 7);
    assert_eq!((rig.load(0, BASE + PAGE), rig.objects.memory().in_use()), (failed, 0));
    assert!(rig.objects.retry(FILE, PageIndex(1)) && !rig.objects.retry(FILE, PageIndex(1)));
    assert_eq!(rig.load(0, BASE + PAGE), need);
    supply(&mut rig, 1, 7);
    assert_eq!((rig.load(0, BASE + PAGE), rig.load(0, BASE + 11 * PAGE)), (Ok(7), Ok(7)));
    // What is cut off is forgotten, with its failure.
    assert_eq!(rig.load(0, BASE), Err(Stop::Need(FILE, PageIndex(0))));
    rig.objects.fail(FILE, PageIndex(0));
    rig.with(0, |paged| paged.unmap(VirtAddr(BASE + 10 * PAGE), 2 * PAGE)).unwrap();
    rig.objects.set_length(FILE, 0).unwrap();
    rig.objects.set_length(FILE, PAGE).unwrap();
    rig.settle();
    assert_eq!(rig.load(0, BASE), Ok(0));
    rig.end();
}

#[test]
fn what_is_written_may_go_and_what_is_stored_meanwhile_stays() {
    let mut rig = Rig::new(PAGE + 100, Fill::Pager);
    rig.map(0, 2, 0, Sharing::Shared).unwrap();
    let _ = rig.load(0, BASE);
    supply(&mut rig, 0, 5);
    rig.store(0, BASE, 6).unwrap();
    assert_eq!(rig.objects.evict(FILE, WHOLE), 0);
    // It fails.
    drop(write_back(&mut rig));
    assert_eq!(rig.objects.evict(FILE, WHOLE), 0);
    // A store comes while it is under way.
    let mut flights = write_back(&mut rig);
    let (at, bytes, claim) = flights.pop().unwrap();
    assert_eq!((at, bytes.len(), &bytes[..2], flights.len()), (0, PAGE as usize, &[6, 5][..], 0));
    assert_eq!(rig.objects.evict(FILE, WHOLE), 0);
    rig.store(0, BASE + 1, 7).unwrap();
    assert!(write_back(&mut rig).is_empty(), "two writes of one page pass each other");
    claim.written();
    assert_eq!(rig.objects.evict(FILE, WHOLE), 0);
    let (_, bytes, claim) = write_back(&mut rig).pop().unwrap();
    assert_eq!(&bytes[..3], &[6, 7, 5]);
    claim.written();
    assert_eq!((rig.objects.evict(FILE, WHOLE), rig.objects.memory().in_use()), (1, 0));
    rig.settle();
    assert_eq!(rig.load(0, BASE), Err(Stop::Need(FILE, PageIndex(0))));
    supply(&mut rig, 0, 9);
    assert_eq!(rig.load(0, BASE), Ok(9));
    rig.end();
}

#[test]
fn what_is_on_its_way_is_not_cut_off() {
    let mut rig = Rig::new(3 * PAGE, Fill::Pager);
    rig.map(0, 3, 0, Sharing::Shared).unwrap();
    (0..3).for_each(|page| supply(&mut rig, page, 5));
    rig.store(0, BASE + 2 * PAGE, 6).unwrap();
    let flights = write_back(&mut rig);
    assert_eq!(rig.objects.set_length(FILE, 100), Err(Stop::Busy(FILE, PageIndex(2))));
    assert_eq!((rig.objects.length(FILE), rig.load(0, BASE + 200)), (Some(3 * PAGE), Ok(5)));
    flights.into_iter().for_each(|(.., claim)| claim.written());
    rig.objects.set_length(FILE, 100).unwrap();
    rig.settle();
    assert_eq!((rig.load(0, BASE + 99), rig.load(0, BASE + 100)), (Ok(5), Ok(0)));
    assert_eq!(rig.load(0, BASE + 2 * PAGE), Err(Stop::Trap(Trap::Beyond)));
    // What is on its way when the object goes keeps its page for so long.
    let flights = write_back(&mut rig);
    assert_eq!(flights[0].1.len(), 100);
    rig.with(0, |paged| paged.clear());
    rig.objects.close(FILE);
    assert_eq!(rig.objects.memory().in_use(), 1);
    drop(flights);
    assert_eq!(rig.objects.memory().in_use(), 0);
}

#[test]
fn a_copy_outlives_what_its_origin_evicts() {
    let mut rig = Rig::new(2 * PAGE, Fill::Pager);
    rig.map(0, 2, 0, Sharing::Shared).unwrap();
    rig.map(10, 2, 0, Sharing::Copy).unwrap();
    supply(&mut rig, 0, 5);
    supply(&mut rig, 1, 5);
    assert_eq!((rig.load(0, BASE + 10 * PAGE), rig.load(0, BASE + 11 * PAGE)), (Ok(5), Ok(5)));
    rig.store(0, BASE + PAGE, 6).unwrap();
    write_back(&mut rig).into_iter().for_each(|(.., claim)| claim.written());
    assert_eq!(rig.objects.evict(FILE, WHOLE), 2);
    // What the copy has of its own is nobody else's.
    assert_eq!(rig.objects.evict(ObjectId(1 << 32), WHOLE), 0);
    rig.settle();
    assert_eq!(rig.load(0, BASE + 10 * PAGE), Err(Stop::Need(FILE, PageIndex(0))));
    assert_eq!(rig.load(0, BASE + 11 * PAGE), Ok(5));
    supply(&mut rig, 0, 5);
    assert_eq!(rig.load(0, BASE + 10 * PAGE), Ok(5));
    rig.end();
}

#[test]
fn frames_of_objects_stay_within_their_budget() {
    let mut rig = Rig::with_budget(4 * PAGE, Fill::Zeros, 2 * PAGE);
    rig.map(0, 4, 0, Sharing::Shared).unwrap();
    rig.store(0, BASE, 1).unwrap();
    assert_eq!(rig.load(0, BASE + PAGE), Ok(0));
    assert_eq!(rig.load(0, BASE + 2 * PAGE), Err(Stop::NoFrame));
    assert_eq!(rig.objects.evict(FILE, WHOLE), 1);
    rig.settle();
    assert_eq!(rig.load(0, BASE + 2 * PAGE), Ok(0));
    assert_eq!((rig.load(0, BASE), rig.objects.memory().in_use()), (Ok(1), 2));
    rig.end();
    // A page that is needed has its frame reserved.
    let mut rig = Rig::with_budget(2 * PAGE, Fill::Pager, PAGE);
    rig.map(0, 2, 0, Sharing::Shared).unwrap();
    assert_eq!(rig.load(0, BASE), Err(Stop::Need(FILE, PageIndex(0))));
    assert_eq!(rig.load(0, BASE + PAGE), Err(Stop::NoFrame));
    rig.objects.fail(FILE, PageIndex(0));
    assert_eq!(rig.load(0, BASE + PAGE), Err(Stop::Need(FILE, PageIndex(1))));
    rig.objects.set_length(FILE, PAGE).unwrap();
    rig.objects.retry(FILE, PageIndex(0));
    assert_eq!(rig.load(0, BASE), Err(Stop::Need(FILE, PageIndex(0))));
    rig.end();
}

#[test]
fn an_object_of_exbibytes_takes_a_block_for_a_page() {
    let mut rig = Rig::new(u64::MAX, Fill::Zeros);
    rig.map(0, 1, (1 << 50) - 1, Sharing::Shared).unwrap();
    rig.store(0, BASE + 9, 3).unwrap();
    rig.objects.write_at(FILE, u64::MAX - 2, &[4, 5]).unwrap();
    let mut bytes = [0; 4];
    assert_eq!(rig.objects.read_at(FILE, u64::MAX - 3, &mut bytes), Ok(3));
    assert_eq!((bytes, rig.objects.memory().in_use()), ([0, 4, 5, 0], 2));
    rig.objects.set_length(FILE, (1 << 62) - 1).unwrap();
    rig.settle();
    assert_eq!((rig.load(0, BASE + 9), rig.objects.memory().in_use()), (Ok(3), 1));
    rig.end();
}

#[test]
fn tables_of_objects_may_be_used_by_many_threads() {
    fn may_be<T: Send + Sync>() {}
    may_be::<ObjectTable<SoftFrames>>();
}
