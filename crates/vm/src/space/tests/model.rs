//! Random histories against a table of pages: each page knows its object's page and its protection, nothing else.

use super::*;
use alloc::vec;
use proptest::prelude::*;

/// Per page: object, its page, protection.
type Table = Vec<Option<(u64, u64, Prot)>>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Fixed { page: u64, pages: u64, object: u64, offset: u64 },
    Anywhere { pages: u64, object: u64 },
    Unmap { page: u64, pages: u64 },
    Protect { page: u64, pages: u64, prot: Prot },
    Move { page: u64, pages: u64, to: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let prots = prop_oneof![Just(Prot::READ), Just(Prot::NONE), Just(Prot::READ | Prot::WRITE)];
    let step = (0..5u8, 0..PAGES, 1..12u64, 0..2u64, 0..PAGES, prots).prop_map(
        |(kind, page, pages, object, other, prot)| {
            let pages = pages.min(PAGES - page);
            let (page, to) = (LOW + page, LOW + other.min(PAGES - pages));
            match kind {
                // Offsets that follow the address: neighbours often continue one another.
                0 => Step::Fixed { page, pages, object, offset: page + 3 * object },
                1 => Step::Anywhere { pages, object },
                2 => Step::Unmap { page, pages },
                3 => Step::Protect { page, pages, prot },
                _ => Step::Move { page, pages, to },
            }
        },
    );
    prop::collection::vec(step, 1..80)
}

fn slots(page: u64, pages: u64) -> std::ops::Range<usize> {
    (page - LOW) as usize..(page + pages - LOW) as usize
}

fn fill(table: &mut Table, page: u64, pages: u64, object: u64, offset: u64) {
    for (step, slot) in slots(page, pages).enumerate() {
        table[slot] = Some((object, offset + step as u64, Prot::READ));
    }
}

/// What `step` makes of the table, and whether it is accepted.
fn predict(table: &mut Table, step: Step) -> bool {
    match step {
        Step::Fixed { page, pages, object, offset } => fill(table, page, pages, object, offset),
        Step::Anywhere { pages, object } => {
            let free = |&page: &u64| table[slots(page, pages)].iter().all(Option::is_none);
            let Some(page) = (LOW..=LOW + PAGES - pages).rev().find(free) else { return false };
            fill(table, page, pages, object, 0);
        }
        Step::Unmap { page, pages } => table[slots(page, pages)].fill(None),
        Step::Protect { page, pages, prot } => {
            for slot in slots(page, pages) {
                let Some((_, _, old)) = &mut table[slot] else { return false };
                *old = prot;
            }
        }
        Step::Move { page, pages, to } => {
            if table[slots(page, pages)][0].is_none() || page < to + pages && to < page + pages {
                return false;
            }
            for (from, to) in slots(page, pages).zip(slots(to, pages)) {
                if let Some(moved) = table[from].take() {
                    table[to] = Some(moved);
                }
            }
        }
    }
    true
}

fn apply(space: &mut AddressSpace, step: Step, changes: &mut Vec<Change>) -> Result<(), SpaceError> {
    match step {
        Step::Fixed { page, pages, object: id, offset } => {
            space.map(&object(pages, id, offset).at(Place::Fixed(at(page))), changes).map(drop)
        }
        Step::Anywhere { pages, object: id } => space.map(&object(pages, id, 0), changes).map(drop),
        Step::Unmap { page, pages } => space.unmap(at(page), pages * PAGE, changes),
        Step::Protect { page, pages, prot } => {
            space.protect(at(page), pages * PAGE, Ok(prot), ProtectFrom::Start, changes)
        }
        Step::Move { page, pages, to } => {
            let length = pages * PAGE;
            space.remap(at(page), length, length, RemapTo::Fixed(at(to)), changes).map(drop)
        }
    }
}

