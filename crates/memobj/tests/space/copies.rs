//! Copy segments: the bytes of one instant.

use crate::fixture::*;
use std::os::unix::fs::FileExt;

use memobj::pagers::{self, Blocking, BlockingPager};
use memobj::space::{NoCopy, Sharing, Space, SpaceOptions, VerbError};
use memobj::{ErrorKind, SupplyError, Writing};
use memobj_sim::fixture::{MIB, Sample, cache, check_sample, sample_bytes};
use memobj_sim::space::check_mapped;

fn refusal(space: &Space, object: &memobj::MemoryObject, length: u64) -> NoCopy {
    match space.map(&request(object, 0, length, Sharing::Copy)).unwrap_err() {
        VerbError::NoCopy(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_keeps_its_bytes_whatever_becomes_of_the_file() {
    let sample = Sample::new(MIB + 100);
    let cache = cache(MIB / 8);
    let object = cache.open_file(sample.path(), lendable()).unwrap();
    let space = space();
    let copy = map(&space, &object, 3 * PAGE, MIB, Sharing::Copy);
    assert_eq!(load(copy.start.0), Ok(sample_bytes(MIB)[3 * 4096]));
    store(copy.start.0 + 9, 9).unwrap();
    sample.file().write_all_at(&[0xee; 65536], 8 * PAGE).unwrap();
    sample.file().set_len(PAGE).unwrap();
    std::fs::remove_file(sample.path()).unwrap();
    drop(object);
    let bytes = read(&space, copy.start, MIB + 100 - 3 * PAGE);
    assert_eq!(bytes[9], 9);
    check_sample(3 * PAGE + 10..MIB + 100, &bytes[10..], "the copy");
    // Past what was its end at that instant, for ever.
    assert_eq!(signal_of(load(copy.end().0 - 1)), SIGBUS);
    check_mapped(&space);
}

#[test]
fn a_file_that_has_changed_is_refused() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), lendable()).unwrap();
    sample.file().write_all_at(&[0xee], 100).unwrap();
    let space = space();
    let why = refusal(&space, &object, PAGE);
    assert!(matches!(why, NoCopy::Stale), "{why:?}");
    assert_eq!(space.table(), []);
}

#[test]
fn what_is_too_long_to_copy_is_refused() {
    let pager = Changing(sample_bytes(MIB));
    let cache = cache(MIB);
    let object = object(&cache, Blocking(pager));
    let space = Space::new(SpaceOptions::new().copy_bytes(4 * PAGE)).unwrap();
    let why = refusal(&space, &object, 5 * PAGE);
    assert!(matches!(why, NoCopy::TooLong { bytes: 20480, limit_bytes: 16384 }), "{why:?}");
    let copy = map(&space, &object, 8 * PAGE, 4 * PAGE, Sharing::Copy);
    check_sample(8 * PAGE..12 * PAGE, &read(&space, copy.start, 4 * PAGE), "the copy");
    // It is of another object: one that does not call the pager.
    assert_eq!(space.id_of(&object), None);
}

/// A pager that promises nothing.
struct Changing(&'static [u8]);

impl BlockingPager for Changing {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn supply(&self, range: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        buffer.copy_from_slice(&self.0[range.start as usize..range.end as usize]);
        Ok(buffer.len())
    }
}

#[test]
fn what_never_changes_is_its_own_copy() {
    let cache = cache(MIB);
    let object = object(&cache, pagers::Bytes::new(sample_bytes(MIB)));
    let space = Space::new(SpaceOptions::new().copy_bytes(0)).unwrap();
    let copy = map(&space, &object, 0, MIB, Sharing::Copy);
    assert!(space.id_of(&object).is_some());
    assert_eq!(copy.attributes.sharing, Sharing::Copy);
    check_sample(0..MIB, &read(&space, copy.start, MIB), "the copy");
}

#[test]
fn what_cannot_be_copied_at_one_instant_is_refused() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let space = space();
    let writable = lendable().writing(Writing::InPlace);
    let why = refusal(&space, &cache.open_file(sample.path(), writable).unwrap(), PAGE);
    assert!(matches!(why, NoCopy::Writable), "{why:?}");
    let broken = pagers::Faulty::failing(Changing(sample_bytes(MIB)), 0..1);
    let why = refusal(&space, &object(&cache, broken), PAGE);
    let NoCopy::Read(error) = why else { panic!("{why:?}") };
    assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Io);
}

/// Where there are reflinks nothing is copied, and so nothing is too long.
#[test]
fn a_reflink_is_used_where_there_is_one() {
    let sample = Sample::new(MIB);
    if let Err(error) = memobj_linux::file::clone_unnamed(sample.file()) {
        return println!("skipped: no reflinks beside the test: {error}");
    }
    let cache = cache(MIB / 8);
    let object = cache.open_file(sample.path(), lendable()).unwrap();
    let space = Space::new(SpaceOptions::new().copy_bytes(0)).unwrap();
    let copy = map(&space, &object, 0, MIB, Sharing::Copy);
    sample.file().write_all_at(&[0xee; 65536], 0).unwrap();
    check_sample(0..MIB, &read(&space, copy.start, MIB), "the clone");
}
