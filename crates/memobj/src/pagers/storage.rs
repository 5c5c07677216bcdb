//! Files as the commit log wants them.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use memobj_core::address::ByteRange;
use memobj_linux::file;
use memobj_linux::ring::ReadFile;
use memobj_log::{Reserved, Storage};

const BLOCK: u64 = 4096;
/// Writes that are shorter go through the page cache.
const SCATTERED_BYTES: u64 = 64 << 10;
/// Zeros that are written at once.
const ZEROS: usize = 64 << 10;

/// What a file is to its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// The object itself.
    Data,
    /// The log: new room is written with zeros, so that its first use is as cheap as the second.
    Log,
}

/// A file, around the page cache where that goes.
#[derive(Debug)]
pub(crate) struct FileStorage {
    buffered: ReadFile,
    direct: Option<ReadFile>,
    role: Role,
    /// Something was written through the page cache since the last sync.
    cached: AtomicBool,
    #[cfg(test)]
    pub(super) test_failures: TestFailures,
}

/// What tests have a file do.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct TestFailures {
    /// The next sync fails.
    pub(super) fail_sync: AtomicBool,
    /// Writes wait while a test holds it.
    pub(super) hold: std::sync::Mutex<()>,
    /// Writes that have begun.
    pub(super) begun: std::sync::atomic::AtomicU64,
}

impl FileStorage {
    pub(crate) fn new(buffered: ReadFile, direct: Option<ReadFile>, role: Role) -> Self {
        Self {
            buffered,
            direct,
            role,
            cached: AtomicBool::new(false),
            #[cfg(test)]
            test_failures: TestFailures::default(),
        }
    }

    /// The descriptor for a transfer of these bytes.
    fn descriptor(&self, offset: u64, bytes: &[u8]) -> &ReadFile {
        let aligned = offset.is_multiple_of(BLOCK)
            && (bytes.len() as u64).is_multiple_of(BLOCK)
            && (bytes.as_ptr() as usize).is_multiple_of(BLOCK as usize);
        match &self.direct {
            Some(direct) if aligned => direct,
            _ => &self.buffered,
        }
    }

    fn write_zeros(&self, range: ByteRange) -> io::Result<()> {
        #[repr(align(4096))]
        struct Zeros([u8; ZEROS]);
        static NOTHING: Zeros = Zeros([0; ZEROS]);
        let mut at = range.start;
        while at < range.end {
            let part = &NOTHING.0[..(range.end - at).min(ZEROS as u64) as usize];
            if self.role == Role::Log {
                // New room, which is synced next: around the page cache each part would wait for the device by itself.
                self.cached.store(true, Ordering::Relaxed);
                file::write_full(&self.buffered, part, at)?;
            } else {
                self.write_at(at, part)?;
            }
            at += part.len() as u64;
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    type Error = io::Error;

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let file = self.descriptor(offset, into).clone();
        match file::read_full(&file, into, offset)? {
            count if count == into.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        {
            self.test_failures.begun.fetch_add(1, Ordering::AcqRel);
            drop(self.test_failures.hold.lock());
        }
        // Scattered pages of a checkpoint: the system sorts and merges them, and writes many at once.
        let scattered = self.role == Role::Data && (bytes.len() as u64) < SCATTERED_BYTES;
        let file = if scattered { &self.buffered } else { self.descriptor(offset, bytes) };
        self.cached.fetch_or(scattered, Ordering::Relaxed);
        file::write_full(file, bytes, offset).map(|_| ())
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.test_failures.fail_sync.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("the test says so"));
        }
        file::sync_data(&self.buffered)?;
        if self.direct.is_some() && self.cached.swap(false, Ordering::Relaxed) {
            // Not in memory twice.
            file::drop_cached(&self.buffered);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        file::length(&self.buffered)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        file::set_length(&self.buffered, length)
    }

    fn reserve(&self, range: ByteRange) -> io::Result<Reserved> {
        if self.role == Role::Log {
            self.write_zeros(range)?;
            return Ok(Reserved::New);
        }
        // Of file systems that overwrite in place, blocks that hold data are there.
        let overwrites = file::overwrites_in_place(&self.buffered);
        if overwrites && file::is_data(&self.buffered, range.start..range.end) {
            return Ok(Reserved::Already);
        }
        match file::reserve(&self.buffered, range.start..range.end) {
            // The file system knows no reservations: whether there is room is seen when it is needed.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(Reserved::New),
            Err(error) => Err(error),
            Ok(()) => Ok(Reserved::New),
        }
    }

    fn zero(&self, range: ByteRange) -> io::Result<()> {
        let mut at = range.start;
        while let Some(data) = file::next_data(&self.buffered, at..range.end)? {
            let end = data.end.next_multiple_of(BLOCK).min(range.end);
            self.write_zeros(ByteRange { start: data.start, end })?;
            at = end;
        }
        Ok(())
    }
}

impl AsFd for FileStorage {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.buffered.as_fd()
    }
}
