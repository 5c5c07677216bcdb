//! What becomes of the pages of an object: claimed, supplied or failed, written back, evicted, cut off.

use super::fixture::*;
use memobj_core::address::{PageIndex, PageRange, VirtAddr};
use memobj_core::pages::WriteClaim;
use memobj_sim::space::SoftFrames;
use memobj_vm::fault::{Block, Fill, Memory, ObjectTable, Stop, Trap};
use memobj_vm::space::{ObjectId, Sharing};

const WHOLE: PageRange = PageRange { start: 0, end: u64::MAX };

/// A frame of these bytes, supplied as `page`.
fn supply(fixture: &mut ObjectsFixture, page: u64, byte: u8) {
    let frame = fixture.objects.memory().zeroed().unwrap();
    fixture.objects.memory().write(frame, 0, &[byte; PAGE as usize]);
    fixture.objects.supply(FILE, PageIndex(page), frame);
}

type Flight = (u64, Vec<u8>, WriteClaim<Block<SoftFrames>>);

/// What the object has written, unanswered.
fn write_back(fixture: &mut ObjectsFixture) -> Vec<Flight> {
    let mut flights = Vec::new();
    let begun =
        fixture.objects.write_back(FILE, |at, bytes, claim| flights.push((at, bytes.to_vec(), claim)));
    begun.unwrap();
    fixture.settle();
    flights
}

#[test]
fn a_page_that_fails_traps_until_it_is_retried() {
    let mut fixture = ObjectsFixture::new(2 * PAGE, Fill::Pager);
    fixture.map(0, 2, 0, Sharing::Shared).unwrap();
    fixture.map(10, 2, 0, Sharing::Copy).unwrap();
    let need = Err(Stop::Need(FILE, PageIndex(1)));
    assert_eq!((fixture.load(0, BASE + PAGE), fixture.load(0, BASE + 11 * PAGE)), (need, need));
    fixture.objects.fail(FILE, PageIndex(1));
    let failed = Err(Stop::Trap(Trap::Failed));
    assert_eq!((fixture.load(0, BASE + PAGE), fixture.load(0, BASE + 11 * PAGE)), (failed, failed));
    assert_eq!(fixture.store(0, BASE + PAGE, 1), Err(Stop::Trap(Trap::Failed)));
    assert!(fixture.objects.write_at(FILE, PAGE, &[1]).is_err());
    // An answer that comes after it is nobody's.
    supply(&mut fixture, 1, 7);
    assert_eq!((fixture.load(0, BASE + PAGE), fixture.objects.memory().in_use()), (failed, 0));
    assert!(fixture.objects.retry(FILE, PageIndex(1)) && !fixture.objects.retry(FILE, PageIndex(1)));
    assert_eq!(fixture.load(0, BASE + PAGE), need);
    supply(&mut fixture, 1, 7);
    assert_eq!((fixture.load(0, BASE + PAGE), fixture.load(0, BASE + 11 * PAGE)), (Ok(7), Ok(7)));
    // What is cut off is forgotten, with its failure.
    assert_eq!(fixture.load(0, BASE), Err(Stop::Need(FILE, PageIndex(0))));
    fixture.objects.fail(FILE, PageIndex(0));
    fixture.with(0, |paged| paged.unmap(VirtAddr(BASE + 10 * PAGE), 2 * PAGE)).unwrap();
    fixture.objects.set_length(FILE, 0).unwrap();
    fixture.objects.set_length(FILE, PAGE).unwrap();
    fixture.settle();
    assert_eq!(fixture.load(0, BASE), Ok(0));
    fixture.end();
}

