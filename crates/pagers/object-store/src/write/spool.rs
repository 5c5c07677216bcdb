//! A temporary file without a name, which only this process's user can read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Written bytes, each at its offset in the object. The file is sparse.
#[derive(Debug)]
pub(crate) struct Spool(File);

impl Spool {
    /// A new one, in `folder` or where temporary files are.
    pub(crate) fn new(folder: Option<&Path>) -> io::Result<Self> {
        match folder {
            Some(folder) => tempfile::tempfile_in(folder),
            None => tempfile::tempfile(),
        }
        .map(Self)
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}
