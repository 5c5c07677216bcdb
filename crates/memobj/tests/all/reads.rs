//! The same bytes, however they are reached.

use memobj::{Advice, Delivery, FrameSize, FrameVisibility, MapOptions, ObjectOptions, pagers};
use memobj_sim::fixture::{MIB, Sample, all_ways, cache, has_large_shared_frames, sample_byte};

#[test]
fn every_way_of_access_reads_the_file_under_a_small_budget() {
    let sample = Sample::new(10 * MIB + 1234);
    for (label, object_options, map_options) in all_ways() {
        let large = object_options.frames == FrameSize::Large;
        let budget = if large { 32 * MIB } else { MIB };
        let cache = cache(budget);
        let object = cache.open_file(sample.path(), object_options).unwrap();
        let mapping = object.map(0..object.len(), map_options).unwrap();
        for step in [4096u64 + 17, 300_000] {
            let mut buffer = vec![0u8; step as usize];
            let mut at = 0;
            while at < object.len() {
                let part = at..(at + step).min(object.len());
                let buffer = &mut buffer[..(part.end - part.start) as usize];
                mapping.touch_at(at, buffer).unwrap();
                sample.check(part.clone(), buffer, &format!("touch {label}"));
                buffer.fill(0xee);
                mapping.read_at(at, buffer).unwrap();
                sample.check(part.clone(), buffer, &format!("copy {label}"));
                let pinned = mapping.pin(part.clone()).unwrap();
                sample.check(part.clone(), &pinned, &format!("pin {label}"));
                at = part.end;
            }
        }
        let metrics = cache.metrics();
        assert!(metrics.peak_frame_bytes <= budget, "{label}: {metrics:?}");
        assert!(metrics.supplied_pages > 0 && metrics.faults > 0, "{label}: {metrics:?}");
        assert_eq!(metrics.pinned_bytes, 0);
        drop((mapping, object));
        assert_eq!(large as u64 * cache.metrics().frame_bytes % (2 * MIB), 0);
        if !large {
            assert_eq!(cache.metrics().frame_bytes, 0, "{label}");
        }
    }
}

#[test]
fn mappings_of_parts_start_at_their_offset() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let object = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
    // UMap ignores the offset of a mapping; here each sees its own part.
    for start in [0u64, 1, 4095, 4096, 70_000] {
        let mapping = object.map(start..start + 10_000, MapOptions::default()).unwrap();
        let pinned = mapping.pin(5..9_000).unwrap();
        sample.check(start + 5..start + 9_000, &pinned, "pin of a part");
        let mut copied = vec![0; 3];
        mapping.read_at(9_997, &mut copied).unwrap();
        sample.check(start + 9_997..start + 10_000, &copied, "copy of a part");
        assert!(mapping.pin(9_999..10_001).is_err());
        assert!(mapping.read_at(u64::MAX, &mut copied).is_err());
    }
}

#[test]
fn two_mappings_of_one_object_share_frames() {
    let sample = Sample::new(4 * MIB);
    let large = has_large_shared_frames().then_some((FrameVisibility::Shared, FrameSize::Large));
    let small = [(FrameVisibility::Local, FrameSize::Small), (FrameVisibility::Shared, FrameSize::Small)];
    for (visibility, frames) in small.into_iter().chain(large) {
        let cache = cache(32 * MIB);
        let options = ObjectOptions::new().visibility(visibility).frames(frames);
        let object = cache.open_file(sample.path(), options).unwrap();
        let in_thread = MapOptions::new().delivery(Delivery::InThread);
        let first = object.map(0..4 * MIB, in_thread).unwrap();
        first.populate(0..4 * MIB).unwrap();
        let supplied = cache.metrics().supplied_pages;
        assert_eq!(supplied, 4 * MIB / first.page_bytes());
        let delivery =
            if visibility == FrameVisibility::Shared { Delivery::ReaderThread } else { Delivery::InThread };
        let second = object.map(4096..4 * MIB, MapOptions::new().delivery(delivery)).unwrap();
        let mut buffer = vec![0; (4 * MIB - 4096) as usize];
        second.touch_at(0, &mut buffer).unwrap();
        sample.check(4096..4 * MIB, &buffer, "second mapping");
        assert_eq!(cache.metrics().supplied_pages, supplied, "{visibility:?}: pages were supplied twice");
        let other = object.map(0..MIB, MapOptions::new().delivery(Delivery::ReaderThread));
        assert_eq!(other.is_err(), visibility == FrameVisibility::Local);
    }
}

#[test]
fn prefetched_and_advised_ranges_arrive() {
    let sample = Sample::new(8 * MIB);
    for frames in [FrameSize::Small, FrameSize::Large] {
        let cache = cache(32 * MIB);
        let options = ObjectOptions::new().frames(frames);
        let object = cache.open_file(sample.path(), options).unwrap();
        let mapping = object.map(0..8 * MIB, MapOptions::default()).unwrap();
        let ranges: Vec<_> = (0..64).map(|index| index * 131_072..index * 131_072 + 4096).collect();
        mapping.prefetch(&ranges).unwrap();
        // A pin waits for what the prefetch has begun, and nothing is read twice.
        let pins = mapping.pin_ranges(&ranges).unwrap();
        for (range, pinned) in ranges.iter().zip(&pins) {
            sample.check(range.clone(), pinned, "prefetched");
        }
        let expected = if frames == FrameSize::Small { 64 } else { 4 };
        assert_eq!(cache.metrics().supplied_pages, expected, "{frames:?}");
        drop(pins);
        mapping.advise(0..8 * MIB, Advice::DontNeed).unwrap();
        assert_eq!(cache.metrics().evicted_pages, expected);
    }
}

