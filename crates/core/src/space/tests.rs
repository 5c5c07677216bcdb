//! Address spaces against a table of pages.

extern crate std;

use super::*;
use crate::address::{ObjectOffset, VirtAddr};
use crate::prot::Prot;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const PAGE: u64 = 4096;
const LOW: u64 = 16;
const PAGES: u64 = 48;
const MOST: usize = 7;

fn space(segments: usize) -> AddressSpace {
    let high = VirtAddr((LOW + PAGES) * PAGE);
    AddressSpace::new(Limits { low: VirtAddr(LOW * PAGE), high, segments })
}

/// `pages` pages of object `object` from its page `offset` on, at page `start`.
fn segment(start: u64, pages: u64, object: u64, offset: u64) -> Segment {
    Segment {
        start: VirtAddr(start * PAGE),
        length: pages * PAGE,
        object: ObjectId(object),
        offset: ObjectOffset(offset * PAGE),
        prot: Prot::READ,
        sharing: Sharing::Shared,
    }
}

fn all(space: &AddressSpace) -> Vec<Segment> {
    space.iter().collect()
}

#[test]
fn map_refuses_what_overlaps_and_replacing_takes_it() {
    let mut space = space(9);
    space.map(segment(20, 4, 1, 0)).unwrap();
    let refused = space.map(segment(23, 4, 2, 0)).unwrap_err();
    assert_eq!(refused, MapError::Overlap { start: VirtAddr(20 * PAGE), length: 4 * PAGE });
    assert_eq!(refused.to_string(), "a segment of 0x4000 bytes at 0x14000 is in the way");
    let gone = space.map_replacing(segment(22, 1, 2, 0)).unwrap();
    assert_eq!(gone, [segment(22, 1, 1, 2)]);
    let left = [segment(20, 2, 1, 0), segment(22, 1, 2, 0), segment(23, 1, 1, 3)];
    assert_eq!(all(&space), left);
    assert_eq!(space.lookup(VirtAddr(23 * PAGE + 1)), Some(left[2]));
    assert_eq!(left[2].offset_of(VirtAddr(23 * PAGE + 1)), Some(ObjectOffset(3 * PAGE + 1)));
    assert_eq!(space.lookup(VirtAddr(24 * PAGE)), None);
    assert_eq!(left[0].to_string(), "[0x14000, 0x16000) r--s 1+0x0");
}

#[test]
fn unmap_goes_over_holes_and_splits_at_both_ends() {
    let mut space = space(9);
    space.map(segment(20, 4, 1, 0)).unwrap();
    space.map(segment(26, 4, 2, 0)).unwrap();
    let gone = space.unmap(VirtAddr(21 * PAGE), 7 * PAGE).unwrap();
    assert_eq!(gone, [segment(21, 3, 1, 1), segment(26, 2, 2, 0)]);
    assert_eq!(all(&space), [segment(20, 1, 1, 0), segment(28, 2, 2, 2)]);
    assert_eq!(space.unmap(VirtAddr(21 * PAGE), PAGE).unwrap(), []);
}

#[test]
fn neighbours_that_continue_one_another_are_one() {
    let mut space = space(9);
    space.map(segment(20, 1, 1, 0)).unwrap();
    space.map(segment(22, 1, 1, 2)).unwrap();
    space.map(segment(21, 1, 1, 1)).unwrap();
    assert_eq!(all(&space), [segment(20, 3, 1, 0)]);
    space.map(segment(23, 1, 1, 9)).unwrap();
    space.map(Segment { prot: Prot::NONE, ..segment(19, 1, 1, 0) }).unwrap();
    space.map(Segment { sharing: Sharing::Private, ..segment(24, 1, 1, 10) }).unwrap();
    assert_eq!(space.len(), 4);
}

#[test]
fn anywhere_is_the_lowest_of_the_shortest_gaps() {
    let mut space = space(9);
    for start in [20, 23, 26, 33] {
        space.map(segment(start, 1, 5, start * 2)).unwrap();
    }
    let wanted = |pages| segment(0, pages, 1, 0).unplaced();
    assert_eq!(space.map_anywhere(wanted(2)), Ok(VirtAddr(21 * PAGE)));
    assert_eq!(space.map_anywhere(wanted(2)), Ok(VirtAddr(24 * PAGE)));
    assert_eq!(space.map_anywhere(wanted(2)), Ok(VirtAddr(16 * PAGE)));
    assert_eq!(space.map_anywhere(wanted(31)), Err(MapError::NoGap { length: 31 * PAGE }));
    assert_eq!(space.map_anywhere(wanted(30)), Ok(VirtAddr(34 * PAGE)));
}

