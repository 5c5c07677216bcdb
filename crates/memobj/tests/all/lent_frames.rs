//! Frames lent to others. Mapped for real by `memobj-run`; here what the lender promises.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use memobj::pagers::{Faulty, Inject, Injection};
use memobj::{ErrorKind, FrameSize, FrameVisibility, MapError, ObjectOptions, pagers};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes};

fn lendable() -> ObjectOptions {
    ObjectOptions::new().visibility(FrameVisibility::Shared).frames(FrameSize::Small)
}

/// The bytes of a page of the lent file, and whether it has a frame.
fn peek(lent: &memobj::LentFrames, offset: u64) -> Option<Vec<u8>> {
    let file = std::fs::File::from(lent.file().try_clone_to_owned().unwrap());
    // Reading a hole would make a page of zeros.
    lent.is_resident(offset).then(|| {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    })
}

#[test]
fn resolved_pages_are_in_the_file_and_evicted_ones_are_holes() {
    let sample = Sample::new(MIB + 100);
    let expected = sample_bytes(MIB + 100);
    let cache = cache(MIB / 4);
    let lent = cache.open_file(sample.path(), lendable()).unwrap().lend_frames().unwrap();
    assert_eq!(lent.len(), MIB + 100);
    for offset in (0..MIB + 100).step_by(4096) {
        lent.resolve(offset, offset & !0xffff..(offset & !0xffff) + 0x1_0000).unwrap();
        let mut page = expected[offset as usize..(offset as usize + 4096).min(expected.len())].to_vec();
        page.resize(4096, 0);
        assert_eq!(peek(&lent, offset).as_deref(), Some(&page[..]), "at {offset}");
        assert!(lent.resident_bytes() <= MIB / 4);
    }
    let blocks = blocks_of(&lent);
    assert!(blocks * 512 <= MIB / 4, "{blocks} blocks");
    assert!(cache.metrics().peak_frame_bytes <= MIB / 4);
}

fn blocks_of(lent: &memobj::LentFrames) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::File::from(lent.file().try_clone_to_owned().unwrap()).metadata().unwrap().blocks()
}

#[test]
fn failures_are_told_and_can_be_retried() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let fault = Injection::new(8192..12288, Inject::Error).times(1);
    let pager = Faulty::new(pagers::File::open(sample.path()).unwrap(), vec![fault], 1);
    let lent = cache.object("sample", pager, lendable()).unwrap().lend_frames().unwrap();
    // The error is one of the page beside it.
    lent.resolve(4096, 4096..8192).unwrap();
    let error = lent.resolve(8192, 8192..12288).unwrap_err();
    assert_eq!((error.kind(), error.range().clone()), (ErrorKind::Io, 8192..12288));
    assert_eq!(lent.retry(0..MIB), 1);
    lent.resolve(8192, 8192..12288).unwrap();
    assert_eq!(peek(&lent, 8192).unwrap(), &sample_bytes(MIB)[8192..12288]);
}

#[test]
fn what_cannot_be_lent_is_refused_and_the_file_cannot_be_written() {
    let sample = Sample::new(MIB);
    let cache = cache(MIB);
    let local = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
    assert!(matches!(local.lend_frames(), Err(MapError::Unsupported { .. })));
    let lent = cache.open_file(sample.path(), lendable()).unwrap().lend_frames().unwrap();
    lent.resolve(0, 0..1).unwrap();
    let file = std::fs::File::from(lent.file().as_fd().try_clone_to_owned().unwrap());
    assert!(file.write_at(b"no", 0).is_err());
}
