//! Pinned bytes with several owners.

use memobj::{AccessError, MapOptions};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes};
use memobj_sim::writable_fixture::writable;
use std::time::Duration;

const PAGE: u64 = 4096;

#[test]
fn parts_of_a_pin_share_it_and_the_last_one_ends_it() {
    let sample = Sample::new(MIB);
    let cache = cache(4 * MIB);
    let options = writable().pin_timeout(Duration::ZERO);
    let object = cache.open_file(sample.path(), options).unwrap();
    let mapping = object.map(.., MapOptions::default()).unwrap();
    let known = sample_bytes(MIB);
    for range in [100..200, 100..PAGE + 200] {
        let whole = mapping.pin(range.clone()).unwrap().slice(..);
        let known = &known[range.start as usize..range.end as usize];
        let (first, rest) = (whole.slice(..10), whole.slice(10..));
        let inner = rest.clone().slice(5..=6);
        assert_eq!(
            (&*whole, &*first, rest.as_ref(), &*inner),
            (known, &known[..10], &known[10..], &known[15..17])
        );
        drop((whole, first, rest));
        // On another thread, too; and while there is a part, nobody stores there.
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(*inner, known[15..17])).join().unwrap());
        let refused = mapping.write_at(range.end - 1, b"?");
        assert!(matches!(refused, Err(AccessError::Pinned { .. })), "{refused:?}");
        drop(inner);
        mapping.write_at(range.end - 1, &known[known.len() - 1..]).unwrap();
    }
    assert_eq!(cache.metrics().pinned_bytes, 0);
}

#[test]
#[should_panic(expected = "slice [5, 101) of 100 bytes")]
fn a_part_is_not_more_than_there_is() {
    let sample = Sample::new(MIB);
    let object = cache(4 * MIB).open_file(sample.path(), writable()).unwrap();
    let mapping = object.map(.., MapOptions::default()).unwrap();
    mapping.pin(0..200).unwrap().slice(50..150).slice(5..=100);
}
