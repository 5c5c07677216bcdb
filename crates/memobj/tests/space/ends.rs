//! What is left in the end, and what a kernel without room leaves.

use crate::fixture::*;
use memobj::pagers;
use memobj::space::{Prot, Sharing, Space, SpaceOptions, VerbError, VirtAddr};
use memobj_sim::fixture::{MIB, Sample, cache, sample_byte, sample_bytes, wait_until};
use memobj_sim::process::{Usage, alone};
use memobj_sim::space::check_mapped;

#[test]
fn the_end_of_a_space_returns_everything() {
    alone("ends::the_end_of_a_space_returns_everything", || {
        let sample = Sample::new(2 * MIB);
        assert_eq!(sample_bytes(2 * MIB).len() as u64, 2 * MIB);
        (0..3).for_each(|_| use_a_space(&sample));
        wait_until("only the test's threads are left", || Usage::now().threads <= 2);
        let before = Usage::now();
        (0..8).for_each(|_| use_a_space(&sample));
        wait_until("only the test's threads are left", || Usage::now().threads <= 2);
        let after = Usage::now();
        assert_eq!(after.descriptors, before.descriptors);
        // The C library keeps stacks of threads that have ended, and how many there were at once depends on chance.
        assert!(after.mappings <= before.mappings + 64, "{before:?} {after:?}");
        assert!(after.virtual_bytes < before.virtual_bytes + 256 * MIB, "{before:?} {after:?}");
        assert!(after.resident_bytes < before.resident_bytes + 2 * MIB, "{before:?} {after:?}");
    });
}

fn use_a_space(sample: &Sample) {
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), lendable()).unwrap();
    let space = space();
    for sharing in [Sharing::Private, Sharing::Shared, Sharing::Copy] {
        let segment = map(&space, &object, 0, 2 * MIB, sharing);
        // The object lives as long as a segment of it.
        for page in (0..2 * MIB).step_by(4096) {
            assert_eq!(load(segment.start.0 + page), Ok(sample_byte(page)));
        }
    }
    let ids = space.id_of(&object);
    drop(object);
    drop(cache);
    assert!(ids.is_some());
    let table = space.table();
    assert_eq!(load(table[0].start.0 + 9), Ok(sample_byte(9)));
    space.unmap(table[0].start, table[0].length).unwrap();
}

#[test]
fn the_last_segment_of_an_object_lets_it_go() {
    let cache = cache(MIB);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
    let space = space();
    let start = map(&space, &object, 0, MIB, Sharing::Private).start;
    assert_eq!(load(start.0), Ok(sample_byte(0)));
    let id = space.id_of(&object).unwrap();
    let other = map(&space, &object, MIB / 2, PAGE, Sharing::Shared);
    assert_eq!(space.id_of(&object), Some(id));
    space.unmap(start, MIB).unwrap();
    assert_eq!(space.id_of(&object), Some(id));
    space.unmap(other.start, PAGE).unwrap();
    assert_eq!((space.id_of(&object), cache.metrics().frame_bytes), (None, 0));
}

#[test]
fn a_window_is_where_it_was_asked_for() {
    let start = VirtAddr(0x2000_0000_0000);
    let options = SpaceOptions::new().window_bytes(MIB).window_start(start);
    let space = Space::new(options).unwrap();
    assert_eq!(space.window(), (start, VirtAddr(start.0 + MIB)));
    Space::new(options).unwrap_err();
    assert!(matches!(
        space.map(&anonymous(MIB + PAGE)).unwrap_err(),
        VerbError::Space(memobj::space::SpaceError::NoRoom { .. })
    ));
    drop(space);
    Space::new(options).unwrap();
}

/// The kernel's limit on mappings stops a verb in the middle: table and mappings stay one.
#[test]
fn a_kernel_without_room_leaves_table_and_mappings_the_same() {
    alone("ends::a_kernel_without_room_leaves_table_and_mappings_the_same", || {
        let cache = cache(MIB);
        let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
        let space = Space::new(SpaceOptions::new().segments(usize::MAX)).unwrap();
        let kept = map(&space, &object, 0, MIB, Sharing::Private).start;
        let pages = 80_000 * PAGE;
        let zeros = space.map(&anonymous(pages)).unwrap().start;
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        if limit.trim().parse::<u64>().unwrap() > 75_000 {
            return println!("skipped: {} mappings are allowed here", limit.trim());
        }
        // From here on the C library takes memory from its heap, which needs no mapping.
        drop(vec![1_u8; 24 << 20]);
        let refused = (0..80_000).step_by(2).find_map(|page| {
            let at = VirtAddr(zeros.0 + page * PAGE);
            space.protect(at, PAGE, Prot::READ).err()
        });
        assert!(matches!(refused, Some(VerbError::System { .. })), "{refused:?}");
        for page in [1, 100, 200] {
            let at = VirtAddr(kept.0 + page * PAGE);
            for error in
                [space.unmap(at, PAGE).unwrap_err(), space.protect(at, PAGE, Prot::NONE).unwrap_err()]
            {
                assert!(matches!(error, VerbError::System { .. }), "{error:?}");
            }
            let over = anonymous(PAGE).place(memobj::space::Place::Fixed(at));
            space.map(&over).unwrap_err();
        }
        assert_eq!(load(kept.0 + 50 * PAGE), Ok(sample_byte(50 * PAGE)));
        // The table of the kernel cannot be read while there is no room to read it to.
        space.unmap(zeros, pages).unwrap();
        check_mapped(&space);
        space.unmap(VirtAddr(kept.0 + PAGE), PAGE).unwrap();
        check_mapped(&space);
    });
}
