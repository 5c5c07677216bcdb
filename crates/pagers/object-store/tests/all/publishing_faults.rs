//! What goes wrong while a new version is published: the old one stays, or the new one is there, and no change is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memobj::{Cache, CacheOptions, Delivery, ErrorKind, MapOptions, Mapping, ObjectOptions, Writing};
use memobj_object_store::{ObjectStoreOptions, ObjectStorePager, left_uploads};
use memobj_sim::fixture::{MIB, sample_bytes};

use crate::help::message;
use crate::proxy::{Proxy, Rule};
use crate::servers::{Store, moto};

const LENGTH: u64 = 16 * MIB;

/// moto with an object, and a writer whose requests go through a proxy. `rule` is for requests whose first line has `wanted`,
/// the first `times` of them.
fn writer(
    length: u64,
    wanted: &'static str,
    times: u32,
    rule: Rule,
) -> Option<(Store, Arc<AtomicU32>, ObjectStorePager)> {
    let moto = moto()?;
    moto.put("object", sample_bytes(length));
    let left = Arc::new(AtomicU32::new(times));
    let counted = Arc::clone(&left);
    let proxy = Proxy::start(moto.port(), move |head| {
        let line = head.lines().next().unwrap_or("");
        let is_wanted = wanted.split('*').all(|part| line.contains(part));
        let takes = |left: u32| left.checked_sub(1);
        match is_wanted && counted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, takes).is_ok() {
            true => rule,
            false => Rule::Pass,
        }
    });
    let options =
        moto.options(ObjectStoreOptions::new().writable()).setting("aws_endpoint", proxy.endpoint());
    let pager = ObjectStorePager::open("s3://bucket/object", options).unwrap();
    Some((moto, left, pager))
}

fn map(pager: &ObjectStorePager) -> (Cache, Mapping) {
    let cache = Cache::new(CacheOptions::new().budget_bytes(64 * MIB)).unwrap();
    let object =
        cache.object("object", pager.clone(), ObjectOptions::new().writing(Writing::InPlace)).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    (cache, mapping)
}

fn published(moto: &Store) -> Vec<u8> {
    let pager = moto.open("object", ObjectStoreOptions::new());
    let length = memobj::pagers::Pager::describe(&pager).length();
    let cache = Cache::new(CacheOptions::new().budget_bytes(64 * MIB)).unwrap();
    let mapping = cache.object("published", pager, ObjectOptions::new()).unwrap();
    let mapping = mapping.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    let mut bytes = vec![0; length as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    bytes
}

fn no_upload_is_left(moto: &Store) {
    let options = moto.options(ObjectStoreOptions::new());
    assert_eq!(left_uploads("s3://bucket/object", &options).unwrap(), []);
}

/// A request of a publication that fails once is sent again; an answer that is lost is found out about.
#[test]
fn a_publication_survives_what_passes() {
    let multipart = [
        ("PUT*partNumber", Rule::CutBody(100_000)),
        ("PUT*partNumber", Rule::Refuse),
        ("PUT*partNumber=2&", Rule::DropAnswer),
        ("POST*uploadId", Rule::DropAnswer),
    ];
    let small = [("PUT*object?", Rule::CutBody(10_000)), ("PUT*object?", Rule::DropAnswer)];
    let cases = multipart.map(|case| (LENGTH, case)).into_iter().chain(small.map(|case| (100_000, case)));
    for (length, (wanted, rule)) in cases {
        let Some((moto, _left, pager)) = writer(length, wanted, 1, rule) else { return };
        let (_cache, mapping) = map(&pager);
        mapping.write_at(8192, &[7; 4096]).unwrap();
        mapping.sync(..).unwrap_or_else(|error| panic!("{wanted} {rule:?}: {}", message(&error)));
        let mut expected = sample_bytes(length).to_vec();
        expected[8192..12288].fill(7);
        assert!(published(&moto) == expected, "{wanted} {rule:?}");
        assert!(pager.unpublished().is_empty());
        no_upload_is_left(&moto);
        // The version is known: nothing is Stale.
        mapping.write_at(0, &[8; 4096]).unwrap();
        mapping.sync(..).unwrap_or_else(|error| panic!("{wanted} {rule:?}: {}", message(&error)));
    }
}

/// A publication that fails for good leaves the old version, no parts, and all changes: the next sync has them.
#[test]
fn a_publication_that_fails_changes_nothing() {
    for (length, wanted) in [(LENGTH, "PUT*partNumber"), (LENGTH, "POST*uploadId"), (100_000, "PUT*object?")]
    {
        let Some((moto, left, pager)) = writer(length, wanted, u32::MAX, Rule::Refuse) else { return };
        let (_cache, mapping) = map(&pager);
        mapping.write_at(8192, &[7; 4096]).unwrap();
        let error = mapping.sync(..).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{wanted}: {}", message(&error));
        assert!(published(&moto) == sample_bytes(length), "{wanted}");
        no_upload_is_left(&moto);
        left.store(0, Ordering::SeqCst);
        mapping.write_at(0, &[8; 4096]).unwrap();
        mapping.sync(..).unwrap_or_else(|error| panic!("{wanted}: {}", message(&error)));
        let mut expected = sample_bytes(length).to_vec();
        expected[8192..12288].fill(7);
        expected[..4096].fill(8);
        assert!(published(&moto) == expected, "{wanted}");
    }
}

/// A version that another writer publishes in the last moment, when parts have been uploaded, is not overwritten by a store that
/// honours If-Match on CompleteMultipartUpload. moto does not; the proxy does it for it.
#[test]
fn a_writer_who_is_faster_at_the_end_wins() {
    let Some(moto) = moto() else { return };
    let moto = Arc::new(moto);
    moto.put("object", sample_bytes(LENGTH));
    let other: &[u8] = &sample_bytes(LENGTH)[4096..];
    let rival = Arc::clone(&moto);
    let proxy = Proxy::start(moto.port(), move |head| {
        let is_completion = head.starts_with("POST") && head.contains("uploadId");
        if !is_completion {
            return Rule::Pass;
        }
        // After the last HEAD, before the completion.
        assert_eq!(rival.put("object", other), 200);
        match head.to_lowercase().contains("if-match: \"") {
            true => Rule::PreconditionFailed,
            false => Rule::Pass,
        }
    });
    let options =
        moto.options(ObjectStoreOptions::new().writable()).setting("aws_endpoint", proxy.endpoint());
    let pager = ObjectStorePager::open("s3://bucket/object", options).unwrap();
    let (_cache, mapping) = map(&pager);
    mapping.write_at(8192, &[7; 4096]).unwrap();
    let error = mapping.sync(..).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{}", message(&error));
    assert!(published(&moto) == other);
    assert_eq!(pager.unpublished(), std::slice::from_ref(&(8192..12288)));
    no_upload_is_left(&moto);
}