#[test]
fn what_is_written_may_go_and_what_is_stored_meanwhile_stays() {
    let mut fixture = ObjectsFixture::new(PAGE + 100, Fill::Pager);
    fixture.map(0, 2, 0, Sharing::Shared).unwrap();
    let _ = fixture.load(0, BASE);
    supply(&mut fixture, 0, 5);
    fixture.store(0, BASE, 6).unwrap();
    assert_eq!(fixture.objects.evict(FILE, WHOLE), 0);
    // It fails.
    drop(write_back(&mut fixture));
    assert_eq!(fixture.objects.evict(FILE, WHOLE), 0);
    // A store comes while it is under way.
    let mut flights = write_back(&mut fixture);
    let (at, bytes, claim) = flights.pop().unwrap();
    assert_eq!((at, bytes.len(), &bytes[..2], flights.len()), (0, PAGE as usize, &[6, 5][..], 0));
    assert_eq!(fixture.objects.evict(FILE, WHOLE), 0);
    fixture.store(0, BASE + 1, 7).unwrap();
    assert!(write_back(&mut fixture).is_empty(), "two writes of one page pass each other");
    claim.written();
    assert_eq!(fixture.objects.evict(FILE, WHOLE), 0);
    let (_, bytes, claim) = write_back(&mut fixture).pop().unwrap();
    assert_eq!(&bytes[..3], &[6, 7, 5]);
    claim.written();
    assert_eq!((fixture.objects.evict(FILE, WHOLE), fixture.objects.memory().in_use()), (1, 0));
    fixture.settle();
    assert_eq!(fixture.load(0, BASE), Err(Stop::Need(FILE, PageIndex(0))));
    supply(&mut fixture, 0, 9);
    assert_eq!(fixture.load(0, BASE), Ok(9));
    fixture.end();
}

#[test]
fn what_is_on_its_way_is_not_cut_off() {
    let mut fixture = ObjectsFixture::new(3 * PAGE, Fill::Pager);
    fixture.map(0, 3, 0, Sharing::Shared).unwrap();
    (0..3).for_each(|page| supply(&mut fixture, page, 5));
    fixture.store(0, BASE + 2 * PAGE, 6).unwrap();
    let flights = write_back(&mut fixture);
    assert_eq!(fixture.objects.set_length(FILE, 100), Err(Stop::Busy(FILE, PageIndex(2))));
    assert_eq!((fixture.objects.length(FILE), fixture.load(0, BASE + 200)), (Some(3 * PAGE), Ok(5)));
    flights.into_iter().for_each(|(.., claim)| claim.written());
    fixture.objects.set_length(FILE, 100).unwrap();
    fixture.settle();
    assert_eq!((fixture.load(0, BASE + 99), fixture.load(0, BASE + 100)), (Ok(5), Ok(0)));
    assert_eq!(fixture.load(0, BASE + 2 * PAGE), Err(Stop::Trap(Trap::Beyond)));
    // What is on its way when the object goes keeps its page for so long.
    let flights = write_back(&mut fixture);
    assert_eq!(flights[0].1.len(), 100);
    fixture.with(0, |paged| paged.clear());
    fixture.objects.close(FILE);
    assert_eq!(fixture.objects.memory().in_use(), 1);
    drop(flights);
    assert_eq!(fixture.objects.memory().in_use(), 0);
}

#[test]
fn a_copy_outlives_what_its_origin_evicts() {
    let mut fixture = ObjectsFixture::new(2 * PAGE, Fill::Pager);
    fixture.map(0, 2, 0, Sharing::Shared).unwrap();
    fixture.map(10, 2, 0, Sharing::Copy).unwrap();
    supply(&mut fixture, 0, 5);
    supply(&mut fixture, 1, 5);
    assert_eq!((fixture.load(0, BASE + 10 * PAGE), fixture.load(0, BASE + 11 * PAGE)), (Ok(5), Ok(5)));
    fixture.store(0, BASE + PAGE, 6).unwrap();
    write_back(&mut fixture).into_iter().for_each(|(.., claim)| claim.written());
    assert_eq!(fixture.objects.evict(FILE, WHOLE), 2);
    // What the copy has of its own is nobody else's.
    assert_eq!(fixture.objects.evict(ObjectId(1 << 32), WHOLE), 0);
    fixture.settle();
    assert_eq!(fixture.load(0, BASE + 10 * PAGE), Err(Stop::Need(FILE, PageIndex(0))));
    assert_eq!(fixture.load(0, BASE + 11 * PAGE), Ok(5));
    supply(&mut fixture, 0, 5);
    assert_eq!(fixture.load(0, BASE + 10 * PAGE), Ok(5));
    fixture.end();
}

