//! A prefetch that is carried out after the object was cut off finds pages behind the end. It made a worker panic.

use std::sync::atomic::{AtomicU32, Ordering};

use memobj::{Delivery, Mapping, MemoryObject};
use memobj_sim::fixture::{MIB, Sample, within};
use memobj_sim::process::alone;
use memobj_sim::writable_fixture::{WritableFixture, mapped, writable};

fn cut_off_again_and_again(object: &MemoryObject, mapping: &Mapping) {
    for round in 0..2000 {
        mapping.prefetch(std::slice::from_ref(&(0..40_960))).unwrap();
        object.set_len(round % 5 * 4096).unwrap();
        object.set_len(40_960).unwrap();
    }
    // What is behind an old end is zeros, and can be had.
    assert!(mapping.pin(5 * 4096..40_960).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn a_prefetch_of_what_was_cut_off_meanwhile_disturbs_nobody() {
    // The hook hears of the panics of the whole process.
    alone("a_prefetch_of_what_was_cut_off_meanwhile_disturbs_nobody", no_worker_panics);
}

fn no_worker_panics() {
    static PANICS: AtomicU32 = AtomicU32::new(0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        usual(info);
    }));
    within(60, "the prefetches", || {
        let fixture = WritableFixture::new(Delivery::PinOnly, MIB, 40_960, writable());
        cut_off_again_and_again(&fixture.object, &fixture.mapping);
        let sample = Sample::new(40_960);
        let object = fixture.cache.open_file(sample.path(), writable()).unwrap();
        let mapping = object.map(0..40_960, mapped(Delivery::PinOnly)).unwrap();
        cut_off_again_and_again(&object, &mapping);
    });
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}
