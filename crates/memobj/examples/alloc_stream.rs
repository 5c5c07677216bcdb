//! A stream that is written piece by piece, and read back piece by piece, under a budget smaller than the file.

use memobj::stream::{ForReading, ForWriting, Stream};
use memobj::{Cache, CacheOptions, ObjectOptions, Writing};

const PIECE_BYTES: u64 = 64 << 10;
const PIECES: u64 = 64;

/// Writes four megabytes of numbers through a budget of one, and adds them up again.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = tempfile::NamedTempFile::new()?;
    let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
    let options = ObjectOptions::new().writing(Writing::InPlace);
    let object = cache.open_file(file.path(), options)?;

    let output = Stream::open(&object)?;
    let mut numbers = 0u64..;
    for _ in 0..PIECES {
        let mut bytes = output.alloc(ForWriting, PIECE_BYTES)?;
        for (word, number) in bytes.chunks_exact_mut(8).zip(&mut numbers) {
            word.copy_from_slice(&number.to_le_bytes());
        }
        // Freed here: from now on it is part of the stream.
    }
    output.close()?;

    let input = Stream::open(&object)?;
    let mut sum = 0u64;
    loop {
        let bytes = input.alloc(ForReading, PIECE_BYTES)?;
        if bytes.is_empty() {
            break;
        }
        for word in bytes.chunks_exact(8) {
            sum += u64::from_le_bytes(word.try_into()?);
        }
    }
    let count = PIECES * PIECE_BYTES / 8;
    println!("{count} numbers, together {sum}, in {} bytes of frames", cache.metrics().peak_frame_bytes);
    if sum != count * (count - 1) / 2 {
        return Err("wrong sum".into());
    }
    Ok(())
}