#[test]
fn a_copy_is_written_nowhere_and_changed_by_nobody() {
    let mut fixture = ObjectsFixture::new(100, Fill::Pager);
    supply(&mut fixture, 0, 5);
    fixture.map(0, 1, 0, Sharing::Shared).unwrap();
    fixture.store(0, BASE + 200, 6).unwrap();
    let copy = fixture.objects.snapshot(FILE).unwrap();
    fixture.objects.write_back(copy, |_, _, _| panic!("a copy has no pager")).unwrap();
    let mut byte = [0];
    assert_eq!((fixture.objects.read_at(copy, 99, &mut byte), byte), (Ok(1), [5]));
    let denied = Err(Stop::Trap(Trap::Denied));
    assert_eq!(
        (fixture.objects.write_at(copy, 0, &[1]), fixture.objects.punch(copy, (0, 9))),
        (denied, denied)
    );
    assert_eq!(
        (fixture.objects.write_at(copy, 9000, &[1]), fixture.objects.set_length(copy, 9)),
        (denied, denied)
    );
    assert_eq!(fixture.objects.length(copy), Some(100));
    fixture.settle();
    assert_eq!(fixture.load(0, BASE + 200), Ok(6));
    fixture.objects.close(copy);
    fixture.end();
}

#[test]
fn frames_of_objects_stay_within_their_budget() {
    let mut fixture = ObjectsFixture::with_budget(4 * PAGE, Fill::Zeros, 2 * PAGE);
    fixture.map(0, 4, 0, Sharing::Shared).unwrap();
    fixture.store(0, BASE, 1).unwrap();
    assert_eq!(fixture.load(0, BASE + PAGE), Ok(0));
    assert_eq!(fixture.load(0, BASE + 2 * PAGE), Err(Stop::NoFrame));
    assert_eq!(fixture.objects.evict(FILE, WHOLE), 1);
    fixture.settle();
    assert_eq!(fixture.load(0, BASE + 2 * PAGE), Ok(0));
    assert_eq!((fixture.load(0, BASE), fixture.objects.memory().in_use()), (Ok(1), 2));
    fixture.end();
    // A page that is needed has its frame reserved.
    let mut fixture = ObjectsFixture::with_budget(2 * PAGE, Fill::Pager, PAGE);
    fixture.map(0, 2, 0, Sharing::Shared).unwrap();
    assert_eq!(fixture.load(0, BASE), Err(Stop::Need(FILE, PageIndex(0))));
    assert_eq!(fixture.load(0, BASE + PAGE), Err(Stop::NoFrame));
    fixture.objects.fail(FILE, PageIndex(0));
    assert_eq!(fixture.load(0, BASE + PAGE), Err(Stop::Need(FILE, PageIndex(1))));
    fixture.objects.set_length(FILE, PAGE).unwrap();
    fixture.objects.retry(FILE, PageIndex(0));
    assert_eq!(fixture.load(0, BASE), Err(Stop::Need(FILE, PageIndex(0))));
    fixture.end();
}

#[test]
fn an_object_of_exbibytes_takes_a_block_for_a_page() {
    let mut fixture = ObjectsFixture::new(u64::MAX, Fill::Zeros);
    fixture.map(0, 1, (1 << 50) - 1, Sharing::Shared).unwrap();
    fixture.store(0, BASE + 9, 3).unwrap();
    fixture.objects.write_at(FILE, u64::MAX - 2, &[4, 5]).unwrap();
    let mut bytes = [0; 4];
    assert_eq!(fixture.objects.read_at(FILE, u64::MAX - 3, &mut bytes), Ok(3));
    assert_eq!((bytes, fixture.objects.memory().in_use()), ([0, 4, 5, 0], 2));
    fixture.objects.set_length(FILE, (1 << 62) - 1).unwrap();
    fixture.settle();
    assert_eq!((fixture.load(0, BASE + 9), fixture.objects.memory().in_use()), (Ok(3), 1));
    fixture.end();
}

#[test]
fn tables_of_objects_may_be_used_by_many_threads() {
    fn may_be<T: Send + Sync>() {}
    may_be::<ObjectTable<SoftFrames>>();
}
