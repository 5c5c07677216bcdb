//! Pinned bytes as values.

use memobj::pagers::Bytes;
use memobj::{AccessError, MapOptions, Mapping, ObjectOptions};
use memobj_sim::fixture::{MIB, Sample, cache};
use memobj_sim::writable_fixture::writable;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, PartialEq, Debug)]
#[repr(C)]
struct Entry {
    key: u64,
    value: u64,
}

fn counted() -> Mapping {
    let bytes: Vec<u8> = (0..1024_u64).flat_map(u64::to_ne_bytes).collect();
    let object = cache(MIB).object("counted", Bytes::new(bytes), ObjectOptions::default()).unwrap();
    object.map_all(MapOptions::default()).unwrap()
}

#[test]
fn values_are_used_where_they_are() {
    let mapping = counted();
    let one = mapping.pin_as::<Entry>(16..32).unwrap();
    assert_eq!(*one, Entry { key: 2, value: 3 });
    assert_eq!(std::ptr::from_ref(&*one).addr() % 4096, 16, "it is no copy");
    // Over a border of pages, too.
    let all = mapping.pin_as::<[Entry]>(..).unwrap();
    assert_eq!((all.len(), &all[300]), (512, &Entry { key: 600, value: 601 }));
    assert!(mapping.pin_as::<[Entry]>(5..5).unwrap_err().to_string().contains("alignment"));
}

#[test]
fn bytes_that_are_no_value_are_refused() {
    let mapping = counted();
    let error = mapping.pin_as::<Entry>(20..36).unwrap_err();
    assert!(matches!(error, AccessError::Layout { .. }), "{error}");
    assert!(error.to_string().starts_with("[20, 36) is no "), "{error}");
    assert!(error.to_string().ends_with("Entry: its bytes are not as its alignment wants"), "{error}");
    for range in [16..33, 16..31, 16..16] {
        let error = mapping.pin_as::<Entry>(range).unwrap_err();
        assert!(error.to_string().ends_with("its bytes are not as many as its size"), "{error}");
    }
    assert!(matches!(mapping.pin_as::<Entry>(8192..8208), Err(AccessError::OutOfRange { .. })));
}

#[test]
fn values_are_copied_to_and_from_anywhere() {
    let sample = Sample::new(MIB);
    let object = cache(MIB).open_file(sample.path(), writable()).unwrap();
    let mapping = object.map_all(MapOptions::default()).unwrap();
    let entry = Entry { key: 7, value: 11 };
    mapping.write_value(4090, &entry).unwrap();
    assert_eq!(mapping.read_value::<Entry>(4090).unwrap(), entry);
    assert_eq!(mapping.read_value::<u64>(4098).unwrap(), 11);
    assert!(mapping.write_value(MIB - 8, &entry).is_err() && mapping.read_value::<Entry>(MIB - 8).is_err());
}
