//! Fixed cases of each verb.

use super::*;
use alloc::string::ToString;
use alloc::vec;

const RW: Prot = Prot::READ.union(Prot::WRITE);

#[test]
fn fixed_replaces_parts_of_ten_segments() {
    let mut space = AddressSpace::new(limits());
    for index in 0..10 {
        space.map_quietly(&object(2, index, 5).at(Place::Fixed(at(20 + 2 * index)))).unwrap();
    }
    let mut changes = vec![];
    let new = space.map(&object(17, 50, 0).at(Place::Fixed(at(21))), &mut changes).unwrap();
    let gone: Vec<u64> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Unmapped(part) => Some(part.length / PAGE),
            _ => None,
        })
        .collect();
    assert_eq!(gone, [1, 2, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(changes.last(), Some(&Change::Mapped(new)));
    assert_eq!(table(&space), [(20, 1, Some(5)), (21, 17, Some(0)), (38, 2, Some(5))]);
}

#[test]
fn neighbours_that_continue_one_another_are_one() {
    let mut space = AddressSpace::new(limits());
    for (page, offset) in [(20, 0), (22, 2), (21, 1)] {
        space.map_quietly(&object(1, 1, offset).at(Place::Fixed(at(page)))).unwrap();
    }
    assert_eq!(table(&space), [(20, 3, Some(0))]);
    space.map_quietly(&object(1, 1, 9).at(Place::Fixed(at(23)))).unwrap();
    assert_eq!(space.len(), 2);
}

#[test]
fn anywhere_is_the_highest_place_and_leaves_room_below_stacks() {
    let mut space = AddressSpace::new(Limits { guard_bytes: 2 * PAGE, ..limits() });
    assert_eq!(space.map_quietly(&anonymous(3)).unwrap().start, at(61));
    let hint = anonymous(1).at(Place::Hint(VirtAddr(40 * PAGE + 123)));
    assert_eq!(space.map_quietly(&hint).unwrap().start, at(40));
    assert_eq!(space.map_quietly(&hint).unwrap().start, at(60));
    let stack = MapRequest { growth: Growth::Down, ..anonymous(1) };
    assert_eq!(space.map_quietly(&stack).unwrap().start, at(59));
    assert_eq!(space.map_quietly(&anonymous(1)).unwrap().start, at(56));
    let into_guard = anonymous(2).at(Place::Hint(at(57)));
    assert_eq!(space.map_quietly(&into_guard).unwrap().start, at(54));
    let below = anonymous(1).at(Place::Hint(VirtAddr(PAGE)));
    assert_eq!(space.map_quietly(&below).unwrap().start, at(LOW));
    let far = space.choose(Place::Anywhere, 40 * PAGE);
    assert_eq!(far, Err(SpaceError::NoRoom { length: 40 * PAGE }));
}

#[test]
fn protect_over_a_hole_changes_what_lies_below_it() {
    let mut space = AddressSpace::new(limits());
    space.map_quietly(&anonymous(2).at(Place::Fixed(at(20)))).unwrap();
    space.map_quietly(&anonymous(2).at(Place::Fixed(at(24)))).unwrap();
    let mut changes = vec![];
    let hole = space.protect(at(20), 6 * PAGE, Ok(Prot::READ), ProtectFrom::Start, &mut changes);
    assert_eq!(hole, Err(SpaceError::Hole { address: at(22) }));
    assert_eq!(changes.len(), 1);
    assert_eq!(space.lookup(at(21)).unwrap().attributes.prot, Prot::READ);
    assert_eq!(space.lookup(at(24)).unwrap().attributes.prot, RW);
    let before = space.clone();
    let at_start = space.protect(at(22), 4 * PAGE, Ok(Prot::READ), ProtectFrom::Start, &mut changes);
    assert_eq!(at_start, Err(SpaceError::Hole { address: at(22) }));
    assert_eq!(space, before);
}

#[test]
fn the_most_that_a_segment_allows_stays_with_its_parts() {
    let mut space = AddressSpace::new(limits());
    let read_only = ObjectView { opened: Prot::READ, ..view(1) };
    let source = SegmentContent::Object { view: read_only, offset: 0 };
    space.map_quietly(&anonymous(1).at(Place::Fixed(at(20)))).unwrap();
    let shared = MapRequest::new(2 * PAGE, source, Prot::READ, Sharing::Shared);
    space.map_quietly(&shared.at(Place::Fixed(at(21)))).unwrap();
    let mut changes = vec![];
    space.protect(at(22), PAGE, Ok(Prot::NONE), ProtectFrom::Start, &mut changes).unwrap();
    let denied = space.protect(at(20), 3 * PAGE, Ok(RW), ProtectFrom::Start, &mut changes).unwrap_err();
    assert_eq!(denied.to_string(), "the segment at 0x15000 can have r-x at most");
    let denied = space.protect(at(22), PAGE, Ok(RW), ProtectFrom::Start, &mut changes);
    assert!(matches!(denied, Err(SpaceError::ProtDenied { .. })));
}

#[test]
fn a_full_space_refuses_splits_and_takes_what_joins() {
    let mut space = AddressSpace::new(Limits { segments: 2, ..limits() });
    space.map_quietly(&anonymous(4).at(Place::Fixed(at(20)))).unwrap();
    space.map_quietly(&object(4, 2, 0).at(Place::Fixed(at(30)))).unwrap();
    let full = Err(SpaceError::TooManySegments { limit: 2 });
    let mut changes = vec![];
    assert_eq!(space.unmap(at(21), PAGE, &mut changes), full);
    assert_eq!(space.protect(at(21), PAGE, Ok(Prot::NONE), ProtectFrom::Start, &mut changes), full);
    assert_eq!(space.map(&object(1, 3, 0).at(Place::Fixed(at(21))), &mut changes).map(drop), full);
    assert_eq!(changes, []);
    space.unmap(at(20), PAGE, &mut changes).unwrap();
    space.map_quietly(&anonymous(1).at(Place::Fixed(at(20)))).unwrap();
    assert_eq!(space.len(), 2);
    // As on Linux, one more than the limit.
    space.map_quietly(&object(1, 2, 9).at(Place::Fixed(at(40)))).unwrap();
    assert_eq!(space.map_quietly(&anonymous(1)).map(drop), full);
}

#[test]
fn limits_are_looked_at_after_what_the_object_allows() {
    let mut space = AddressSpace::new(Limits { data_bytes: 2 * PAGE, address_bytes: 5 * PAGE, ..limits() });
    let refused = |what, limit| Err(SpaceError::LimitReached { what, limit });
    assert_eq!(space.map_quietly(&anonymous(3)).map(drop), refused(Limited::Data, 2 * PAGE));
    space.map_quietly(&anonymous(2).at(Place::Fixed(at(20)))).unwrap();
    assert_eq!(space.map_quietly(&object(4, 1, 0)).map(drop), refused(Limited::Addresses, 5 * PAGE));
    let source = SegmentContent::Object { view: ObjectView { opened: Prot::WRITE, ..view(1) }, offset: 0 };
    let unreadable = MapRequest::new(9 * PAGE, source, Prot::READ, Sharing::Private);
    let denied = Err(SpaceError::ObjectDenied { missing: Prot::READ });
    assert_eq!(space.map_quietly(&unreadable).map(drop), denied);
    // What is replaced does not count.
    space.map_quietly(&object(5, 1, 0).at(Place::Fixed(at(20)))).unwrap();
    assert_eq!(space.usage(), Usage { address_bytes: 5 * PAGE, ..Usage::default() });
}

#[test]
fn locks_are_counted_once_and_end_with_their_segments() {
    let mut space = AddressSpace::new(Limits { locked_bytes: 3 * PAGE, ..limits() });
    space.map_quietly(&anonymous(6).at(Place::Fixed(at(20)))).unwrap();
    let mut changes = vec![];
    space.lock(VirtAddr(at(20).0 + 9), PAGE, Lock::Locked, &mut changes).unwrap();
    space.lock(at(20), 3 * PAGE, Lock::Locked, &mut changes).unwrap();
    let full = Err(SpaceError::LockLimit { limit: 3 * PAGE });
    assert_eq!(space.lock(at(20), 4 * PAGE, Lock::Locked, &mut changes), full);
    assert_eq!(space.usage().locked_bytes, 3 * PAGE);
    let locked = MapRequest { lock: Lock::Locked, ..anonymous(1) };
    assert_eq!(space.map_quietly(&locked).map(drop), full);
    assert_eq!(space.fork().usage().locked_bytes, 0);
    space.unmap(at(21), PAGE, &mut changes).unwrap();
    assert_eq!(space.usage().locked_bytes, 2 * PAGE);
    let hole = space.lock(at(20), 4 * PAGE, Lock::Unlocked, &mut changes);
    assert_eq!(hole, Err(SpaceError::Hole { address: at(21) }));
    assert_eq!(space.usage().locked_bytes, PAGE);
    space.set_limits(Limits { locked_bytes: 0, ..space.limits() });
    assert_eq!(space.lock(at(20), PAGE, Lock::Locked, &mut changes), Err(SpaceError::LockForbidden));
}

#[test]
fn all_segments_and_later_ones_are_locked_at_once() {
    let mut space = AddressSpace::new(Limits { locked_bytes: 4 * PAGE, ..limits() });
    space.map_quietly(&anonymous(3)).unwrap();
    let mut changes = vec![];
    space.lock_all(Some(Lock::Locked), Lock::OnFault, &mut changes).unwrap();
    let later = space.map_quietly(&object(1, 1, 0)).unwrap();
    assert_eq!(later.attributes.lock, Lock::OnFault);
    assert!(matches!(space.map_quietly(&anonymous(1)), Err(SpaceError::LockLimit { .. })));
    space.lock_all(Some(Lock::Unlocked), Lock::Unlocked, &mut changes).unwrap();
    assert_eq!(space.usage().locked_bytes, 0);
}

#[test]
fn a_stack_grows_until_something_is_near() {
    let limits = Limits { guard_bytes: 4 * PAGE, stack_bytes: 12 * PAGE, ..limits() };
    let mut space = AddressSpace::new(limits);
    space.map_quietly(&anonymous(1).at(Place::Fixed(at(40)))).unwrap();
    let stack = MapRequest { growth: Growth::Down, ..anonymous(2) };
    space.map_quietly(&stack.at(Place::Fixed(at(58)))).unwrap();
    let mut changes = vec![];
    space.grow(VirtAddr(at(50).0 + 5), &mut changes).unwrap();
    assert_eq!(table(&space), [(40, 1, None), (50, 10, None)]);
    assert!(matches!(space.grow(at(44), &mut changes), Err(SpaceError::Taken { .. })));
    let long = space.grow(at(47), &mut changes);
    assert_eq!(long, Err(SpaceError::LimitReached { what: Limited::Stack, limit: 12 * PAGE }));
    let below = space.grow(at(39), &mut changes);
    assert_eq!(below, Err(SpaceError::Hole { address: at(39) }));
    space.protect(at(40), PAGE, Ok(Prot::NONE), ProtectFrom::Start, &mut changes).unwrap();
    space.set_limits(Limits { stack_bytes: 99 * PAGE, ..limits });
    space.grow(at(44), &mut changes).unwrap();
    let from_stack = space.protect(at(50), PAGE, Ok(RW), ProtectFrom::StackStart, &mut changes);
    assert_eq!(from_stack, Ok(()));
    let elsewhere = space.protect(at(40), PAGE, Ok(RW), ProtectFrom::StackStart, &mut changes);
    assert_eq!(elsewhere, Err(SpaceError::WrongKind { start: at(40) }));
}

#[test]
fn remap_grows_in_place_moves_keeps_and_duplicates() {
    let mut space = AddressSpace::new(limits());
    space.map_quietly(&object(2, 1, 0).at(Place::Fixed(at(20)))).unwrap();
    space.map_quietly(&anonymous(1).at(Place::Fixed(at(24)))).unwrap();
    let mut changes = vec![];
    assert_eq!(space.remap(at(20), 2 * PAGE, 4 * PAGE, RemapTo::Same, &mut changes), Ok(at(20)));
    let blocked = space.remap(at(20), 4 * PAGE, 5 * PAGE, RemapTo::Same, &mut changes);
    assert_eq!(blocked, Err(SpaceError::NoRoom { length: PAGE }));
    let moved = space.remap(at(21), 3 * PAGE, 5 * PAGE, RemapTo::Anywhere, &mut changes);
    assert_eq!(moved, Ok(at(59)));
    assert_eq!(table(&space), [(20, 1, Some(0)), (24, 1, None), (59, 5, Some(1))]);
    let twice = space.remap(at(60), 0, PAGE, RemapTo::Anywhere, &mut changes);
    assert_eq!(twice, Ok(at(58)));
    let private = space.remap(at(24), 0, PAGE, RemapTo::Anywhere, &mut changes);
    assert_eq!(private, Err(SpaceError::WrongKind { start: at(24) }));
    changes.clear();
    let kept = space.remap(at(24), PAGE, PAGE, RemapTo::KeepFixed(at(30)), &mut changes);
    assert_eq!(kept, Ok(at(30)));
    assert_eq!(table(&space)[1..3], [(24, 1, None), (30, 1, None)]);
    assert!(matches!(changes[1], Change::Moved { to, .. } if to == at(30)));
    let spans = space.remap(at(58), 3 * PAGE, 4 * PAGE, RemapTo::Anywhere, &mut changes);
    assert_eq!(spans, Err(SpaceError::SeveralSegments { end: at(59) }));
    assert_eq!(space.remap(at(58), 3 * PAGE, PAGE, RemapTo::Same, &mut changes), Ok(at(58)));
    let tail = [(30, 1, None), (58, 1, Some(2)), (61, 3, Some(3))];
    assert_eq!(table(&space)[2..], tail);
}

#[test]
fn a_move_of_the_same_length_takes_segments_and_holes_along() {
    let mut space = AddressSpace::new(limits());
    for (page, id) in [(20, 1), (22, 2)] {
        space.map_quietly(&object(1, id, 0).at(Place::Fixed(at(page)))).unwrap();
    }
    space.map_quietly(&anonymous(8).at(Place::Fixed(at(40)))).unwrap();
    let mut changes = vec![];
    let moved = space.remap(at(20), 4 * PAGE, 4 * PAGE, RemapTo::Fixed(at(42)), &mut changes);
    assert_eq!(moved, Ok(at(42)));
    // The target stays mapped where the source has a hole.
    let expected = [(40, 2, None), (42, 1, Some(0)), (43, 1, None), (44, 1, Some(0)), (45, 3, None)];
    assert_eq!(table(&space), expected);
}

#[test]
fn fork_and_exec_leave_what_they_are_told_to() {
    let mut space = AddressSpace::new(limits());
    let kept = MapRequest { on_exec: OnExec::Keep, lock: Lock::Locked, ..anonymous(1) };
    for (page, request) in [(20, anonymous(3)), (30, object(1, 1, 0)), (40, kept)] {
        space.map_quietly(&request.at(Place::Fixed(at(page)))).unwrap();
    }
    let mut changes = vec![];
    space.advise(at(21), PAGE, Ok(Advice::DontFork), &mut changes).unwrap();
    space.advise(at(21), 2 * PAGE, Ok(Advice::WipeOnFork), &mut changes).unwrap();
    let shared = space.advise(at(30), PAGE, Ok(Advice::WipeOnFork), &mut changes);
    assert_eq!(shared, Err(SpaceError::WrongKind { start: at(30) }));
    assert_eq!(table(&space.fork()), [(20, 1, None), (22, 1, None), (30, 1, Some(0)), (40, 1, None)]);
    space.advise(at(21), PAGE, Ok(Advice::DoFork), &mut changes).unwrap();
    assert_eq!(table(&space)[..2], [(20, 1, None), (21, 2, None)]);
    space.advise(at(20), 3 * PAGE, Ok(Advice::KeepOnFork), &mut changes).unwrap();
    assert_eq!(table(&space)[0], (20, 3, None));
    space.exec(&mut changes);
    assert_eq!(table(&space), [(40, 1, None)]);
    assert_eq!(space.usage().locked_bytes, 0);
}

#[test]
fn advice_goes_on_past_holes_and_stops_at_what_it_is_not_for() {
    let mut space = AddressSpace::new(limits());
    for page in [20, 22] {
        space.map_quietly(&anonymous(1).at(Place::Fixed(at(page)))).unwrap();
    }
    let mut changes = vec![];
    let hole = space.advise(at(20), 3 * PAGE, Ok(Advice::DontNeed), &mut changes);
    assert_eq!((hole, changes.len()), (Err(SpaceError::Hole { address: at(21) }), 2));
    let bad = space.advise(VirtAddr(1), 0, Err(SpaceError::BadFlags), &mut changes);
    assert_eq!(bad, Err(SpaceError::BadFlags));
    space.lock(at(22), PAGE, Lock::Locked, &mut changes).unwrap();
    let guard = Ok(Advice::Guard(Guard::Guarded));
    let locked = space.advise(at(20), 3 * PAGE, guard, &mut changes);
    assert_eq!(locked, Err(SpaceError::IsLocked { start: at(22) }));
    assert!(matches!(changes.last(), Some(Change::Guarded(part, Guard::Guarded)) if part.start == at(20)));
    space.advise(at(22), PAGE, Ok(Advice::DontNeedLocked), &mut changes).unwrap();
    let invalidate = space.sync(at(22), PAGE, SyncMode::Now, Invalidate::Yes, &mut changes);
    assert_eq!(invalidate, Err(SpaceError::IsLocked { start: at(22) }));
}

#[test]
fn a_reservation_is_room_that_only_fixed_requests_take() {
    let mut space = AddressSpace::new(limits());
    let reserved = MapRequest::new(PAGES * PAGE, SegmentContent::Reserved, RW, Sharing::Private);
    space.map_quietly(&reserved).unwrap();
    assert!(matches!(space.map_quietly(&anonymous(1)), Err(SpaceError::NoRoom { .. })));
    let mut changes = vec![];
    let opened = space.protect(at(20), PAGE, Ok(Prot::READ), ProtectFrom::Start, &mut changes);
    assert!(matches!(opened, Err(SpaceError::ProtDenied { .. })));
    space.map_quietly(&object(1, 1, 0).at(Place::Fixed(at(20)))).unwrap();
    assert_eq!(space.len(), 3);
}
