//! Writing: a sync publishes a new version of the object, whole or not at all.

use memobj::{
    Cache, CacheOptions, Delivery, ErrorKind, MapOptions, Mapping, MemoryObject, ObjectOptions, Writing,
};
use memobj_object_store::{
    Hedging, ObjectStoreOptions, ObjectStorePager, Unchanged, abort_upload, left_uploads,
};
use memobj_sim::fixture::{MIB, sample_bytes, wait_until_clean};

use crate::help::{counter, message};
use crate::proxy::{Proxy, Rule};
use crate::servers::{Store, moto};

fn open(cache: &Cache, pager: &ObjectStorePager) -> (MemoryObject, Mapping) {
    let options = ObjectOptions::new().writing(Writing::InPlace).max_len(512 * MIB);
    let object = cache.object("object", pager.clone(), options).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    (object, mapping)
}

fn cache() -> Cache {
    Cache::new(CacheOptions::new().budget_bytes(64 * MIB)).unwrap()
}

fn writable() -> ObjectStoreOptions {
    ObjectStoreOptions::new().writable()
}

/// The object as anybody else reads it.
fn published(moto: &Store, key: &str) -> Vec<u8> {
    let pager = moto.open(key, ObjectStoreOptions::new().block_bytes(8 * MIB));
    let object = cache().object("published", pager, ObjectOptions::new()).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    let mut bytes = vec![0; object.len() as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    bytes
}

fn sync_kind(mapping: &Mapping) -> ErrorKind {
    let error = mapping.sync(..).unwrap_err();
    println!("{}", message(&error));
    error.kind()
}

#[test]
fn a_small_object_is_published_by_one_request() {
    let Some(moto) = moto() else { return };
    let mut expected = sample_bytes(100_000).to_vec();
    moto.put("small", &expected);
    let (cache, pager) = (cache(), moto.open("small", writable()));
    let (_object, mapping) = open(&cache, &pager);
    for round in 0..3_u8 {
        let at = 50_000 + 10_000 * usize::from(round);
        mapping.write_at(at as u64, &[round; 5000]).unwrap();
        assert_eq!(published(&moto, "small"), expected, "not before a sync");
        mapping.sync(..).unwrap();
        expected[at..at + 5000].fill(round);
        assert_eq!(published(&moto, "small"), expected);
        assert_eq!(pager.unpublished(), []);
    }
    assert_eq!((counter(&pager, "sent_parts"), counter(&pager, "copied_parts")), (3, 0));
    let requests = counter(&pager, "requests");
    mapping.sync(..).unwrap();
    assert_eq!(counter(&pager, "requests"), requests, "nothing to publish");
    // What was published is read from the store again.
    wait_until_clean(&cache);
    let mut bytes = vec![0; expected.len()];
    mapping.read_at(0, &mut bytes).unwrap();
    assert!(bytes == expected);
}

/// The second of two writers has lost nothing, and can save elsewhere.
#[test]
fn the_second_of_two_writers_is_stale_and_loses_nothing() {
    let Some(moto) = moto() else { return };
    for length in [100_000, 6 * MIB] {
        let sample = sample_bytes(length);
        moto.put("shared", sample);
        let (cache, pagers) = (cache(), [(); 2].map(|()| moto.open("shared", writable())));
        let [(_one, first), (_two, second)] = [0, 1].map(|index| open(&cache, &pagers[index]));
        first.write_at(0, &[1; 4096]).unwrap();
        second.write_at(8192, &[2; 4096]).unwrap();
        first.sync(..).unwrap();
        assert_eq!(sync_kind(&second), ErrorKind::Stale);
        assert_eq!(sync_kind(&second), ErrorKind::Stale, "still");
        let mut expected = sample.to_vec();
        expected[..4096].fill(1);
        assert!(published(&moto, "shared") == expected, "that of the first writer");
        let mut bytes = [0; 4096];
        second.read_at(8192, &mut bytes).unwrap();
        assert_eq!(bytes, [2; 4096], "nothing is lost");
        assert_eq!(pagers[1].unpublished(), std::slice::from_ref(&(8192..12288)));
        let other = format!("s3://bucket/saved{length}");
        let error = pagers[1].save_as(&other, Unchanged::AsOpened).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
        pagers[1].save_as(&other, Unchanged::AsNow).unwrap();
        expected[8192..12288].fill(2);
        assert!(published(&moto, &format!("saved{length}")) == expected, "both changes");
        let error = pagers[1].save_as(&other, Unchanged::AsNow).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "nothing is overwritten: {error}");
        assert_eq!(left_uploads("s3://bucket/s", &moto.options(writable())).unwrap(), []);
    }
}

