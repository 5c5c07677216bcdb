//! Alloc streams: bounded memory, guards that exclude one another, the end of the object, failures.

use memobj::pagers::{Faulty, Inject, Operation};
use memobj::stream::{
    ForReading, ForWriting, Growth, ReadBytes, Stream, StreamError, StreamOptions, WriteBytes,
};
use memobj::{AccessError, Delivery, ErrorKind, MemoryObject, ObjectOptions, WriteStep, Writing};
use memobj_sim::fixture::{MIB, Sample, cache, check_sample, sample_bytes, sample_pager, within};
use memobj_sim::time::passing;
use memobj_sim::writable_fixture::{WritableFixture, writable};
use proptest::prelude::*;

const PAGE: u64 = 4096;

fn fixture(length: u64) -> WritableFixture {
    WritableFixture::new(Delivery::PinOnly, MIB, length, writable())
}

fn stream(object: &MemoryObject) -> Stream {
    let options = StreamOptions::new().delivery(Delivery::PinOnly);
    Stream::with_options(object, options).unwrap()
}

fn fixed(object: &MemoryObject) -> Stream {
    let options = StreamOptions::new().growth(Growth::Fixed).delivery(Delivery::PinOnly);
    Stream::with_options(object, options).unwrap()
}

#[test]
fn a_file_of_eight_budgets_is_summed_within_the_budget() {
    within(60, "the sum", || {
        let sample = Sample::new(8 * MIB);
        let cache = cache(MIB);
        let object = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
        let stream = Stream::open(&object).unwrap();
        let (mut sum, mut length) = (0u64, 0);
        loop {
            let bytes = stream.alloc(ForReading, 50_000).unwrap();
            if bytes.is_empty() {
                break;
            }
            assert_eq!(bytes.offset(), length);
            length += bytes.len() as u64;
            sum += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        let expected = sample_bytes(8 * MIB).iter().map(|byte| u64::from(*byte)).sum::<u64>();
        assert_eq!((length, sum, stream.position()), (8 * MIB, expected, 8 * MIB));
        let metrics = cache.metrics();
        assert!(metrics.peak_frame_bytes <= MIB && metrics.pinned_bytes == 0, "{metrics:?}");
        // Streams that are noticed may be faster than what is asked for.
        let ahead = metrics.prefetched_pages + metrics.read_ahead_pages;
        assert!(ahead > 0, "nothing came ahead: {metrics:?}");
    });
}

#[test]
fn threads_that_share_a_stream_get_each_byte_once() {
    within(60, "the threads", || {
        let cache = cache(MIB);
        let object = cache.object("sample", sample_pager(4 * MIB), ObjectOptions::default()).unwrap();
        let stream = Stream::open(&object).unwrap();
        let read = || {
            let mut length = 0;
            loop {
                let bytes = stream.alloc(ForReading, 10_000).unwrap();
                if bytes.is_empty() {
                    return length;
                }
                check_sample(bytes.offset()..bytes.offset() + bytes.len() as u64, &bytes, "a thread");
                length += bytes.len() as u64;
            }
        };
        let total: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 4 * MIB);
    });
}

#[test]
fn guards_to_write_exclude_and_guards_to_read_overlap() {
    within(60, "the guards", || {
        let (fixture, clock) = WritableFixture::timeless(Delivery::PinOnly, MIB, MIB, writable());
        let stream = stream(&fixture.object);
        let first = stream.alloc_at(ForReading, 100, 5000).unwrap();
        let second = stream.alloc_at(ForReading, 4000, 100).unwrap();
        assert_eq!(first[3900..4000], second[..]);
        let refused = |result: Result<WriteBytes, StreamError>, held| match result.unwrap_err() {
            error @ StreamError::Held { .. } => assert_eq!(error.range(), held, "{error}"),
            error => panic!("{error:?}"),
        };
        refused(stream.alloc_at(ForWriting, 8191, 1), 0..2 * PAGE);
        drop((first, second));
        let mut written = stream.alloc_at(ForWriting, PAGE, 10).unwrap();
        refused(stream.alloc_at(ForWriting, 2 * PAGE - 1, 10), PAGE..2 * PAGE);
        assert!(matches!(stream.alloc_at(ForReading, PAGE + 100, 1), Err(StreamError::Held { .. })));
        assert!(matches!(stream.close(), Err(StreamError::Held { .. })));
        // The next page is free, and another stream waits before it gives up.
        drop(stream.alloc_at(ForWriting, 2 * PAGE, 10).unwrap());
        let other = self::stream(&fixture.object);
        let other = passing(&clock, || other.alloc_at(ForReading, PAGE, 1));
        assert!(matches!(other, Err(StreamError::Access(AccessError::Pinned { .. }))), "{other:?}");
        written.copy_from_slice(&[7; 10]);
        drop(written);
        assert_eq!(self::stream(&fixture.object).alloc_at(ForReading, PAGE, 10).unwrap()[..], [7; 10]);
        stream.close().unwrap();
    });
}

