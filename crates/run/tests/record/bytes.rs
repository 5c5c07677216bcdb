use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use memobj_run::record::{Record, RecordError};

use crate::check::{check_bytes, check_input, sealed};
use crate::from_history::history;

fn small() -> Record {
    let touches = [(0, 5), (0, 6), (1, 7), (0, 599)];
    let mut history = history(&["/a", "b"], &touches);
    history.files[1].path = OsStr::from_bytes(b"/not utf-8 \xff\n").into();
    history.files[1].modified = (-3, 999_999_999);
    Record::from_history(&history)
}

fn bytes(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.write(&mut bytes).expect("a vector takes all bytes");
    bytes
}

/// The document to the byte: who changes the format changes this, and the version.
#[test]
fn the_format_is_the_documented_one() {
    let mut expected: Vec<u8> = Vec::new();
    expected.extend(b"memobjRR");
    expected.extend([1, 0, 0, 0, 2, 0, 0, 0]);
    expected.extend([3, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend((32_u64 + 28 + 2 + 28 + 13 + 3 * 16 + 8).to_le_bytes());
    expected.extend((600_u64 * 4096 - 5).to_le_bytes());
    expected.extend([7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    expected.extend(b"/a");
    expected.extend((600_u64 * 4096 - 5).to_le_bytes());
    expected.extend((-3_i64).to_le_bytes());
    expected.extend(999_999_999_u64.to_le_bytes());
    expected.extend([13, 0, 0, 0]);
    expected.extend(b"/not utf-8 \xff\n");
    expected.extend([0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0, 0, 0, 0, 1, 0, 0, 0, 0x57, 2, 0, 0, 0, 0, 0, 0]);
    expected.extend(twox_hash::XxHash3_64::oneshot(&expected).to_le_bytes());
    assert_eq!(bytes(&small()), expected);
}

#[test]
fn what_was_written_is_read() {
    for record in [small(), Record::default()] {
        assert_eq!(check_bytes(&bytes(&record)).expect("a record"), record);
    }
}

#[test]
fn any_changed_bit_and_any_other_length_is_noticed() {
    let right = bytes(&small());
    for bit in 0..right.len() * 8 {
        let mut wrong = right.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(Record::read(&wrong[..]).is_err(), "bit {bit}");
    }
    for length in 0..right.len() {
        assert!(Record::read(&right[..length]).is_err(), "{length} bytes");
    }
    assert!(matches!(
        Record::read(&[&right[..], b"x"].concat()[..]),
        Err(RecordError::Length { expected_bytes, found_bytes }) if expected_bytes + 1 == found_bytes
    ));
}

#[test]
fn errors_say_what_is_wrong() {
    let told = |bytes: &[u8]| Record::read(bytes).expect_err("no record").to_string();
    assert_eq!(told(b""), "not a record of a run");
    assert_eq!(told(b"\x7fELF and so on"), "not a record of a run");
    assert_eq!(told(b"memobjRR\x02\0\0\0"), "a record of version 2, which is not known");
    assert_eq!(told(b"memobjRR\x01\0\0\0"), "a record of 32 bytes, of which 12 are there");
    let mut damaged = bytes(&small());
    damaged[40] ^= 1;
    assert_eq!(told(&damaged), "the record is damaged: its checksum is another one");
}

/// Right in all but one field, checksum included.
#[test]
fn every_field_is_checked() {
    let right = bytes(&small());
    let body = &right[..right.len() - 8];
    assert!(Record::read(&sealed(body.to_vec())[..]).is_ok());
    let runs = 32 + 28 + 2 + 28 + 13;
    for (at, field, what) in [
        (12, &[3][..], "one file more"),
        (12, &[1], "one file less"),
        (16, &[4], "one run more"),
        (16, &[2], "one run less"),
        (12, &[255; 4], "four billion files"),
        (16, &[255; 8], "runs beyond counting"),
        (32 + 7, &[0x80], "a file of 2^63 bytes"),
        (32 + 16, &[0, 0xca, 0x9a, 0x3b], "a nanosecond too much"),
        (32 + 23, &[0x80], "nanoseconds below zero"),
        (32 + 24, &[0], "no path"),
        (32 + 24, &[255; 4], "a path of 4 GiB"),
        (32 + 29, &[0], "a zero in a path"),
        (runs, &[2], "a file that is not there"),
        (runs + 4, &[0, 0], "a run without a page"),
        (runs + 4, &[1, 2], "513 pages"),
        (runs + 8, &[0x57, 2], "a page beyond the end"),
        (runs + 8, &[255; 8], "pages beyond counting"),
    ] {
        let mut wrong = body.to_vec();
        wrong[at..at + field.len()].copy_from_slice(field);
        let told = Record::read(&sealed(wrong)[..]);
        assert!(matches!(told, Err(RecordError::Malformed { .. })), "{what}: {told:?}");
    }
}

/// A record that nobody writes: one file of 600 pages, and any runs.
fn forged(path: &[u8], runs: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[12] = 1;
    bytes[16..24].copy_from_slice(&(runs.len() as u64).to_le_bytes());
    bytes.extend((600_u64 * 4096).to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend((path.len() as u32).to_le_bytes());
    bytes.extend(path);
    for (pages, first) in runs {
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(pages.to_le_bytes());
        bytes.extend(first.to_le_bytes());
    }
    sealed(bytes)
}

#[test]
fn a_path_is_not_empty_and_not_endless() {
    for length in [1, 4096] {
        assert!(check_bytes(&forged(&vec![b'a'; length], &[])).is_ok(), "{length}");
    }
    for length in [0, 4097] {
        let told = Record::read(&forged(&vec![b'a'; length], &[])[..]);
        assert!(matches!(told, Err(RecordError::Malformed { offset: 60, .. })), "{length}: {told:?}");
    }
}

#[test]
fn pages_that_are_named_again_are_asked_for_once() {
    let runs = [(512, 0), (88, 512), (24, 500), (1, 511), (512, 3), (512, 88)];
    let record = check_bytes(&forged(b"/a", &runs)).expect("a record");
    let plan = record.plan(record.files(), u64::MAX);
    assert_eq!(plan.requests[0].ranges, [0..512 * 4096, 512 * 4096..600 * 4096]);
}

/// Never ends, and counts.
struct Endless<'a>(&'a [u8], u64);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for (at, byte) in (self.1..).zip(buffer.iter_mut()) {
            *byte = self.0.get(at as usize).copied().unwrap_or(0);
        }
        self.1 += buffer.len() as u64;
        Ok(buffer.len())
    }
}

#[test]
fn what_never_ends_is_not_read_to_its_end() {
    let mut zeros = Endless(&[], 0);
    assert!(matches!(Record::read(&mut zeros), Err(RecordError::NoRecord)));
    assert!(zeros.1 <= 32, "{} bytes", zeros.1);
    let right = bytes(&small());
    let mut endless = Endless(&right, 0);
    assert!(matches!(Record::read(&mut endless), Err(RecordError::Length { .. })));
    assert!(endless.1 <= (256 << 20) + 64, "{} bytes", endless.1);
}

/// Pseudo-random numbers (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Bytes that were a record: some are changed, some are cut out or put in.
fn mutated(numbers: &mut Numbers) -> Vec<u8> {
    let files = ["/a", "/b/c", "/d"];
    let touches: Vec<(usize, u64)> =
        (0..numbers.below(40)).map(|_| (numbers.below(3) as usize, numbers.below(600))).collect();
    let mut bytes = bytes(&Record::from_history(&history(&files, &touches)));
    for _ in 0..numbers.below(6) {
        let at = numbers.below(bytes.len() as u64) as usize;
        match numbers.below(8) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes.splice(at..at, std::iter::repeat_n(0, 16)).for_each(drop),
            2 => bytes[at] = 255,
            _ => bytes[at] ^= 1 << numbers.below(8),
        }
    }
    bytes
}

/// The inputs that a fuzzer begins with. `MEMOBJ_WRITE_CORPUS=1` writes the files; they are nothing else than what is
/// made here.
#[test]
fn the_corpus_is_what_is_made_here() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/run_record");
    for (name, record) in [("small", small()), ("empty", Record::default())] {
        let path = folder.join(name);
        if std::env::var_os("MEMOBJ_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(&path, bytes(&record)).expect("a file");
        }
        assert_eq!(std::fs::read(&path).expect("a file of the corpus"), bytes(&record), "{name}");
    }
}

/// The body of the fuzz target without a fuzzer: `MEMOBJ_FUZZ_SECONDS` says how long, `MEMOBJ_FUZZ_SEED` from where on.
#[test]
fn mutations_for_a_while() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("MEMOBJ_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let limit = Duration::from_millis(number("MEMOBJ_FUZZ_SECONDS").map_or(300, |seconds| seconds * 1000));
    println!("seed {seed}");
    let (begin, mut cases, mut records) = (Instant::now(), 0_u64, 0_u64);
    // On a slow machine one takes longer to come to a record.
    while begin.elapsed() < limit || (records == 0 && cases < 1_000_000) {
        // Each case has its own seed, so that one can be repeated without those before it.
        let case = seed.wrapping_add(cases);
        let told = std::panic::catch_unwind(|| check_input(&mutated(&mut Numbers(case))));
        assert!(told.is_ok(), "seed {case}");
        records += u64::from(told.is_ok_and(|is_record| is_record));
        cases += 1;
    }
    println!("{cases} cases, {records} of them records");
    assert!(records > 0, "no case got as far as a record");
}