/// One percent that is changed moves at most three of a hundred bytes, there and back.
#[test]
fn unchanged_parts_are_copied_inside_of_the_store() {
    let Some(moto) = moto() else { return };
    let length = 256 * MIB;
    let mut expected: Vec<u8> =
        (0..length / 8).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    moto.put("large", &expected);
    let proxy = Proxy::start(moto.port(), |_| Rule::Pass);
    let options = moto.options(writable().hedging(Hedging::Off)).setting("aws_endpoint", proxy.endpoint());
    let pager = ObjectStorePager::open("s3://bucket/large", options).unwrap();
    let cache = cache();
    let (_object, mapping) = open(&cache, &pager);
    let changed = 100 * MIB..100 * MIB + length / 100 / 4096 * 4096;
    let new = vec![0x5a; (changed.end - changed.start) as usize];
    mapping.write_at(changed.start, &new).unwrap();
    let counted = || counter(&pager, "network_read_bytes") + counter(&pager, "network_written_bytes");
    let (before, before_socket) = (counted(), proxy.bytes());
    mapping.sync(..).unwrap();
    let (moved, at_socket) = (counted() - before, proxy.bytes() - before_socket);
    println!(
        "{moved} of {length} bytes were moved for {} that were changed; {at_socket} with heads",
        new.len()
    );
    assert!(moved <= at_socket && at_socket * 100 <= 3 * length);
    assert_eq!((counter(&pager, "sent_parts"), counter(&pager, "copied_parts")), (1, 2));
    expected[changed.start as usize..changed.end as usize].copy_from_slice(&new);
    assert!(published(&moto, "large") == expected);
}

/// The object becomes shorter and longer; what was cut off is zeros when it grows again.
#[test]
fn a_length_is_published_too() {
    let Some(moto) = moto() else { return };
    let mut expected = sample_bytes(12 * MIB).to_vec();
    moto.put("length", &expected);
    let (cache, pager) = (cache(), moto.open("length", writable()));
    let (object, mapping) = open(&cache, &pager);
    for length in [7 * MIB + 5, 11 * MIB, 3, 4 * MIB, 4 * MIB + 1] {
        object.set_len(length).unwrap();
        expected.resize(length as usize, 0);
        object.set_len(length).unwrap();
        mapping.sync(0..1).unwrap();
        assert!(published(&moto, "length") == expected, "{length} bytes");
    }
    drop((object, mapping));
}

/// The parts of a writer that was killed are found and removed.
#[test]
fn uploads_that_are_left_are_found_and_removed() {
    let Some(moto) = moto() else { return };
    let options = moto.options(ObjectStoreOptions::new());
    moto.request("POST", "left/a&b?uploads", b"");
    moto.request("POST", "other?uploads", b"");
    let left = left_uploads("s3://bucket/left", &options).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].key, "left/a&b");
    abort_upload("s3://bucket/left", &options, &left[0]).unwrap();
    assert_eq!(left_uploads("s3://bucket/left", &options).unwrap(), []);
    assert_eq!(left_uploads("s3://bucket/o", &options).unwrap().len(), 1);
    let error = abort_upload("s3://bucket/left", &options, &left[0]).unwrap_err();
    assert_eq!(error.status(), Some(404), "{error}");
}

/// Metadata of the object stay with it.
#[test]
fn metadata_are_kept() {
    let Some(moto) = moto() else { return };
    for length in [100_000, 12 * MIB] {
        let headers = "Content-Type: text/x-memobj\r\nx-amz-meta-colour: blue\r\n";
        moto.request_with("PUT", "meta", headers, sample_bytes(length));
        let (cache, pager) = (cache(), moto.open("meta", writable()));
        let (_object, mapping) = open(&cache, &pager);
        mapping.write_at(0, b"new").unwrap();
        mapping.sync(..).unwrap();
        let head = moto.request("HEAD", "meta", b"").1.to_lowercase();
        assert!(head.contains("text/x-memobj") && head.contains("x-amz-meta-colour: blue"), "{head}");
    }
}

#[test]
fn what_cannot_be_published_is_not_opened_to_be_written() {
    let server = crate::scripted::Scripted::start(crate::scripted::Served::new(sample_bytes(5000), "one"));
    let error = ObjectStorePager::open(&server.url(), writable()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}