#[test]
fn a_page_that_fails_is_an_error_with_its_range_and_the_position_stays() {
    within(60, "the failure", || {
        let pager = Faulty::failing(sample_pager(MIB), 5 * PAGE..5 * PAGE + 1);
        let object = cache(MIB).object("sample", pager, ObjectOptions::default()).unwrap();
        let stream = stream(&object);
        assert_eq!(stream.alloc(ForReading, 4 * PAGE).unwrap().len() as u64, 4 * PAGE);
        let error = stream.alloc(ForReading, 4 * PAGE).unwrap_err();
        assert!(error.range().contains(&(5 * PAGE)), "{error}: {:?}", error.range());
        assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Io);
        assert_eq!(stream.position(), 4 * PAGE);
        stream.seek(error.range().end);
        let bytes = stream.alloc(ForReading, 100).unwrap();
        check_sample(bytes.offset()..bytes.offset() + 100, &bytes, "behind the failed page");
    });
}

#[test]
fn a_stream_that_is_written_past_the_end_extends_the_file() {
    within(60, "the extension", || {
        let sample = Sample::new(10_000);
        let options = ObjectOptions::new().writing(Writing::InPlace);
        let object = cache(MIB).open_file(sample.path(), options).unwrap();
        let stream = stream(&object);
        stream.seek(9000);
        let mut expected = sample_bytes(9000).to_vec();
        for piece in 0..300u32 {
            let mut bytes = stream.alloc(ForWriting, 10_001).unwrap();
            assert_eq!(bytes.len(), 10_001);
            bytes.fill(piece as u8 | 1);
            expected.extend_from_slice(&bytes);
        }
        // Over a hole, whose bytes are zeros.
        stream.alloc_at(ForWriting, 4_000_000, 3).unwrap().copy_from_slice(b"end");
        expected.resize(4_000_000, 0);
        expected.extend_from_slice(b"end");
        stream.close().unwrap();
        assert!(std::fs::read(sample.path()).unwrap() == expected);
    });
}

#[test]
fn what_cannot_be_pinned_or_is_read_only_extends_nothing() {
    let fixture = fixture(10_000);
    let growing = stream(&fixture.object);
    let error = growing.alloc_at(ForWriting, 0, MIB).unwrap_err();
    assert!(matches!(error, StreamError::Access(AccessError::PinsExceedBudget { .. })), "{error}");
    let tail = growing.alloc_at(ForReading, 9999, 1).unwrap();
    let error = growing.alloc_at(ForWriting, 5 * PAGE, 1).unwrap_err();
    assert!(matches!(error, StreamError::Held { .. }), "growing needs the last page: {error}");
    assert!(growing.alloc(ForWriting, u64::MAX).is_err());
    assert_eq!((fixture.object.len(), growing.position()), (10_000, 0));
    drop(tail);
    fixture.inject(Operation::SetLength, 0..1, Inject::Fail(ErrorKind::NoSpace), Some(1));
    match growing.alloc_at(ForWriting, 5 * PAGE, 1).unwrap_err() {
        StreamError::Write(error) => assert_eq!(error.step(), WriteStep::SetLength),
        error => panic!("{error:?}"),
    }
    assert_eq!(fixture.object.len(), 10_000);
    let fixed = fixed(&fixture.object);
    assert_eq!(fixed.alloc_at(ForWriting, 9990, 100).unwrap().len(), 10);
    assert!(fixed.alloc_at(ForWriting, 10_000, 100).unwrap().is_empty());

    let object = cache(MIB).object("sample", sample_pager(10_000), ObjectOptions::default()).unwrap();
    let error = stream(&object).alloc(ForWriting, 1).unwrap_err();
    assert!(matches!(error, StreamError::Access(AccessError::ReadOnly)), "{error}");
}

#[test]
fn several_streams_that_extend_an_object_cut_nothing_off() {
    within(60, "the appenders", || {
        let fixture = fixture(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let stream = stream(&fixture.object);
                scope.spawn(move || {
                    for step in 0..50 {
                        let offset = (step * 4 + thread) * PAGE;
                        stream.alloc_at(ForWriting, offset, PAGE).unwrap().fill(thread as u8 + 1);
                    }
                });
            }
        });
        let stream = stream(&fixture.object);
        for page in 0..200 {
            let bytes = stream.alloc(ForReading, PAGE).unwrap();
            assert!(bytes.len() as u64 == PAGE && bytes.iter().all(|byte| u64::from(*byte) == page % 4 + 1));
        }
    });
}