/// Runs of pages that continue one another.
fn runs(table: &Table) -> usize {
    let mut runs = 0;
    let mut last = None;
    for page in table {
        if let Some((object, offset, prot)) = *page {
            runs += usize::from(last != Some((object, offset, prot)));
            last = Some((object, offset + 1, prot));
        } else {
            last = None;
        }
    }
    runs
}

fn near_the_ends() -> impl Strategy<Value = u64> {
    let page = prop_oneof![0..70u64, (u64::MAX >> 12) - 3..=u64::MAX >> 12];
    prop_oneof![any::<u64>(), page.prop_map(|page| page << 12), 0..9000u64, u64::MAX - 9000..=u64::MAX]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_space_agrees_with_a_table_of_pages(steps in steps()) {
        let mut space = AddressSpace::new(limits());
        let mut table: Table = vec![None; PAGES as usize];
        for step in steps {
            let accepted = predict(&mut table, step);
            let (before, mut changes) = (space.clone(), vec![]);
            let got = apply(&mut space, step, &mut changes);
            let mut reverted = space.clone();
            reverted.revert(&changes);
            prop_assert_eq!(reverted, before, "{:?} reverted: {:?}", step, changes);
            prop_assert_eq!(got.is_ok(), accepted, "{:?}: {:?}", step, got);
            for (slot, expected) in table.iter().enumerate() {
                let address = at(LOW + slot as u64);
                let found = space.lookup(address).map(|segment| {
                    let (id, offset) = segment.object_at(address).unwrap();
                    (id.0, offset.0 / PAGE, segment.attributes.prot)
                });
                prop_assert_eq!(found, *expected, "page {} after {:?}", slot, step);
            }
            prop_assert_eq!(space.len(), runs(&table), "segments after {:?}", step);
            let used = space.iter().fold(Usage::default(), |sum, it| sum.plus(Usage::of(&it)));
            prop_assert_eq!(space.usage(), used);
        }
    }

    #[test]
    fn no_argument_panics(calls in prop::collection::vec(prop::array::uniform4(near_the_ends()), 1..20)) {
        let mut space = AddressSpace::new(Limits {
            segments: 12, fixed_low: VirtAddr(0), ..Limits::between(VirtAddr(0), VirtAddr(u64::MAX))
        });
        for [start, length, offset, address] in calls {
            let source = SegmentContent::Object { view: ObjectView { largest: u64::MAX, ..view(1) }, offset };
            let request = MapRequest { growth: Growth::Down, ..MapRequest::new(
                length, SegmentContent::Anonymous { memory: ObjectId(5) }, Prot::READ, Sharing::Private) };
            let object = MapRequest::new(length, source, Prot::READ, Sharing::Shared);
            let (start, address, mut changes) = (VirtAddr(start), VirtAddr(address), vec![]);
            for place in [Place::Anywhere, Place::Low, Place::Hint(start), Place::FixedFree(start)] {
                let _ = space.map(&request.at(place), &mut changes);
                let _ = space.map(&object.at(place), &mut changes);
            }
            let _ = space.map(&object.at(Place::Fixed(address)), &mut changes);
            let _ = space.lock(start, length, Lock::Locked, &mut changes);
            let _ = space.grow(address, &mut changes);
            for to in [RemapTo::Same, RemapTo::Anywhere, RemapTo::Keep(start), RemapTo::Fixed(start)] {
                let _ = space.remap(address, length, offset, to, &mut changes);
            }
            let _ = space.protect(address, length, Ok(Prot::NONE), ProtectFrom::Start, &mut changes);
            let _ = space.advise(address, length, Ok(Advice::DontFork), &mut changes);
            let _ = space.sync(address, offset, SyncMode::Now, Invalidate::Yes, &mut changes);
            let _ = space.unmap(address, length, &mut changes);
            let _ = (space.lookup(address), space.fork(), space.iter_range(address, length).count());
            prop_assert!(space.len() <= 13);
        }
    }
}
