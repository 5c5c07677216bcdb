//! The built-in pagers run the conformance suite.

use std::io::Write;

use memobj::pagers::{Awaited, Bytes, CacheUse, Faulty, File, Inject, Injection, Zero};
use memobj_sim::{Calls, Counted, Disk, conformance, known_byte};

fn bytes(length: u64) -> Vec<u8> {
    (0..length).map(|offset| known_byte(1, offset)).collect()
}

/// Whole pages, a tail, less than a page, and nothing.
const LENGTHS: [u64; 5] = [64 * 4096, 300_001, 4097, 5, 0];

#[test]
fn file_conforms() {
    for length in LENGTHS {
        let expected = bytes(length);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&expected).unwrap();
        file.as_file().sync_all().unwrap();
        for cache_use in [CacheUse::Auto, CacheUse::Direct, CacheUse::Buffered] {
            conformance::run(|| File::open_with(file.path(), cache_use).unwrap(), &expected);
        }
    }
}

#[test]
fn bytes_conform() {
    for length in LENGTHS {
        conformance::run(|| Bytes::new(bytes(length)), &bytes(length));
    }
}

#[test]
fn disk_conforms() {
    for length in LENGTHS {
        conformance::run(|| Disk::new(bytes(length)), &bytes(length));
    }
}

#[test]
fn zero_conforms() {
    for length in LENGTHS {
        conformance::run(|| Zero::new(length), &vec![0; length as usize]);
    }
}

#[test]
fn faulty_without_faults_conforms() {
    for length in LENGTHS {
        conformance::run(|| Faulty::new(Bytes::new(bytes(length)), Vec::new(), 0), &bytes(length));
        conformance::run(|| Box::new(Bytes::new(bytes(length))), &bytes(length));
        let awaited = || Faulty::new(Awaited::new(Bytes::new(bytes(length))), Vec::new(), 0);
        conformance::run(awaited, &bytes(length));
        conformance::run(|| Counted::new(Bytes::new(bytes(length)), Calls::default()), &bytes(length));
    }
}

/// The suite must be able to fail: a canary for each kind of wrong answer.
#[test]
fn wrong_pagers_do_not_conform() {
    let expected = bytes(64 * 4096);
    for action in [Inject::Error, Inject::Short, Inject::Long, Inject::Panic] {
        let make = || {
            let plan = vec![Injection::new(40_000..40_001, action)];
            Faulty::new(Bytes::new(bytes(64 * 4096)), plan, 0)
        };
        let run = std::panic::AssertUnwindSafe(|| conformance::run(make, &expected));
        assert!(std::panic::catch_unwind(run).is_err(), "{action:?} passed");
    }
    let mut other = expected.clone();
    other[70_000] ^= 1;
    let run = std::panic::AssertUnwindSafe(|| conformance::run(|| Bytes::new(other.clone()), &expected));
    assert!(std::panic::catch_unwind(run).is_err(), "a wrong byte passed");
}
