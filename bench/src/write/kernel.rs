//! The kernel's contestants: a writable file mapping, and read and write calls.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memobj_linux::peer::{MapAdvice, WritableFileView};
use rustix::fs::{Advice, fadvise};

use super::job::{WriteJob, WritePattern};
use super::storage::Storage;
use crate::data::{PAGE_BYTES, PAGE_WORDS, WORD_BYTES};
use crate::job::Failure;

/// Bytes of one read call of populating.
const CHUNK_BYTES: u64 = 1 << 20;

/// The file, mapped shared and writable.
pub struct MappedFile {
    view: WritableFileView,
    file: File,
}

/// The advice for `mmap`; none for `mmap-default`.
pub fn advice(job: &WriteJob) -> MapAdvice {
    match (job.contestant.as_str(), job.pattern) {
        ("mmap-default", _) => MapAdvice::Normal,
        (_, WritePattern::Seqwrite) => MapAdvice::Sequential,
        _ => MapAdvice::Random,
    }
}

/// The advice for `pwrite`, which reads before it writes in `rmw`.
pub fn file_advice(job: &WriteJob) -> Advice {
    match job.pattern {
        WritePattern::Seqwrite => Advice::Sequential,
        WritePattern::Rmw | WritePattern::Commit => Advice::Random,
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Fills the page cache by large reads, which is the fastest way to have data resident.
fn read_through(file: &File, range: Range<u64>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES as usize];
    for offset in range.clone().step_by(CHUNK_BYTES as usize) {
        let wanted = CHUNK_BYTES.min(range.end - offset) as usize;
        file.read_exact_at(&mut chunk[..wanted], offset)?;
    }
    Ok(())
}

impl Storage for MappedFile {
    type Setup = MapAdvice;

    fn open(path: &Path, _budget_bytes: u64, setup: MapAdvice) -> Result<Self, Failure> {
        let file = open(path)?;
        let view = WritableFileView::map(&file)?;
        view.advise(0..view.len_bytes(), setup)?;
        Ok(Self { view, file })
    }

    fn populate(&self, range: Range<u64>) -> Result<(), Failure> {
        read_through(&self.file, range.clone())?;
        Ok(self.view.advise(range, MapAdvice::PopulateRead)?)
    }

    #[inline]
    fn add_one(&self, word_index: u64) -> Result<u64, Failure> {
        let offset = word_index * WORD_BYTES;
        let found = self.view.load_u64(offset);
        self.view.store_u64(offset, found.wrapping_add(1));
        Ok(found)
    }

    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.view.store_bytes(offset_bytes, bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.view.sync()?)
    }

    fn commit(&self) -> Result<(), Failure> {
        Ok(self.view.sync()?)
    }
}

/// The file, by positioned read and write calls through the kernel's page cache.
pub struct FileCalls {
    file: File,
}

impl Storage for FileCalls {
    type Setup = Advice;

    fn open(path: &Path, _budget_bytes: u64, setup: Advice) -> Result<Self, Failure> {
        let file = open(path)?;
        fadvise(&file, 0, None, setup).map_err(io::Error::from)?;
        Ok(Self { file })
    }

    fn populate(&self, range: Range<u64>) -> Result<(), Failure> {
        Ok(read_through(&self.file, range)?)
    }

    fn add_one(&self, word_index: u64) -> Result<u64, Failure> {
        let mut page = [0; PAGE_BYTES as usize];
        let page_offset = word_index / PAGE_WORDS * PAGE_BYTES;
        self.file.read_exact_at(&mut page, page_offset)?;
        let (words, _) = page.as_chunks_mut::<{ WORD_BYTES as usize }>();
        let word = &mut words[(word_index % PAGE_WORDS) as usize];
        let found = u64::from_ne_bytes(*word);
        *word = found.wrapping_add(1).to_ne_bytes();
        self.file.write_all_at(&page, page_offset)?;
        Ok(found)
    }

    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.file.write_all_at(bytes, offset_bytes)?)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.file.sync_all()?)
    }

    fn commit(&self) -> Result<(), Failure> {
        Ok(self.file.sync_data()?)
    }
}
