//! Errors of the library as errors of the standard library, and whether it helps to try again.

use std::error::Error;
use std::io;

use memobj::pagers::{Bytes, Faulty, Inject, Injection};
use memobj::{
    AccessError, Cache, CacheOptions, ErrorKind, FailurePolicy, MapError, MapOptions, ObjectOptions,
    SupplyError,
    pagers::{Blocking, BlockingPager},
};
use memobj_sim::fixture::{MIB, Sample, cache};
use memobj_sim::writable_fixture::writable;
use std::time::Duration;

const PAGE: u64 = 4096;

/// What a pin of a page says that fails with this kind.
fn failed(kind: ErrorKind) -> AccessError {
    let plan = vec![Injection::new(0..PAGE, Inject::Fail(kind))];
    let pager = Faulty::new(Bytes::new(vec![7; PAGE as usize]), plan, 0);
    let object = cache(MIB).object("failing", pager, ObjectOptions::default()).unwrap();
    object.map(.., MapOptions::default()).unwrap().pin(..).unwrap_err()
}

#[test]
fn each_kind_of_failure_is_the_nearest_kind_of_the_standard_library() {
    for (kind, near, may_retry) in [
        (ErrorKind::Integrity, io::ErrorKind::InvalidData, false),
        (ErrorKind::Truncated, io::ErrorKind::UnexpectedEof, true),
        (ErrorKind::Stale, io::ErrorKind::StaleNetworkFileHandle, false),
        (ErrorKind::NoSpace, io::ErrorKind::StorageFull, true),
        (ErrorKind::Timeout, io::ErrorKind::TimedOut, true),
        (ErrorKind::Denied, io::ErrorKind::PermissionDenied, false),
        (ErrorKind::Detached, io::ErrorKind::NotConnected, false),
        (ErrorKind::Io, io::ErrorKind::Other, true),
    ] {
        let error = failed(kind);
        assert_eq!(error.may_retry(), may_retry, "{error}");
        let text = error.to_string();
        let error = io::Error::from(error);
        assert_eq!((error.kind(), error.to_string()), (near, text));
        let kept = error.get_ref().and_then(|kept| kept.downcast_ref::<AccessError>());
        assert_eq!(kept.and_then(AccessError::page_error).map(|page| page.kind()), Some(kind));
    }
}

/// Refuses with an error of the system.
struct Unreachable;

impl BlockingPager for Unreachable {
    fn length(&self) -> u64 {
        PAGE
    }

    fn supply(&self, _: std::ops::Range<u64>, _: &mut [u8]) -> Result<usize, SupplyError> {
        Err(io::Error::from(io::ErrorKind::HostUnreachable).into())
    }
}

#[test]
fn the_kind_of_an_error_underneath_is_kept_and_so_is_the_error() {
    let policy = FailurePolicy::FailAtOnce;
    let object =
        cache(MIB).object("far", Blocking(Unreachable), ObjectOptions::new().policy(policy)).unwrap();
    let error = object.map(.., MapOptions::default()).unwrap().pin(..).unwrap_err();
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::HostUnreachable));
}

fn question_mark(path: &str) -> io::Result<u8> {
    let cache = Cache::new(CacheOptions::new().budget_bytes(MIB))?;
    let mapping = cache.open_file(path, ObjectOptions::default())?.map(.., MapOptions::default())?;
    let byte = mapping.pin(0..1)?[0];
    Ok(byte)
}

#[test]
fn functions_with_io_errors_can_pass_ours_on() {
    assert_eq!(question_mark("Cargo.toml").unwrap(), b'[');
    assert_eq!(question_mark("no such file").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(question_mark("/dev/null").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(question_mark("/dev/null/x").unwrap_err().kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn what_others_hold_can_be_retried_and_what_one_holds_oneself_cannot() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), writable().pin_timeout(Duration::ZERO)).unwrap();
    let mapping = object.map(.., MapOptions::default()).unwrap();
    let pinned = mapping.pin(0..10).unwrap();
    let own = mapping.write_at(5, b"x").unwrap_err();
    assert!(!own.may_retry(), "{own}");
    let others = std::thread::scope(|scope| scope.spawn(|| mapping.write_at(5, b"x")).join().unwrap());
    let others = others.unwrap_err();
    assert!(others.may_retry(), "{others}");
    assert_eq!(io::Error::from(others).kind(), io::ErrorKind::ResourceBusy);
    drop(pinned);

    let outside = mapping.pin(..=MIB).unwrap_err();
    assert!(!outside.may_retry() && io::Error::from(outside).kind() == io::ErrorKind::InvalidInput);
    let too_many = mapping.pin(..).unwrap_err();
    assert!(matches!(too_many, AccessError::PinsExceedBudget { .. }) && !too_many.may_retry(), "{too_many}");
    let locked = cache.open_file(sample.path(), writable()).unwrap_err();
    assert!(locked.may_retry() && io::Error::from(locked).kind() == io::ErrorKind::ResourceBusy);
    let beyond: MapError = object.map(MIB..=MIB, MapOptions::default()).unwrap_err();
    assert!(!beyond.may_retry() && io::Error::from(beyond).kind() == io::ErrorKind::InvalidInput);
}
