//! Mappings read and written at a position, as files are.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

use memobj::pagers::{Bytes, Faulty, Inject, Injection};
use memobj::{MapOptions, ObjectOptions};
use memobj_sim::fixture::{MIB, Sample, cache, sample_bytes};
use memobj_sim::writable_fixture::writable;

const PAGE: u64 = 4096;

#[test]
fn a_reader_reads_what_is_mapped_from_its_position_on() {
    let sample = Sample::new(MIB);
    let object = cache(MIB / 2).open_file(sample.path(), ObjectOptions::default()).unwrap();
    let mapping = object.map(PAGE.., MapOptions::default()).unwrap();
    let known = &sample_bytes(MIB)[PAGE as usize..];
    let mut reader = mapping.reader();
    let mut bytes = Vec::new();
    assert_eq!(reader.read_to_end(&mut bytes).unwrap() as u64, MIB - PAGE);
    assert!(bytes == known);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);

    assert_eq!(reader.seek(SeekFrom::End(-10)).unwrap(), mapping.len() - 10);
    let mut last = [0; 16];
    assert_eq!(reader.read(&mut last).unwrap(), 10);
    assert_eq!(last[..10], known[known.len() - 10..]);
    reader.seek(SeekFrom::Start(77)).unwrap();
    assert_eq!(reader.seek(SeekFrom::Current(-7)).unwrap(), 70);
    let mut some = [0; 5];
    reader.clone().read_exact(&mut some).unwrap();
    assert_eq!(some, known[70..75]);
    assert_eq!(reader.stream_position().unwrap(), 70, "a clone has a position of its own");
    assert_eq!(reader.seek(SeekFrom::Current(-71)).unwrap_err().kind(), ErrorKind::InvalidInput);
    reader.seek(SeekFrom::Start(u64::MAX)).unwrap();
    assert_eq!(reader.read(&mut some).unwrap(), 0);
}

#[test]
fn a_reader_reads_up_to_a_page_that_fails_and_goes_on_after_a_retry() {
    let broken = Injection::new(2 * PAGE..3 * PAGE, Inject::Error).times(1);
    let pager = Faulty::new(Bytes::new(vec![7; 4 * PAGE as usize]), vec![broken], 0);
    let object = cache(MIB).object("broken", pager, ObjectOptions::default()).unwrap();
    let mapping = object.map(100.., MapOptions::default()).unwrap();
    let mut reader = mapping.reader();
    let mut bytes = Vec::new();
    let error = reader.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(bytes.len() as u64, 2 * PAGE - 100);
    assert_eq!(error.to_string(), "supply [8192, 12288) of broken: input/output error");
    mapping.retry(..).unwrap();
    reader.read_to_end(&mut bytes).unwrap();
    assert!(bytes == vec![7; 4 * PAGE as usize - 100]);
}

#[test]
fn a_writer_writes_to_the_end_and_no_further() {
    let sample = Sample::new(MIB);
    let object = cache(MIB / 2).open_file(sample.path(), writable()).unwrap();
    let mapping = object.map_all(MapOptions::default()).unwrap();
    let mut writer = mapping.writer();
    io::copy(&mut io::repeat(3).take(MIB), &mut writer).unwrap();
    assert_eq!(writer.write(b"more").unwrap(), 0);
    assert_eq!(writer.write_all(b"more").unwrap_err().kind(), ErrorKind::WriteZero);
    object.set_len(MIB + 2).unwrap();
    assert_eq!(writer.write(b"more").unwrap(), 2, "there is room for two bytes by now");
    writer.seek(SeekFrom::Start(5)).unwrap();
    writer.write_all(b"five").unwrap();
    writer.flush().unwrap();
    mapping.sync(..).unwrap();
    let file = std::fs::read(sample.path()).unwrap();
    assert_eq!(file[..12], [3, 3, 3, 3, 3, b'f', b'i', b'v', b'e', 3, 3, 3]);
    assert_eq!(file[MIB as usize - 1..], *b"\x03mo");
}
