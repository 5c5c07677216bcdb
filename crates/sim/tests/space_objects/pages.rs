//! What becomes of the pages of an object: claimed, supplied or failed, written back, evicted, cut off.

use super::rig::*;
use memobj_core::address::{PageIndex, PageRange, VirtAddr};
use memobj_core::pages::WriteClaim;
use memobj_sim::space::SoftFrames;
use memobj_vm::fault::{Block, Fill, Memory, ObjectTable, Stop, Trap};
use memobj_vm::space::{ObjectId, Sharing};

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
fn a_copy_is_written_nowhere_and_changed_by_nobody() {
    let mut rig = Rig::new(100, Fill::Pager);
    supply(&mut rig, 0, 5);
    rig.map(0, 1, 0, Sharing::Shared).unwrap();
    rig.store(0, BASE + 200, 6).unwrap();
    let copy = rig.objects.snapshot(FILE).unwrap();
    rig.objects.write_back(copy, |_, _, _| panic!("a copy has no pager")).unwrap();
    let mut byte = [0];
    assert_eq!((rig.objects.read_at(copy, 99, &mut byte), byte), (Ok(1), [5]));
    let denied = Err(Stop::Trap(Trap::Denied));
    assert_eq!((rig.objects.write_at(copy, 0, &[1]), rig.objects.punch(copy, (0, 9))), (denied, denied));
    assert_eq!((rig.objects.write_at(copy, 9000, &[1]), rig.objects.set_length(copy, 9)), (denied, denied));
    assert_eq!(rig.objects.length(copy), Some(100));
    rig.settle();
    assert_eq!(rig.load(0, BASE + 200), Ok(6));
    rig.objects.close(copy);
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