#[test]
fn close_reports_a_failed_write_and_can_be_called_again() {
    within(60, "the close", || {
        let fixture = fixture(MIB);
        let stream = stream(&fixture.object);
        stream.alloc(ForWriting, 3 * PAGE).unwrap().fill(9);
        fixture.inject(Operation::WriteBack, PAGE..PAGE + 1, Inject::Error, None);
        match stream.close().unwrap_err() {
            StreamError::Write(error) => {
                assert_eq!((error.kind(), error.step()), (ErrorKind::Io, WriteStep::WriteBack));
                assert!(error.range().contains(&PAGE));
            }
            error => panic!("{error:?}"),
        }
        fixture.pager.heal(Operation::WriteBack);
        stream.close().unwrap();
        assert!(memobj_sim::writable_fixture::is_all(&fixture.disk.durable(), 0..3 * PAGE, 9));
    });
}

#[test]
fn a_stream_and_its_guards_may_go_to_other_threads() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<(Stream, ReadBytes, WriteBytes, StreamError)>();
    let fixture = fixture(MIB);
    let bytes = stream(&fixture.object).alloc(ForReading, 100).unwrap();
    std::thread::spawn(move || check_sample(0..100, &bytes, "after its stream")).join().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Read(u64),
    ReadAt(u64, u64),
    Write(u64, u8),
    WriteAt(u64, u64, u8),
    Seek(u64),
    SetLength(u64),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let (offset, length) = (0..60_000u64, 0..20_000u64);
    prop_oneof![
        4 => length.clone().prop_map(Step::Read),
        4 => (offset.clone(), length.clone()).prop_map(|(offset, length)| Step::ReadAt(offset, length)),
        4 => (length.clone(), any::<u8>()).prop_map(|(length, byte)| Step::Write(length, byte)),
        4 => (offset.clone(), length, any::<u8>()).prop_map(|(at, length, byte)| Step::WriteAt(at, length, byte)),
        2 => offset.clone().prop_map(Step::Seek),
        1 => offset.prop_map(Step::SetLength),
        1 => Just(Step::Close),
    ]
}

/// The stream's bytes as a vector, and its position.
struct Model {
    bytes: Vec<u8>,
    position: usize,
    growth: Growth,
}

impl Model {
    fn read(&self, at: usize, length: u64) -> &[u8] {
        let start = at.min(self.bytes.len());
        &self.bytes[start..(at + length as usize).clamp(start, self.bytes.len())]
    }

    fn write(&mut self, at: usize, length: u64, byte: u8) -> usize {
        let end = at + length as usize;
        if self.growth == Growth::Extend && length > 0 && end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        let (start, end) = (at.min(self.bytes.len()), end.min(self.bytes.len()));
        self.bytes[start..end.max(start)].fill(byte);
        end.max(start) - start
    }
}

fn run(stream: &Stream, model: &mut Model, step: &Step) {
    match *step {
        Step::Read(length) => {
            let bytes = stream.alloc(ForReading, length).unwrap();
            assert!(bytes[..] == *model.read(model.position, length), "{step:?}");
            model.position += bytes.len();
        }
        Step::ReadAt(at, length) => {
            let bytes = stream.alloc_at(ForReading, at, length).unwrap();
            assert!(bytes[..] == *model.read(at as usize, length), "{step:?}");
        }
        Step::Write(length, byte) => {
            let mut bytes = stream.alloc(ForWriting, length).unwrap();
            assert!(bytes[..].starts_with(model.read(model.position, length)), "{step:?}");
            bytes.fill(byte);
            assert_eq!(model.write(model.position, length, byte), bytes.len(), "{step:?}");
            model.position += bytes.len();
        }
        Step::WriteAt(at, length, byte) => {
            let mut bytes = stream.alloc_at(ForWriting, at, length).unwrap();
            bytes.fill(byte);
            assert_eq!(model.write(at as usize, length, byte), bytes.len(), "{step:?}");
        }
        Step::Seek(to) => {
            stream.seek(to);
            model.position = to as usize;
        }
        Step::SetLength(length) => {
            stream.object().set_len(length).unwrap();
            model.bytes.resize(length as usize, 0);
        }
        Step::Close => stream.close().unwrap(),
    }
    assert_eq!((stream.position(), stream.object().len()), (model.position as u64, model.bytes.len() as u64));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_stream_is_a_vector_with_a_position(
        start in 0..40_000u64,
        grows in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let cache = cache(256 << 10);
        let fixture = WritableFixture::in_cache(&cache, Delivery::PinOnly, start, writable());
        let growth = if grows { Growth::Extend } else { Growth::Fixed };
        let stream = if grows { stream(&fixture.object) } else { fixed(&fixture.object) };
        let mut model = Model { bytes: sample_bytes(start).to_vec(), position: 0, growth };
        for step in &steps {
            run(&stream, &mut model, step);
        }
        stream.close().unwrap();
        prop_assert!(fixture.disk.durable() == model.bytes);
        prop_assert!(cache.metrics().peak_frame_bytes <= 256 << 10);
    }
}
