//! What segments show, and what stores do to them.

use crate::fixture::*;
use memobj::pagers;
use memobj::space::{Access, Advice, Place, Prot, RemapTo, Sharing, SpaceError, TouchError, Trap, VirtAddr};
use memobj_sim::fixture::{MIB, Sample, cache, check_sample, sample_byte, sample_bytes};
use memobj_sim::random::Random;
use memobj_sim::space::check_mapped;

/// Three segments of an object of eight times the budget, read by plain loads of four threads.
#[test]
fn segments_show_the_object_within_the_budget() {
    let sample = Sample::new(4 * MIB + 100);
    let cache = cache(MIB / 2);
    let object = cache.open_file(sample.path(), lendable()).unwrap();
    let space = space();
    let segments = [(0, Sharing::Private), (3 * PAGE, Sharing::Shared), (7 * PAGE, Sharing::Copy)]
        .map(|(offset, sharing)| (offset, map(&space, &object, offset, 4 * MIB - offset, sharing)));
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let segments = &segments;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..4000 {
                    let (offset, segment) = segments[random.below(3) as usize];
                    let at = random.below(segment.length);
                    assert_eq!(load(segment.start.0 + at), Ok(sample_byte(offset + at)), "at {at}");
                }
            });
        }
    });
    for (offset, segment) in segments {
        let bytes = read(&space, segment.start, segment.length);
        check_sample(offset..offset + segment.length, &bytes, "copied");
    }
    let metrics = cache.metrics();
    assert!(metrics.peak_frame_bytes <= MIB / 2 && metrics.evicted_pages > 0, "{metrics:?}");
    check_mapped(&space);
}

#[test]
fn private_stores_survive_eviction_and_are_seen_by_no_other_segment() {
    let cache = cache(MIB / 4);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
    let space = space();
    let mine = map(&space, &object, 0, MIB, Sharing::Private).start;
    let other = map(&space, &object, 0, MIB, Sharing::Private).start;
    for page in (0..MIB).step_by(4096) {
        store(mine.0 + page + 5, !sample_byte(page + 5)).unwrap();
    }
    evict(&object);
    for page in (0..MIB).step_by(4096) {
        let expected = [sample_byte(page + 4), !sample_byte(page + 5), sample_byte(page + 6)];
        assert_eq!(read(&space, VirtAddr(mine.0 + page + 4), 3), expected, "page {page:#x}");
    }
    check_sample(0..MIB, &read(&space, other, MIB), "another segment");
    check_sample(
        0..MIB,
        &object
            .map(0..MIB, Default::default())
            .map(|all| all.pin(0..MIB / 8).map(|_| sample_bytes(MIB).to_vec()).unwrap())
            .unwrap(),
        "the object",
    );
    // Half of them go back to the object.
    space.advise(mine, MIB / 2, Advice::DontNeed).unwrap();
    check_sample(0..MIB / 2, &read(&space, mine, MIB / 2), "dropped");
    assert_eq!(load(mine.0 + MIB / 2 + 5), Ok(!sample_byte(MIB / 2 + 5)), "not dropped");
}

#[test]
fn the_tail_is_zeros_and_what_is_behind_the_end_traps() {
    let cache = cache(MIB);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(2 * PAGE + 100)));
    let space = space();
    for sharing in [Sharing::Private, Sharing::Shared, Sharing::Copy] {
        let start = map(&space, &object, PAGE, 5 * PAGE, sharing).start;
        assert_eq!(load(start.0 + PAGE + 99), Ok(sample_byte(2 * PAGE + 99)));
        assert_eq!(load(start.0 + PAGE + 100), Ok(0));
        assert_eq!(signal_of(load(start.0 + 2 * PAGE)), SIGBUS);
        let beyond = space.read_at(VirtAddr(start.0 + PAGE), &mut [0; 4097]).unwrap_err();
        let at = start.0 + 2 * PAGE;
        assert!(
            matches!(beyond, TouchError::Trap { address, trap: Trap::Beyond } if address.0 == at),
            "{beyond}"
        );
    }
    let empty = object_of(&cache, &[]);
    let start = map(&space, &empty, 0, PAGE, Sharing::Private).start;
    assert_eq!(signal_of(load(start.0)), SIGBUS);
}

fn object_of(cache: &memobj::Cache, bytes: &[u8]) -> memobj::MemoryObject {
    object(cache, pagers::Bytes::new(bytes))
}

#[test]
fn protection_is_the_kernels() {
    let cache = cache(MIB);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
    let space = space();
    let private = map(&space, &object, 0, 8 * PAGE, Sharing::Private).start;
    let at = |page: u64| private.0 + page * PAGE;
    store(at(3), 1).unwrap();
    space.protect(VirtAddr(at(2)), 2 * PAGE, Prot::READ).unwrap();
    space.protect(VirtAddr(at(4)), PAGE, Prot::NONE).unwrap();
    assert_eq!((signal_of(store(at(2), 1)), signal_of(store(at(3), 2))), (SIGSEGV, SIGSEGV));
    assert_eq!(signal_of(load(at(4))), SIGSEGV);
    assert_eq!((load(at(2)), load(at(3))), (Ok(sample_byte(2 * PAGE)), Ok(1)));
    let denied = space.write_at(VirtAddr(at(3)), &[1]).unwrap_err();
    assert!(matches!(denied, TouchError::Trap { trap: Trap::Denied, .. }), "{denied}");
    space.protect(VirtAddr(at(2)), 3 * PAGE, RW).unwrap();
    evict(&object);
    assert_eq!((load(at(4)), load(at(3))), (Ok(sample_byte(4 * PAGE)), Ok(1)));
    space.unmap(VirtAddr(at(3)), PAGE).unwrap();
    assert_eq!(signal_of(load(at(3))), SIGSEGV);
    // What is right of the hole has kept its place in the object.
    assert_eq!(load(at(5) + 7), Ok(sample_byte(5 * PAGE + 7)));
    check_mapped(&space);
    let hole = space_error(space.protect(private, 8 * PAGE, Prot::READ));
    assert_eq!(hole, SpaceError::Hole { address: VirtAddr(at(3)) });
    assert_eq!(signal_of(store(at(2), 1)), SIGSEGV, "what lies below the hole has changed");
    store(at(4), 1).unwrap();
    check_mapped(&space);
}

