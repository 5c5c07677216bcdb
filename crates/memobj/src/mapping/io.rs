//! A mapping as a file that is read and written at a position.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::Mapping;
use crate::error::AccessError;

/// Reads a mapping from a position on, by copies. Made by [`Mapping::reader`].
///
/// Errors are those of [`Mapping::read_at`], as [`io::Error`]: bytes before a page that has failed are read first.
#[derive(Clone, Debug)]
pub struct Reader {
    mapping: Mapping,
    position: u64,
}

/// Writes to a mapping from a position on, by copies. Made by [`Mapping::writer`].
///
/// It does not extend the object: at its end nothing is written (`WriteZero` of [`Write::write_all`]). Nothing is kept back,
/// so `flush` does nothing; [`Mapping::sync`] makes durable.
#[derive(Clone, Debug)]
pub struct Writer {
    mapping: Mapping,
    position: u64,
}

impl Mapping {
    /// Reads the mapping from its first byte on.
    ///
    /// ```
    /// # use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions};
    /// use std::io::{BufRead, BufReader};
    /// # let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
    /// let object = cache.open_file("Cargo.toml", ObjectOptions::default())?;
    /// let mapping = object.map_all(MapOptions::default())?;
    /// let lines = BufReader::new(mapping.reader()).lines();
    /// assert_eq!(lines.map_while(Result::ok).next().as_deref(), Some("[package]"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reader(&self) -> Reader {
        Reader { mapping: self.clone(), position: 0 }
    }

    /// Writes to the mapping from its first byte on.
    pub fn writer(&self) -> Writer {
        Writer { mapping: self.clone(), position: 0 }
    }

    /// Of `wanted` bytes from `position` on, how many there are.
    fn available(&self, position: u64, wanted: usize) -> usize {
        let left = self.len_now().saturating_sub(position);
        usize::try_from(left).map_or(wanted, |left| left.min(wanted))
    }

    fn seek(&self, position: &mut u64, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(offset) => (offset, 0),
            SeekFrom::End(by) => (self.len_now(), by),
            SeekFrom::Current(by) => (*position, by),
        };
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "seek to a position before byte 0");
        *position = from.checked_add_signed(by).ok_or_else(outside)?;
        Ok(*position)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.mapping.available(self.position, buffer.len());
        if count == 0 {
            return Ok(0);
        }
        let buffer = &mut buffer[..count];
        let count = match self.mapping.read_at(self.position, buffer) {
            Ok(()) => count,
            Err(error) => {
                let readable = self.readable(&error).filter(|before| (1..count).contains(before));
                let Some(before) = readable else { return Err(error.into()) };
                self.mapping.read_at(self.position, &mut buffer[..before])?;
                before
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl Reader {
    /// How many bytes there are before the page that has failed.
    fn readable(&self, error: &AccessError) -> Option<usize> {
        let failed = error.page_error()?.range().start;
        let position = self.mapping.range.start + self.position;
        usize::try_from(failed.checked_sub(position)?).ok()
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.mapping.seek(&mut self.position, to)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.mapping.available(self.position, bytes.len());
        if count == 0 {
            return Ok(0);
        }
        self.mapping.write_at(self.position, &bytes[..count])?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Writer {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.mapping.seek(&mut self.position, to)
    }
}