#[test]
fn the_limit_on_segments_leaves_everything_as_it_was() {
    let mut space = space(2);
    space.map(segment(20, 4, 1, 0)).unwrap();
    space.map(segment(30, 4, 2, 0)).unwrap();
    let before = space.clone();
    let full = Err(MapError::TooManySegments { limit: 2 });
    assert_eq!(space.map(segment(26, 1, 1, 0)), full);
    assert_eq!(space.map_replacing(segment(21, 1, 3, 0)).map(drop), full);
    assert_eq!(space.map_anywhere(segment(0, 1, 3, 0).unplaced()).map(drop), full);
    assert_eq!(space.unmap(VirtAddr(21 * PAGE), PAGE).map(drop), full);
    assert_eq!(space, before);
    space.map(segment(24, 1, 1, 4)).unwrap();
    space.unmap(VirtAddr(20 * PAGE), PAGE).unwrap();
}

#[test]
fn bad_arguments_are_named() {
    let mut space = space(9);
    let odd = Err(MapError::Misaligned { value: 20 * PAGE + 1 });
    assert_eq!(space.unmap(VirtAddr(20 * PAGE + 1), PAGE).map(drop), odd);
    assert_eq!(space.unmap(VirtAddr(20 * PAGE), 0).map(drop), Err(MapError::Empty));
    assert_eq!(space.map(segment(20, 0, 1, 0)), Err(MapError::Empty));
    for (start, pages) in [(15, 2), (63, 2), (0, 1), (1 << 51, 1)] {
        let outside = MapError::OutOfRange { start: VirtAddr(start * PAGE), length: pages * PAGE };
        assert_eq!(space.map(segment(start, pages, 1, 0)), Err(outside));
    }
    let last = u64::MAX / PAGE;
    assert!(matches!(space.map(segment(20, 2, 1, last)), Err(MapError::OffsetTooLarge { .. })));
    assert!(space.is_empty());
}

#[test]
fn limits_without_a_page_hold_nothing() {
    for (low, high) in [(0, 4095), (1, 8191), (u64::MAX, u64::MAX), (9 * PAGE, PAGE), (u64::MAX, 0)] {
        let limits = Limits { low: VirtAddr(low), high: VirtAddr(high), segments: 9 };
        let mut space = AddressSpace::new(limits);
        let wanted = segment(0, 1, 1, 0);
        assert_eq!(space.map_anywhere(wanted.unplaced()), Err(MapError::NoGap { length: PAGE }));
        assert!(matches!(space.map(wanted), Err(MapError::OutOfRange { .. })));
    }
}

/// What one page shows: the segment that would start there, one page long.
type Table = Vec<Option<Segment>>;

/// The segments of a table: the longest runs of pages that continue one another.
fn runs(table: &Table) -> Vec<Segment> {
    let mut runs: Vec<Segment> = Vec::new();
    for page in table.iter().flatten() {
        match runs.last_mut() {
            Some(last)
                if last.start.0 + last.length == page.start.0
                    && last.offset.0 + last.length == page.offset.0
                    && (last.object, last.prot, last.sharing) == (page.object, page.prot, page.sharing) =>
            {
                last.length += PAGE
            }
            _ => runs.push(*page),
        }
    }
    runs
}

/// The free runs of a table as (length, start), sorted.
fn holes(table: &Table) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut start = 0;
    for page in 0..=table.len() {
        if page == table.len() || table[page].is_some() {
            if start < page {
                holes.push(((page - start) as u64 * PAGE, (LOW + start as u64) * PAGE));
            }
            start = page + 1;
        }
    }
    holes.sort();
    holes
}

fn with(table: &Table, new: Segment) -> Table {
    let mut table = table.clone();
    for step in 0..new.length / PAGE {
        let (start, offset) = (new.start.0 + step * PAGE, new.offset.0 + step * PAGE);
        let page = Segment { start: VirtAddr(start), length: PAGE, offset: ObjectOffset(offset), ..new };
        table[(start / PAGE - LOW) as usize] = Some(page);
    }
    table
}

fn without(table: &Table, gone: Segment) -> (Table, Table) {
    let first = (gone.start.0 / PAGE - LOW) as usize;
    let pages = first..first + (gone.length / PAGE) as usize;
    let (mut left, mut removed) = (table.clone(), vec![None; table.len()]);
    for page in pages {
        removed[page] = left[page].take();
    }
    (left, removed)
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Map,
    Replace,
    Anywhere,
    Unmap,
}

