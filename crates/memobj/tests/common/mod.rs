//! What the integration tests share: files whose every byte is known.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use memobj::{Cache, CacheOptions, Delivery, FrameSize, MapOptions, ObjectOptions, Store};

/// The byte at `offset` of every sample; no two pages are alike, none is zero for long.
pub fn sample_byte(offset: u64) -> u8 {
    let mut z = (offset / 8).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).to_le_bytes()[(offset % 8) as usize]
}

/// A file of sample bytes, on a file system that has the features under test.
pub struct Sample {
    file: tempfile::NamedTempFile,
}

impl Sample {
    pub fn new(length: u64) -> Self {
        let folder = std::env::var_os("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, Into::into);
        let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
        let bytes: Vec<u8> = (0..length).map(sample_byte).collect();
        file.write_all(&bytes).unwrap();
        file.as_file().sync_all().unwrap();
        Self { file }
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub fn file(&self) -> &std::fs::File {
        self.file.as_file()
    }

    pub fn check(&self, range: Range<u64>, bytes: &[u8], what: &str) {
        check_sample(range, bytes, what);
    }
}

/// Panics at the first byte of `bytes` that is not the sample's.
pub fn check_sample(range: Range<u64>, bytes: &[u8], what: &str) {
    assert_eq!(bytes.len() as u64, range.end - range.start, "{what}");
    for (offset, byte) in range.zip(bytes) {
        assert_eq!(*byte, sample_byte(offset), "{what}: wrong byte at {offset}");
    }
}

pub fn cache(budget_bytes: u64) -> Cache {
    Cache::new(CacheOptions { budget_bytes, ..Default::default() }).unwrap()
}

/// Every combination of frames, store and delivery.
pub fn all_ways() -> Vec<(String, ObjectOptions, MapOptions)> {
    let mut ways = Vec::new();
    for delivery in [Delivery::ReaderThread, Delivery::InThread] {
        for (frames, store) in [
            (FrameSize::Small, Store::Local),
            (FrameSize::Large, Store::Local),
            (FrameSize::Small, Store::Shared),
        ] {
            let options = ObjectOptions { frames, store, ..Default::default() };
            ways.push((format!("{frames:?} {store:?} {delivery:?}"), options, MapOptions { delivery }));
        }
    }
    ways
}