#[test]
fn advice_of_sequence_reads_ahead() {
    let sample = Sample::new(8 * MIB);
    for frames in [FrameSize::Small, FrameSize::Large] {
        let cache = cache(32 * MIB);
        let options = ObjectOptions::new().frames(frames);
        let object = cache.open_file(sample.path(), options).unwrap();
        let mapping = object.map(0..8 * MIB, MapOptions::default()).unwrap();
        mapping.advise(0..8 * MIB, Advice::Sequential).unwrap();
        let mut buffer = vec![0; 8 << 20];
        mapping.touch_at(0, &mut buffer).unwrap();
        sample.check(0..8 * MIB, &buffer, "sequential");
        assert!(cache.metrics().read_ahead_pages > 0, "{frames:?}: {:?}", cache.metrics());
    }
}

#[test]
fn memory_and_zero_objects_read_right_in_both_frame_sizes() {
    let bytes: Vec<u8> = (0..3 * MIB + 77).map(sample_byte).collect();
    for (label, object_options, map_options) in all_ways() {
        let cache = cache(32 * MIB);
        let object =
            cache.object("bytes", pagers::Bytes::new(bytes.clone()), object_options.clone()).unwrap();
        let mapping = object.map(0..object.len(), map_options).unwrap();
        let mut buffer = vec![0; bytes.len()];
        mapping.touch_at(0, &mut buffer).unwrap();
        assert!(buffer == bytes, "touch {label}");
        assert!(*mapping.pin(0..object.len()).unwrap() == bytes[..], "pin {label}");
        let zeros = cache.object("zeros", pagers::Zero::new(5 * MIB + 1), object_options).unwrap();
        let mapping = zeros.map(0..zeros.len(), map_options).unwrap();
        let mut buffer = vec![1; zeros.len() as usize];
        mapping.touch_at(0, &mut buffer).unwrap();
        assert!(buffer.iter().all(|byte| *byte == 0), "{label}");
    }
}

/// Nobody said anything of this object, or that accesses are random: each look costs its page.
#[test]
fn random_looks_at_a_large_object_read_a_page_each() {
    const LOOKS: u64 = 300;
    let large = tempfile::tempfile_in(memobj_sim::fixture::folder()).unwrap();
    large.set_len(256 * MIB).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&large));
    for advice in [Advice::Normal, Advice::Random] {
        for delivery in [Delivery::ReaderThread, Delivery::InThread, Delivery::PinOnly] {
            let cache = cache(32 * MIB);
            let object = cache.open_file(&path, ObjectOptions::new().advice(advice)).unwrap();
            let mapping = object.map(0..object.len(), MapOptions::new().delivery(delivery)).unwrap();
            let mut random = memobj_sim::Random::new(7);
            for _ in 0..LOOKS {
                let at = random.below(object.len() - 8);
                match delivery {
                    Delivery::PinOnly => mapping.read_at(at, &mut [0; 8]).unwrap(),
                    _ => mapping.touch_at(at, &mut [0; 8]).unwrap(),
                }
            }
            // A look can lie in two pages.
            let read = cache.metrics().read_bytes;
            assert!(read <= (LOOKS + 10) * 4096, "{advice:?} {delivery:?}: {read} bytes for {LOOKS} looks");
        }
    }
}

#[test]
fn what_was_said_when_an_object_was_opened_holds_until_something_else_is_said() {
    let sample = Sample::new(24 * MIB);
    let read = |advice, then: Option<Advice>| {
        let cache = cache(32 * MIB);
        let object = cache.open_file(sample.path(), ObjectOptions::new().advice(advice)).unwrap();
        let map = || object.map(0..object.len(), MapOptions::default()).unwrap();
        let mut mapping = map();
        if let Some(then) = then {
            mapping.advise(0..object.len(), then).unwrap();
            drop(mapping);
            mapping = map();
        }
        let mut buffer = vec![0; 4 << 20];
        mapping.touch_at(0, &mut buffer).unwrap();
        sample.check(0..4 * MIB, &buffer, "in order");
        (mapping.page_bytes(), cache.metrics().read_ahead_pages > 0)
    };
    assert_eq!(read(Advice::Normal, None), (4096, true));
    assert_eq!(read(Advice::Random, None), (4096, false));
    assert_eq!(read(Advice::Sequential, Some(Advice::Random)).0, 4096);
    let has_large = memobj::doctor::report()
        .iter()
        .any(|found| found.name == "2 MiB frames" && found.status == memobj::doctor::Status::Available);
    if has_large {
        assert_eq!(read(Advice::Sequential, None), (2 * MIB, true));
        assert_eq!(read(Advice::Normal, Some(Advice::Sequential)).0, 2 * MIB);
    } else {
        println!("skipped: 2 MiB frames are not to be had");
    }
}
