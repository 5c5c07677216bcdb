//! Requests that are out of all proportion, and neighbours that behave badly.

use std::fs::FileTimes;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use memobj::pagers::{Bytes, Faulty, Inject, Injection, Zero};
use memobj::{
    AccessError, Cache, CacheOptions, ErrorKind, FailurePolicy, FrameSize, MapOptions, ObjectOptions,
};
use memobj_sim::fixture::{MIB, Sample, cache, check_sample, folder, sample_byte, sample_pager};
use memobj_sim::time::{passing, timeless};

#[test]
fn a_sum_with_an_absurd_step_stays_inside_the_words() {
    let bytes: Vec<u8> = (0..4096).map(sample_byte).collect();
    let object = cache(MIB).object("bytes", Bytes::new(bytes.clone()), ObjectOptions::default()).unwrap();
    let mapping = object.map(0..4096, MapOptions::default()).unwrap();
    let words = mapping.words().unwrap();
    let word = |index: usize| u64::from_le_bytes(bytes[8 * index..8 * index + 8].try_into().unwrap());
    for step in [u64::MAX, u64::MAX / 3 + 1, 1 << 63, 512] {
        assert_eq!(words.sum(3..10, step), word(3), "step {step}");
    }
    assert_eq!(words.sum(3..10, 5), word(3).wrapping_add(word(8)));
    assert_eq!(words.sum(10..10, 0), 0);
}

#[test]
fn a_changed_file_whose_modification_time_was_set_back_is_stale() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let options = ObjectOptions::new().frames(FrameSize::Small);
    let object = cache.open_file(sample.path(), options).unwrap();
    let mapping = object.map(0..MIB, MapOptions::default()).unwrap();
    drop(mapping.pin(0..4096).unwrap());
    let modified = sample.file().metadata().unwrap().modified().unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(sample.path()).unwrap();
    file.seek(SeekFrom::Start(8192)).unwrap();
    file.write_all(&[0; 4096]).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    let error = mapping.pin(8192..12288).unwrap_err();
    assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Stale);
    check_sample(0..4096, &mapping.pin(0..4096).unwrap(), "a page of before");
}

#[test]
fn a_file_that_is_removed_while_mapped_stays_readable() {
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let path = folder.path().join("removed");
    std::fs::write(&path, (0..MIB).map(sample_byte).collect::<Vec<u8>>()).unwrap();
    let cache = cache(MIB);
    let object = cache.open_file(&path, ObjectOptions::default()).unwrap();
    let mapping = object.map(0..MIB, MapOptions::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let pinned = mapping.pin(0..MIB / 2).unwrap();
    check_sample(0..MIB / 2, &pinned, "removed file");
}

#[test]
fn many_calls_that_hang_without_a_deadline_do_not_block_others() {
    for frames in [FrameSize::Small, FrameSize::Large] {
        let (cache, clock) = timeless(32 * MIB);
        let page = if frames == FrameSize::Small { 4096 } else { 2 * MIB };
        let plan = vec![Injection::new(0..64 * page, Inject::Hang)];
        let options = ObjectOptions::new().frames(frames).policy(FailurePolicy::WaitForEver);
        let hanging = cache.object("hanging", Faulty::new(Zero::new(64 * page), plan, 0), options).unwrap();
        let stuck = hanging.map(0..64 * page, MapOptions::default()).unwrap();
        let prefetches: Vec<_> = (0..64).map(|index| index * page..(index + 1) * page).collect();
        stuck.prefetch(&prefetches).unwrap();
        let options = ObjectOptions::new().frames(frames).supply_timeout(None);
        let other = cache.object("other", Faulty::new(sample_pager(3 * page), vec![], 0), options).unwrap();
        let mapping = other.map(0..3 * page, MapOptions::default()).unwrap();
        // Calls that hang count as lost once they have lasted for two seconds.
        let pinned = passing(&clock, || mapping.pin(0..3 * page));
        check_sample(0..3 * page, &pinned.unwrap(), "beside a pager that hangs");
        assert!(cache.metrics().peak_frame_bytes <= 4 * page, "calls that hang hold frames: {frames:?}");
    }
}

#[test]
fn absurd_options_are_taken_in_their_stride() {
    let options = CacheOptions::new().workers(usize::MAX).event_capacity(usize::MAX);
    let cache = Cache::new(options).unwrap();
    let faulty = Faulty::failing(Zero::new(8192), 0..4096);
    let object = cache.object("zeros", faulty, ObjectOptions::default()).unwrap();
    let mapping = object.map(0..8192, MapOptions::default()).unwrap();
    assert!(mapping.pin(0..4096).is_err());
    assert!(mapping.pin(4096..8192).is_ok());
}

#[test]
fn pins_together_larger_than_the_budget_are_refused_before_anything_is_read() {
    let cache = cache(MIB);
    let options = ObjectOptions::new().frames(FrameSize::Small);
    let object = cache.object("zeros", Zero::new(1 << 40), options).unwrap();
    let mapping = object.map(0..1 << 40, MapOptions::default()).unwrap();
    let error = mapping.pin_ranges(&[0..1 << 39, 1 << 39..1 << 40]).unwrap_err();
    assert!(matches!(error, AccessError::PinsExceedBudget { wanted_bytes, .. } if wanted_bytes == 1 << 40));
    assert_eq!(cache.metrics().read_bytes, 0);
    // The same pages over and over are one set of pages.
    let pins = mapping.pin_ranges(&vec![4096..8192 + 1; 1000]).unwrap();
    assert_eq!(cache.metrics().pinned_bytes, 8192);
    drop(pins);
}

#[test]
fn a_prefetch_of_a_terabyte_does_not_block_a_fault() {
    let cache = cache(MIB);
    let options = ObjectOptions::new().frames(FrameSize::Small);
    let slow = vec![Injection::new(0..1 << 40, Inject::Delay(Duration::from_millis(5)))];
    let object = cache.object("slow", Faulty::new(Zero::new(1 << 40), slow, 0), options.clone()).unwrap();
    let wished = object.map(0..1 << 40, MapOptions::default()).unwrap();
    wished.prefetch(std::slice::from_ref(&(0..1 << 40))).unwrap();
    let object = cache.object("sample", Faulty::new(sample_pager(MIB / 2), vec![], 0), options).unwrap();
    let mapping = object.map(0..MIB / 2, MapOptions::default()).unwrap();
    // All of the prefetch would take days: what ends has not waited for it.
    let mut buffer = vec![0; 65536];
    mapping.touch_at(0, &mut buffer).unwrap();
    check_sample(0..65536, &buffer, "beside a large request");
}