#[test]
fn shared_segments_are_never_stored_to() {
    let cache = cache(MIB);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
    let space = space();
    let refused = space_error(space.map(&request(&object, 0, MIB, Sharing::Shared).prot(RW)));
    assert_eq!(refused, SpaceError::ObjectDenied { missing: Prot::WRITE });
    let shared = map(&space, &object, 0, MIB, Sharing::Shared);
    assert_eq!(shared.attributes.max_prot, Prot::READ | Prot::EXECUTE);
    assert!(!shared.attributes.max_prot.allows(Access::Write));
    let refused = space_error(space.protect(shared.start, PAGE, RW));
    assert!(matches!(refused, SpaceError::ProtDenied { .. }), "{refused}");
    assert_eq!(signal_of(store(shared.start.0, 1)), SIGSEGV);
    space.map(&anonymous(PAGE).sharing(Sharing::Shared)).unwrap_err();
}

#[test]
fn places_are_chosen_as_asked() {
    let cache = cache(MIB);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
    let space = space();
    let (low, high) = space.window();
    let first = map(&space, &object, 0, 4 * PAGE, Sharing::Private);
    assert_eq!(first.end(), high);
    let hinted = space.map(&anonymous(PAGE).place(Place::Hint(VirtAddr(low.0 + 77)))).unwrap();
    assert_eq!(hinted.start, low);
    let taken = anonymous(PAGE).place(Place::FixedFree(low));
    assert!(matches!(space_error(space.map(&taken)), SpaceError::Taken { .. }));
    // Over the middle of a segment that was stored to.
    store(first.start.0 + PAGE, 1).unwrap();
    let over = Place::Fixed(VirtAddr(first.start.0 + PAGE));
    let request = request(&object, 9 * PAGE, PAGE, Sharing::Private).place(over);
    space.map(&request).unwrap();
    assert_eq!(load(first.start.0 + PAGE), Ok(sample_byte(9 * PAGE)));
    assert_eq!(load(first.start.0 + 2 * PAGE), Ok(sample_byte(2 * PAGE)));
    assert_eq!(signal_of(load(low.0 + PAGE)), SIGSEGV, "reserved");
    check_mapped(&space);
}

#[test]
fn a_remap_takes_private_pages_along() {
    let cache = cache(MIB);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
    let space = space();
    for sharing in [Sharing::Private, Sharing::Copy] {
        let start = map(&space, &object, 0, 8 * PAGE, sharing).start;
        for page in [1, 5] {
            store(start.0 + page * PAGE, 77).unwrap();
        }
        // Two mappings of the kernel's, since one part was stored to and protected apart.
        space.protect(VirtAddr(start.0 + 4 * PAGE), 2 * PAGE, Prot::READ).unwrap();
        space.protect(VirtAddr(start.0 + 4 * PAGE), 2 * PAGE, RW).unwrap();
        let moved = space.remap(start, 8 * PAGE, 12 * PAGE, RemapTo::Fixed(space.window().0)).unwrap();
        evict(&object);
        for page in 0..12 {
            let expected = if [1, 5].contains(&page) { 77 } else { sample_byte(page * PAGE) };
            assert_eq!(load(moved.0 + page * PAGE), Ok(expected), "{sharing:?} page {page}");
        }
        assert_eq!(signal_of(load(start.0)), SIGSEGV);
        check_mapped(&space);
        let kept = space.remap(moved, 4 * PAGE, 4 * PAGE, RemapTo::Keep(VirtAddr(0))).unwrap();
        evict(&object);
        assert_eq!((load(kept.0 + PAGE), load(moved.0 + PAGE)), (Ok(77), Ok(sample_byte(PAGE))));
        check_mapped(&space);
        space.unmap(space.window().0, 12 * PAGE).unwrap();
        space.unmap(kept, 4 * PAGE).unwrap();
        assert_eq!(space.table(), []);
    }
    let zeros = space.map(&anonymous(4 * PAGE)).unwrap().start;
    store(zeros.0 + PAGE, 9).unwrap();
    let moved = space.remap(zeros, 4 * PAGE, 4 * PAGE, RemapTo::Fixed(space.window().0)).unwrap();
    assert_eq!((load(moved.0), load(moved.0 + PAGE)), (Ok(0), Ok(9)));
    check_mapped(&space);
}

/// The kernel joins a mapping that it moves to what continues it, and forgets the registration of both: here, to the page
/// by which the segment becomes longer.
#[test]
fn a_remap_beside_what_continues_it_leaves_that_registered() {
    let cache = cache(MIB);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
    let space = space();
    let none = request(&object, 0, 6 * PAGE, Sharing::Private).prot(Prot::NONE);
    let start = space.map(&none).unwrap().start;
    let moved = space.remap(start, PAGE, 2 * PAGE, RemapTo::Anywhere).unwrap();
    check_mapped(&space);
    space.protect(moved, 2 * PAGE, Prot::READ).unwrap();
    evict(&object);
    assert_eq!((load(moved.0), load(moved.0 + PAGE)), (Ok(sample_byte(0)), Ok(sample_byte(PAGE))));
}
