//! What `{:?}` prints of each public type is one line that a log can bear.

use std::fmt::Debug;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use memobj::pagers::{Bytes, Faulty, File, Inject, Injection, Pager, Zero};
use memobj::space::{Prot, SegmentRequest, SegmentSource, Space, SpaceOptions};
use memobj::stream::{ForReading, ForWriting, Stream};
use memobj::{
    AdmitOptions, CacheOptions, Delivery, FrameSize, FrameVisibility, MapOptions, ObjectOptions,
    RemoteMapping, Sharing, Writing,
};
use memobj_sim::fixture::{MIB, Sample, cache, within};
use memobj_sim::writable_fixture::mapped;

const MOST: usize = 240;

fn is_short(what: &str, value: &dyn Debug) {
    let text = format!("{value:?}");
    assert!(text.len() <= MOST && !text.contains('\n'), "{what}: {} characters: {text}", text.len());
}

#[test]
fn handles_and_guards_are_one_line() {
    within(60, "handles", || {
        let sample = Sample::new(4 * MIB);
        let cache = cache(MIB);
        let options = ObjectOptions::new().writing(Writing::InPlace).visibility(FrameVisibility::Shared);
        let object = cache.open_file(sample.path(), options).unwrap();
        let mapping = object.map(0..4 * MIB, mapped(Delivery::ReaderThread)).unwrap();
        is_short("cache", &cache);
        is_short("object", &object);
        is_short("mapping", &mapping);
        is_short("pinned", &mapping.pin(0..MIB / 2).unwrap());
        is_short("pins", &mapping.pin_ranges(&[0..1, 8192..8193]).unwrap());
        is_short("pinned mut", &mapping.pin_mut(0..MIB / 8).unwrap());
        is_short("shared words", &mapping.shared_words().unwrap());
        is_short("events", &cache.events());
        let stream = Stream::open(&object).unwrap();
        is_short("stream", &stream);
        is_short("read bytes", &stream.alloc_at(ForReading, 0, 10_000).unwrap());
        is_short("write bytes", &stream.alloc_at(ForWriting, 0, 10_000).unwrap());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let limit = Duration::from_secs(20);
        let attaching = std::thread::spawn(move || RemoteMapping::attach(theirs, limit).unwrap());
        let guest = object.admit(ours, AdmitOptions::default()).unwrap();
        let remote = attaching.join().unwrap();
        is_short("guest", &guest);
        is_short("remote mapping", &remote);
        is_short("remote words", &remote.shared_words().unwrap());
        drop((guest, remote));
        let private = MapOptions::new().sharing(Sharing::Private);
        is_short("private mapping", &object.map(0..MIB, private).unwrap());
    });
}

#[test]
fn lent_frames_and_spaces_are_one_line() {
    let sample = Sample::new(4 * MIB);
    let cache = cache(MIB);
    let lendable = ObjectOptions::new().visibility(FrameVisibility::Shared).frames(FrameSize::Small);
    let object = cache.open_file(sample.path(), lendable).unwrap();
    is_short("lent frames", &object.lend_frames().unwrap());
    let mapping = object.map(0..4 * MIB, mapped(Delivery::ReaderThread)).unwrap();
    is_short("words", &mapping.words().unwrap());
    let space = Space::new(SpaceOptions::default()).unwrap();
    let request = SegmentRequest::new(
        MIB,
        SegmentSource::Object { object: &object, offset: 0 },
        Prot::READ,
        memobj::space::Sharing::Private,
    );
    let segment = format!("{:?}", space.map(&request).unwrap());
    assert!(segment.len() < 2 * MOST && !segment.contains('\n'), "{segment}");
    is_short("space", &space);
    is_short("space options", &SpaceOptions::default());
    is_short("source of a segment", &request.source);
    let program = std::fs::File::open("/proc/self/exe").unwrap();
    is_short("image", &memobj::image::map_image(&program, &Default::default()).unwrap());
}

#[test]
fn options_pagers_and_errors_are_one_line() {
    let sample = Sample::new(MIB);
    is_short("cache options", &CacheOptions::default());
    is_short("object options", &ObjectOptions::default());
    is_short("map options", &MapOptions::default());
    is_short("admit options", &AdmitOptions::default());
    let (bytes, file) = (Bytes::new(vec![7; 100_000]), File::open(sample.path()).unwrap());
    is_short("bytes", &bytes);
    is_short("what bytes say of themselves", &bytes.describe());
    is_short("what a file says of itself", &file.describe());
    is_short("file", &file);
    is_short("zero", &Zero::new(5));
    let plan = (0..1000).map(|at| Injection::new(at..at + 1, Inject::Error));
    is_short("faulty", &Faulty::new(bytes, plan.collect(), 1));
    let cache = cache(MIB);
    let broken = Faulty::failing(Zero::new(4096), 0..4096);
    let object = cache.object("broken", broken, ObjectOptions::default()).unwrap();
    let mapping = object.map(0..4096, MapOptions::default()).unwrap();
    is_short("access error", &mapping.pin(0..4096).unwrap_err());
    is_short("event", &cache.events().next_within(Duration::from_secs(20)).unwrap());
    is_short("write error", &object.commit().unwrap_err());
    let numbers = format!("{:?}", cache.metrics());
    assert!(numbers.len() < 1000 && !numbers.contains('\n'), "{numbers}");
}
