//! Faults in threads with small stacks: the handler of SIGBUS goes to the alternate stack, and needs little of it.

use memobj::pagers::{Bytes, Pager};
use memobj::{Cache, Delivery, MapOptions, Mapping, ObjectOptions, Writing, pagers};
use memobj_linux::testing::{drop_page, on_alternate_stack, signal_frame_bytes};
use memobj_sim::Counted;
use memobj_sim::fixture::{MIB, Sample, cache, check_sample, sample_bytes, sample_pager, within};

/// What the handler may use beside what the kernel puts there.
const HANDLER: usize = 2048;
const LENGTH: u64 = 4 * MIB - 100;

fn map(cache: &Cache, pager: impl Pager + 'static, writing: Writing) -> Mapping {
    let object = cache.object("sample", pager, ObjectOptions::new().writing(writing)).unwrap();
    let map = MapOptions::new().delivery(Delivery::InThread);
    object.map(0..object.len(), map).unwrap()
}

fn use_of_stack(what: &str, body: impl FnOnce()) {
    let frame = signal_frame_bytes();
    let used = on_alternate_stack(64 << 10, body).unwrap();
    println!("{what}: {used} bytes, of which the kernel's are at most {frame}");
    assert!(used > 0, "{what}: not on the alternate stack");
    assert!(used <= frame + HANDLER, "{what}: {used} bytes of stack, with {frame} of the kernel");
}

/// More than the budget: pages are evicted on the way.
#[test]
fn the_handler_uses_the_alternate_stack_and_little_of_it() {
    let sample = Sample::new(LENGTH);
    let cache = cache(MIB);
    let file = pagers::File::open(sample.path()).unwrap();
    let called = Counted::new(sample_pager(LENGTH), memobj_sim::Calls::default());
    let read = [
        ("memory", map(&cache, sample_pager(LENGTH), Writing::ReadOnly)),
        ("zeros", map(&cache, pagers::Zero::new(LENGTH), Writing::ReadOnly)),
        ("a file", map(&cache, file, Writing::ReadOnly)),
        ("a pager that is called", map(&cache, called, Writing::ReadOnly)),
    ];
    for (what, mapping) in read {
        within(60, what, move || {
            let mut buffer = vec![0; LENGTH as usize];
            use_of_stack(what, || {
                // Backwards: no sequence.
                for page in (0..LENGTH.div_ceil(4096)).rev() {
                    let bytes = page * 4096..LENGTH.min((page + 1) * 4096);
                    mapping
                        .touch_at(bytes.start, &mut buffer[bytes.start as usize..bytes.end as usize])
                        .unwrap();
                }
            });
            if what != "zeros" {
                check_sample(0..LENGTH, &buffer, what);
            }
        });
    }
}

#[test]
fn stores_need_as_little() {
    let sample = Sample::new(LENGTH);
    let cache = cache(MIB);
    let file = pagers::File::open_writable(sample.path(), std::time::Duration::ZERO).unwrap();
    let mapping = map(&cache, file, Writing::InPlace);
    let kept = mapping.clone();
    within(60, "stores", move || {
        let words = mapping.shared_words().unwrap();
        use_of_stack("stores", || {
            (0..LENGTH / 4096).rev().for_each(|page| words.store(page * 512, page));
            (0..LENGTH / 4096).for_each(|page| assert_eq!(words.load(page * 512), page));
        });
    });
    kept.sync(0..LENGTH).unwrap();
}

/// The kernel has to be asked which pages it has.
#[test]
fn pages_that_were_dropped_from_outside_need_as_little() {
    let cache = cache(MIB);
    let mapping = map(&cache, sample_pager(LENGTH), Writing::ReadOnly);
    within(60, "dropped pages", move || {
        let mut buffer = [0; 65_536];
        mapping.touch_at(0, &mut buffer).unwrap();
        let start = mapping.as_ptr() as u64;
        (0..16).for_each(|page| drop_page(start + page * 4096).unwrap());
        use_of_stack("dropped pages", || mapping.touch_at(0, &mut buffer).unwrap());
        check_sample(0..65_536, &buffer, "after they were dropped");
    });
}

/// Barely larger than what the kernel puts there: below it is a page that traps.
#[test]
fn a_small_alternate_stack_is_enough() {
    let cache = cache(MIB);
    let mapping = map(&cache, Bytes::new(sample_bytes(LENGTH)), Writing::ReadOnly);
    within(60, "faults", move || {
        let mut buffer = vec![0; LENGTH as usize];
        on_alternate_stack(signal_frame_bytes() + HANDLER, || mapping.touch_at(0, &mut buffer).unwrap())
            .unwrap();
        check_sample(0..LENGTH, &buffer, "on a small stack");
    });
}