/// Few objects, offsets that follow the address: neighbours often continue one another.
fn steps() -> impl Strategy<Value = Vec<(Verb, Segment)>> {
    let verb = prop_oneof![Just(Verb::Map), Just(Verb::Replace), Just(Verb::Anywhere), Just(Verb::Unmap)];
    let place = (0..PAGES, 1..12u64, 0..2u64, 0..8u8);
    let step = (verb, place).prop_map(|(verb, (start, pages, object, attributes))| {
        let mut segment = segment(LOW + start, pages.min(PAGES - start), object, start + 3 * object);
        if attributes == 0 {
            segment.prot = Prot::READ | Prot::WRITE;
        }
        if attributes == 1 {
            segment.sharing = Sharing::Private;
        }
        if attributes == 2 {
            segment.offset.0 += 8 * PAGE;
        }
        (verb, segment)
    });
    prop::collection::vec(step, 1..60)
}

/// What a verb should make of the table, or why it should refuse.
fn predict(table: &Table, verb: Verb, segment: Segment) -> Result<(Table, Table), MapError> {
    let empty = vec![None; table.len()];
    let (left, removed) = without(table, segment);
    let next = match verb {
        Verb::Map => {
            match runs(table).iter().find(|run| run.start < segment.end() && segment.start < run.end()) {
                Some(run) => return Err(MapError::Overlap { start: run.start, length: run.length }),
                None => (with(table, segment), empty),
            }
        }
        Verb::Replace => (with(table, segment), removed),
        Verb::Anywhere => {
            let length = segment.length;
            let hole = holes(table).into_iter().find(|hole| hole.0 >= length);
            let (_, start) = hole.ok_or(MapError::NoGap { length })?;
            (with(table, Segment { start: VirtAddr(start), ..segment }), empty)
        }
        Verb::Unmap => (left, removed),
    };
    if runs(&next.0).len() > MOST {
        return Err(MapError::TooManySegments { limit: MOST });
    }
    Ok(next)
}

fn apply(space: &mut AddressSpace, verb: Verb, segment: Segment) -> Result<Vec<Segment>, MapError> {
    match verb {
        Verb::Map => space.map(segment).map(|()| Vec::new()),
        Verb::Replace => space.map_replacing(segment),
        Verb::Anywhere => space.map_anywhere(segment.unplaced()).map(|_| Vec::new()),
        Verb::Unmap => space.unmap(segment.start, segment.length),
    }
}

fn agrees(space: &AddressSpace, table: &Table) -> Result<(), TestCaseError> {
    prop_assert_eq!(all(space), runs(table), "segments");
    prop_assert_eq!(space.gaps.iter().copied().collect::<Vec<_>>(), holes(table), "gap index");
    for (page, expected) in table.iter().enumerate() {
        let address = VirtAddr((LOW + page as u64) * PAGE + 7);
        let offset = space.lookup(address).and_then(|segment| segment.offset_of(address));
        prop_assert_eq!(offset, expected.map(|page| ObjectOffset(page.offset.0 + 7)));
    }
    Ok(())
}

fn near_the_ends() -> impl Strategy<Value = u64> {
    let page = prop_oneof![0..70u64, (u64::MAX >> 12) - 3..=u64::MAX >> 12];
    prop_oneof![any::<u64>(), page.prop_map(|page| page << 12), 0..9000u64, u64::MAX - 9000..=u64::MAX]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_space_agrees_with_a_table_of_pages(steps in steps()) {
        let mut space = space(MOST);
        let mut table: Table = vec![None; PAGES as usize];
        for (verb, segment) in steps {
            let before = space.clone();
            let expected = predict(&table, verb, segment);
            let got = apply(&mut space, verb, segment);
            match expected {
                Ok((next, removed)) => {
                    prop_assert_eq!(got, Ok(runs(&removed)));
                    table = next;
                }
                Err(error) => {
                    prop_assert_eq!(got, Err(error));
                    prop_assert_eq!(&space, &before);
                }
            }
            agrees(&space, &table)?;
            let inside: Vec<Segment> = space.iter_range(segment.start, segment.length).collect();
            let overlaps = |run: &Segment| run.start < segment.end() && segment.start < run.end();
            prop_assert_eq!(inside, runs(&table).into_iter().filter(overlaps).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_argument_panics(calls in prop::collection::vec(prop::array::uniform4(near_the_ends()), 1..20)) {
        let limits = Limits { low: VirtAddr(0), high: VirtAddr(u64::MAX), segments: 4 };
        let mut space = AddressSpace::new(limits);
        for [start, length, offset, address] in calls {
            let segment = Segment {
                start: VirtAddr(start), length, offset: ObjectOffset(offset), ..segment(0, 1, 1, 0)
            };
            let _ = space.map(segment);
            let _ = space.map_anywhere(segment.unplaced());
            let _ = space.map_replacing(segment);
            let _ = space.unmap(VirtAddr(address), length);
            let _ = space.lookup(VirtAddr(address));
            let _ = (segment.end(), segment.offset_of(VirtAddr(address)), segment.to_string());
            let _ = space.iter_range(VirtAddr(address), length).count();
            prop_assert!(space.len() <= 4);
        }
    }
}
