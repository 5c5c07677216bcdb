//! Mappings of all of an object, and ranges that do not say where they end.

use memobj::{AccessError, MapOptions, Sharing};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes};
use memobj_sim::writable_fixture::{DELIVERIES, mapped, writable};

const PAGE: u64 = 4096;

#[test]
fn a_mapping_of_everything_is_as_long_as_the_object() {
    for delivery in DELIVERIES {
        let sample = Sample::new(MIB);
        let object = cache(4 * MIB).open_file(sample.path(), writable()).unwrap();
        let (all, fixed) =
            (object.map_all(mapped(delivery)).unwrap(), object.map(.., mapped(delivery)).unwrap());
        assert_eq!((all.len(), fixed.len(), all.object_range()), (MIB, MIB, 0..MIB));

        object.set_len(2 * MIB).unwrap();
        assert_eq!((all.len(), fixed.len(), all.object_range()), (2 * MIB, MIB, 0..2 * MIB));
        all.write_at(2 * MIB - 5, b"added").unwrap();
        assert_eq!(all.pin(2 * MIB - 5..).unwrap()[..], *b"added");
        assert!(matches!(fixed.pin(MIB..MIB + 1), Err(AccessError::OutOfRange { length: MIB, .. })));

        object.set_len(PAGE + 7).unwrap();
        assert_eq!((all.len(), all.object_range()), (PAGE + 7, 0..PAGE + 7));
        let error = all.pin(PAGE..PAGE + 8).unwrap_err();
        assert!(matches!(error, AccessError::OutOfRange { length, .. } if length == PAGE + 7), "{error}");
        assert_eq!(all.pin(PAGE..).unwrap()[..], sample_bytes(MIB)[PAGE as usize..][..7]);

        object.set_len(0).unwrap();
        assert!(all.is_empty() && all.pin(..).unwrap().is_empty());
    }
}

#[test]
fn a_private_mapping_of_everything_stays_as_long_as_it_was() {
    let sample = Sample::new(MIB);
    let object = cache(4 * MIB).open_file(sample.path(), writable()).unwrap();
    let private = object.map_all(MapOptions::new().sharing(Sharing::Private)).unwrap();
    object.set_len(2 * MIB).unwrap();
    assert_eq!(private.len(), MIB);
}

#[test]
fn ranges_of_all_forms_mean_the_same_bytes_everywhere() {
    let sample = Sample::new(MIB);
    let object = cache(4 * MIB).open_file(sample.path(), writable()).unwrap();
    let mapping = object.map(2 * PAGE.., MapOptions::default()).unwrap();
    assert_eq!(mapping.object_range(), 2 * PAGE..MIB);
    let known = &sample_bytes(MIB)[2 * PAGE as usize..];
    let last = mapping.len() - 1;
    assert_eq!(mapping.pin(..10).unwrap()[..], known[..10]);
    assert_eq!(mapping.pin_ref(10..=19).unwrap()[..], known[10..20]);
    assert_eq!(mapping.with_pin(last - 3.., <[u8]>::to_vec).unwrap(), known[last as usize - 3..]);
    assert_eq!(mapping.cursor().read(last..=last).unwrap(), &known[last as usize..]);
    assert_eq!(mapping.try_words(..16, |words| words.len()).unwrap(), 2);
    mapping.populate(..).unwrap();
    mapping.pin_mut(..=3).unwrap().copy_from_slice(b"text");
    mapping.pin_new(last..).unwrap()[0] = b'!';
    mapping.sync(..).unwrap();
    let file = std::fs::read(sample.path()).unwrap();
    assert_eq!((&file[2 * PAGE as usize..][..4], file[MIB as usize - 1]), (&b"text"[..], b'!'));
    mapping.write_at(0, b"lost").unwrap();
    mapping.discard(..).unwrap();

    for refused in [mapping.pin(..=u64::MAX), mapping.pin(..=last + 1), mapping.pin(last + 2..)] {
        assert!(matches!(refused, Err(AccessError::OutOfRange { .. })), "{refused:?}");
    }
    assert!(object.map(..=MIB, MapOptions::default()).is_err());
}
