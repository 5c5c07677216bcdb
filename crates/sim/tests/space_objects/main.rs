//! Copy segments, pagers and many mappings, in software: what the kernel cannot be asked about.

mod fixture;
mod pages;

use fixture::*;
use memobj_core::address::{PageIndex, PageRange, VirtAddr};
use memobj_sim::{Random, known_byte};
use memobj_vm::fault::{Fill, Memory, Stop, Trap};
use memobj_vm::space::abi::linux::Populate;
use memobj_vm::space::{MapRequest, ObjectId, Place, SegmentContent, Sharing};
use proptest::prelude::*;

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

fn shown_now(fixture: &mut ObjectsFixture) -> Shown {
    let length = fixture.objects.length(FILE).unwrap();
    let mut bytes = vec![0; length as usize];
    fixture.object(|objects| objects.read_at(FILE, 0, &mut bytes));
    let whole = length.next_multiple_of(PAGE);
    bytes.resize(whole as usize, 0);
    let mut shown: Shown = bytes.into_iter().map(Some).collect();
    shown.resize(6 * PAGE as usize, None);
    shown
}

fn check(fixture: &mut ObjectsFixture, space: usize, base: u64, shown: &Shown) -> Result<(), TestCaseError> {
    let mut random = Random::new(base ^ shown.len() as u64);
    for page in 0..6 {
        for at in LOOKED_AT.into_iter().chain([random.below(PAGE)]).map(|byte| page * PAGE + byte) {
            let expected = shown[at as usize].ok_or(Stop::Trap(Trap::Beyond));
            prop_assert_eq!(fixture.load(space, base + at), expected, "byte {} of a copy in {}", at, space);
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
        let mut fixture = if on_disk { ObjectsFixture::on_disk(bytes) } else {
            let mut fixture = ObjectsFixture::new(0, Fill::Zeros);
            fixture.objects.write_at(FILE, 0, &bytes).unwrap();
            fixture
        };
        fixture.map(0, 6, 0, Sharing::Shared).unwrap();
        let mut copies: Vec<(usize, u64, Shown)> = Vec::new();
        for (index, step) in before.iter().map(Some).chain([None]).chain(after.iter().map(Some)).enumerate() {
            match step {
                None => {
                    fixture.map(100, 6, 0, Sharing::Copy).unwrap();
                    copies.push((0, COPY, shown_now(&mut fixture)));
                }
                Some(Step::CopyAgain) if copies.len() == 1 => {
                    fixture.map(200, 6, 0, Sharing::Copy).unwrap();
                    copies.push((0, SECOND, shown_now(&mut fixture)));
                }
                Some(Step::Fork) if fixture.spaces.len() == 1 => {
                    fixture.fork();
                    let theirs: Vec<_> = copies.iter().map(|(_, base, shown)| (1, *base, shown.clone())).collect();
                    copies.extend(theirs);
                }
                Some(&Step::StoreCopy { space, at, byte }) => {
                    let space = usize::from(space && fixture.spaces.len() == 2);
                    let copy = copies.iter_mut().find(|copy| copy.0 == space && copy.1 == COPY);
                    if let Some((_, _, shown)) = copy {
                        let stored = fixture.store(space, COPY + at, byte);
                        prop_assert_eq!(stored.is_ok(), shown[at as usize].is_some());
                        if stored.is_ok() {
                            shown[at as usize] = Some(byte);
                        }
                    }
                }
                Some(step) => change(&mut fixture, step),
            }
            if index % 3 == 0 || matches!(step, Some(Step::Look)) {
                for (space, base, shown) in &copies {
                    check(&mut fixture, *space, *base, shown)?;
                }
            }
        }
        for (space, base, shown) in &copies {
            check(&mut fixture, *space, *base, shown)?;
        }
        fixture.end();
    }
}

/// Changes the object, or stores through the shared segment.
fn change(fixture: &mut ObjectsFixture, step: &Step) {
    match *step {
        Step::Write { offset, length, byte } => {
            let length = length.min(6 * PAGE - offset);
            fixture.object(|objects| objects.write_at(FILE, offset, &vec![byte; length as usize]));
        }
        Step::Length(length) => {
            fixture.object(|objects| objects.set_length(FILE, length));
            if let Some(disk) = &mut fixture.disk {
                disk.truncate(length as usize);
            }
        }
        Step::Punch { offset, length } => {
            fixture.object(|objects| objects.punch(FILE, (offset, offset + length)))
        }
        Step::WrittenBack => fixture.write_back(),
        Step::Evict => drop(fixture.objects.evict(FILE, PageRange { start: 0, end: 4 })),
        // Past the end it is a trap, as it should be.
        Step::StoreShared { at, byte } => drop(fixture.store(0, SHARED + at, byte)),
        _ => {}
    }
    fixture.settle();
}

#[test]
fn a_page_that_is_not_here_is_an_answer_and_its_tail_is_zero() {
    let mut fixture = ObjectsFixture::new(PAGE + 100, Fill::Pager);
    fixture.map(0, 3, 0, Sharing::Private).unwrap();
    fixture.map(10, 2, 0, Sharing::Copy).unwrap();
    for page in [0, 1] {
        let need = Err(Stop::Need(FILE, PageIndex(page)));
        assert_eq!(fixture.load(0, BASE + page * PAGE), need);
        assert_eq!(fixture.store(0, BASE + page * PAGE, 1).map(|()| 0), need);
        assert_eq!(fixture.load(0, BASE + (10 + page) * PAGE), need);
        // Before it changes, a copy has to have it.
        let write = fixture.objects.write_at(FILE, page * PAGE, &[7]);
        assert!(write.is_err());
        let frame = fixture.objects.memory().zeroed().unwrap();
        fixture.objects.memory().write(frame, 0, &[0x61; 4096]);
        fixture.objects.supply(FILE, PageIndex(page), frame);
    }
    assert_eq!(fixture.load(0, BASE + 4095), Ok(0x61));
    assert_eq!((fixture.load(0, BASE + PAGE + 99), fixture.load(0, BASE + PAGE + 100)), (Ok(0x61), Ok(0)));
    assert_eq!(fixture.load(0, BASE + 2 * PAGE), Err(Stop::Trap(Trap::Beyond)));
    fixture.objects.write_at(FILE, 0, &[7]).unwrap();
    fixture.settle();
    assert_eq!((fixture.load(0, BASE), fixture.load(0, BASE + 10 * PAGE)), (Ok(7), Ok(0x61)));
    fixture.end();
}

#[test]
fn what_comes_too_late_is_given_back() {
    let mut fixture = ObjectsFixture::new(PAGE, Fill::Pager);
    for _ in 0..2 {
        let frame = fixture.objects.memory().zeroed().unwrap();
        fixture.objects.supply(FILE, PageIndex(0), frame);
    }
    assert_eq!(fixture.objects.memory().in_use(), 1);
    fixture.end();
}

#[test]
fn ten_thousand_mappings_of_one_object_are_one_page() {
    let mut fixture = ObjectsFixture::new(4 * PAGE, Fill::Zeros);
    for index in 0..10_000 {
        // Every second page, so that none continues another.
        fixture.map(2 * index, 1, 1, Sharing::Shared).unwrap();
    }
    assert_eq!(fixture.spaces[0].0.space().len(), 10_000);
    fixture.store(0, BASE + 77, 42).unwrap();
    for index in 0..10_000 {
        assert_eq!(fixture.load(0, BASE + 2 * index * PAGE + 77), Ok(42));
    }
    assert_eq!(fixture.objects.memory().in_use(), 1);
    fixture.objects.set_length(FILE, PAGE).unwrap();
    fixture.settle();
    for index in 0..10_000 {
        assert_eq!(fixture.load(0, BASE + 2 * index * PAGE), Err(Stop::Trap(Trap::Beyond)));
    }
    fixture.objects.close(FILE);
    fixture.with(0, |paged| paged.unmap(VirtAddr(BASE), 30_000 * PAGE)).unwrap();
    assert_eq!((fixture.objects.memory().in_use(), fixture.objects.length(FILE)), (0, None));
}

#[test]
fn a_snapshot_ends_with_its_last_byte() {
    let mut fixture = ObjectsFixture::new(2 * PAGE, Fill::Zeros);
    fixture.map(0, 2, 0, Sharing::Copy).unwrap();
    fixture.store(0, BASE + 1, 9).unwrap();
    fixture.objects.write_at(FILE, 0, &[1; 8192]).unwrap();
    fixture.settle();
    let snapshot = ObjectId(1 << 32);
    for page in [0, 1] {
        assert_eq!(fixture.objects.length(snapshot), Some(2 * PAGE));
        fixture.with(0, |paged| paged.unmap(VirtAddr(BASE + page * PAGE), PAGE)).unwrap();
    }
    assert_eq!(fixture.objects.length(snapshot), None);
    assert_eq!(fixture.objects.snapshot(ObjectId(5)), None);
    assert!(fixture.map(0, 0, 0, Sharing::Copy).is_err());
    fixture.end();
}

#[test]
fn exec_keeps_what_is_to_be_kept() {
    let mut fixture = ObjectsFixture::new(PAGE, Fill::Zeros);
    fixture.map(0, 1, 0, Sharing::Shared).unwrap();
    let source = SegmentContent::Anonymous { memory: ObjectId(50) };
    let kept = MapRequest {
        on_exec: memobj_vm::space::OnExec::Keep,
        ..MapRequest::new(PAGE, source, RW, Sharing::Private).at(Place::Fixed(VirtAddr(BASE + PAGE)))
    };
    fixture.with(0, |paged| paged.map(&kept, Populate::No)).unwrap();
    fixture.store(0, BASE + PAGE, 5).unwrap();
    fixture.with(0, |paged| paged.exec());
    assert_eq!(fixture.load(0, BASE), Err(Stop::Trap(Trap::Unmapped)));
    assert_eq!(fixture.load(0, BASE + PAGE), Ok(5));
    fixture.end();
}
