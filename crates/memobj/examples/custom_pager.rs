//! A pager of your own: bytes that are computed, not stored, and a page that cannot be had.

use std::ops::Range;

use memobj::pagers::{Blocking, BlockingPager};
use memobj::{Cache, CacheOptions, ErrorKind, MapOptions, ObjectOptions, SupplyError};

/// The square numbers, eight bytes each; the third page is lost.
#[derive(Debug)]
pub struct Squares {
    /// How many.
    pub count: u64,
}

impl BlockingPager for Squares {
    fn length(&self) -> u64 {
        self.count * 8
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        if range.start < 12_288 && range.end > 8192 {
            return Err(SupplyError::because(ErrorKind::Io, std::io::Error::other("the third page is lost")));
        }
        for (index, bytes) in (range.start / 8..).zip(buffer.chunks_mut(8)) {
            bytes.copy_from_slice(&(index * index).to_le_bytes());
        }
        Ok(buffer.len())
    }
}

/// Maps the squares, reads one, and handles the page that cannot be had.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
    let object = cache.object("squares", Blocking(Squares { count: 1_000_000 }), ObjectOptions::default())?;
    let mapping = object.map(0..object.len(), MapOptions::default())?;

    let pinned = mapping.pin(800_000..800_008)?;
    println!("square of 100000: {}", u64::from_le_bytes(pinned[..].try_into()?));

    match mapping.pin(8192..8200) {
        Ok(_) => return Err("a lost page was read".into()),
        Err(error) => println!("handled: {error}"),
    }
    println!("page that failed: {:?}", mapping.errors()[0].range());
    Ok(())
}
