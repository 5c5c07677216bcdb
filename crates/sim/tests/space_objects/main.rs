//! Copy segments, pagers and many mappings, in software: what the kernel cannot be asked about.

mod pages;
mod rig;

use memobj_core::address::{PageIndex, PageRange, VirtAddr};
use memobj_sim::{Random, known_byte};
use memobj_vm::fault::{Fill, Memory, Stop, Trap};
use memobj_vm::space::abi::linux::Populate;
use memobj_vm::space::{MapRequest, ObjectId, Place, Sharing, Source};
use proptest::prelude::*;
use rig::*;

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
        on_exec: memobj_vm::space::OnExec::Keep,
        ..MapRequest::new(PAGE, source, RW, Sharing::Private).at(Place::Fixed(VirtAddr(BASE + PAGE)))
    };
    rig.with(0, |paged| paged.map(&kept, Populate::No)).unwrap();
    rig.store(0, BASE + PAGE, 5).unwrap();
    rig.with(0, |paged| paged.exec());
    assert_eq!(rig.load(0, BASE), Err(Stop::Trap(Trap::Unmapped)));
    assert_eq!(rig.load(0, BASE + PAGE), Ok(5));
    rig.end();
}
