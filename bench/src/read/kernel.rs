//! The kernel's contestants: file mappings and read calls.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use memobj_linux::peer::{FileView, MapAdvice, MemmapView};
use rustix::fs::{Advice, OFlags, fadvise};

use super::contestant::{Contestant, Rewound, Worker};
use super::job::{Pattern, ReadJob};
use crate::data::{CHUNK_BYTES, PAGE_BYTES, PAGE_WORDS, WORD_BYTES, read_through};
use crate::job::Failure;
use crate::usage;

/// Pages that one fault maps around it (`fault_around_bytes` is 64 KiB unless somebody changed it).
const FAULT_AROUND_PAGES: u64 = 16;

/// What [`FileView`] and [`MemmapView`] have in common.
pub trait View: Sync {
    /// The length of the mapping.
    fn len_bytes(&self) -> u64;
    /// Gives advice for a range of bytes.
    fn advise(&self, range: Range<u64>, advice: MapAdvice) -> io::Result<()>;
    /// Loads the eight bytes at `offset_bytes`.
    fn load_u64(&self, offset_bytes: u64) -> u64;
    /// Sums every `step_words`-th of the words.
    fn sum_u64(&self, words: Range<u64>, step_words: u64) -> u64;
}

macro_rules! view {
    ($type:ty) => {
        impl View for $type {
            fn len_bytes(&self) -> u64 {
                <$type>::len_bytes(self)
            }
            fn advise(&self, range: Range<u64>, advice: MapAdvice) -> io::Result<()> {
                <$type>::advise(self, range, advice)
            }
            #[inline]
            fn load_u64(&self, offset_bytes: u64) -> u64 {
                <$type>::load_u64(self, offset_bytes)
            }
            fn sum_u64(&self, words: Range<u64>, step_words: u64) -> u64 {
                <$type>::sum_u64(self, words, step_words)
            }
        }
    };
}

view!(FileView);
view!(MemmapView);

/// The test file, mapped.
pub struct MappedFile<V> {
    view: V,
    file: File,
    pattern: Pattern,
    will_need: WillNeed,
}

/// Whether a batch is announced to the kernel before it is touched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WillNeed {
    Announced,
    NotAnnounced,
}

/// The advice that serves `pattern` best.
fn best_advice(pattern: Pattern) -> MapAdvice {
    match pattern {
        Pattern::Sequential => MapAdvice::Sequential,
        Pattern::Warmscan => MapAdvice::Normal,
        Pattern::Random | Pattern::Zipf | Pattern::Reread | Pattern::Fault | Pattern::Batch => {
            MapAdvice::Random
        }
    }
}

/// The contestants `mmap`, `mmap-default` and `mmap-willneed`.
pub fn mapped(job: &ReadJob) -> Result<MappedFile<FileView>, Failure> {
    let file = File::open(&job.file)?;
    MappedFile::new(FileView::map(&file)?, file, job)
}

/// The contestant `memmap2`.
pub fn memmap(job: &ReadJob) -> Result<MappedFile<MemmapView>, Failure> {
    let file = File::open(&job.file)?;
    MappedFile::new(MemmapView::map(&file)?, file, job)
}

impl<V: View> MappedFile<V> {
    fn new(view: V, file: File, job: &ReadJob) -> Result<Self, Failure> {
        if job.contestant != "mmap-default" {
            view.advise(0..view.len_bytes(), best_advice(job.pattern))?;
        }
        let announced = job.contestant == "mmap-willneed";
        let will_need = if announced { WillNeed::Announced } else { WillNeed::NotAnnounced };
        Ok(Self { view, file, pattern: job.pattern, will_need })
    }

    /// Fault-around maps whatever is cached near the faulting page, so here one page of each window is
    /// cached, alone.
    fn cache_one_page_per_window(&self, range: Range<u64>) -> Result<(), Failure> {
        fadvise(&self.file, 0, None, Advice::Random).map_err(io::Error::from)?;
        let mut page = [0; PAGE_BYTES as usize];
        for offset in range.step_by((FAULT_AROUND_PAGES * PAGE_BYTES) as usize) {
            self.file.read_exact_at(&mut page, offset)?;
        }
        Ok(())
    }
}

impl<V: View> Contestant for MappedFile<V> {
    type Worker<'a>
        = &'a MappedFile<V>
    where
        V: 'a;

    fn worker(&self) -> Result<Self::Worker<'_>, Failure> {
        Ok(self)
    }

    fn populate(&self, range: Range<u64>) -> Result<(), Failure> {
        if self.pattern == Pattern::Fault {
            return self.cache_one_page_per_window(range);
        }
        read_through(&self.file, range.clone())?;
        Ok(self.view.advise(range, MapAdvice::PopulateRead)?)
    }

    fn missed_pages(&self) -> Result<Option<u64>, Failure> {
        // A page announced before it is touched does not count as a major fault, although it was read.
        let countable = self.will_need == WillNeed::NotAnnounced;
        Ok(if countable { Some(usage::faults()?.major) } else { None })
    }

    fn fault_stride_pages(&self) -> u64 {
        FAULT_AROUND_PAGES
    }

    fn unmap_again(&self) -> Result<Rewound, Failure> {
        self.view.advise(0..self.view.len_bytes(), MapAdvice::Unmap)?;
        Ok(Rewound::Yes)
    }
}

impl<V: View> Worker for &MappedFile<V> {
    #[inline]
    fn load(&mut self, word_index: u64) -> Result<u64, Failure> {
        Ok(self.view.load_u64(word_index * WORD_BYTES))
    }

    fn sum(&mut self, words: Range<u64>, step_words: u64) -> Result<u64, Failure> {
        Ok(self.view.sum_u64(words, step_words))
    }

    fn load_batch(&mut self, word_indices: &[u64], loaded: &mut Vec<u64>) -> Result<(), Failure> {
        if self.will_need == WillNeed::Announced {
            for word_index in word_indices {
                let start = word_index / PAGE_WORDS * PAGE_BYTES;
                self.view.advise(start..start + PAGE_BYTES, MapAdvice::WillNeed)?;
            }
        }
        loaded.extend(word_indices.iter().map(|word_index| self.view.load_u64(word_index * WORD_BYTES)));
        Ok(())
    }
}

/// The test file, read by positioned read calls into a buffer of the thread.
pub struct ReadFile {
    file: File,
    through: Through,
}

/// Whether reads go through the kernel's page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    PageCache,
    Device,
}

/// The contestants `pread-buffered` and `pread-direct`.
pub fn read_calls(job: &ReadJob) -> Result<ReadFile, Failure> {
    if job.contestant == "pread-direct" {
        let flags = OFlags::DIRECT.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&job.file);
        let file = file.map_err(|error| Failure::Skipped(format!("no O_DIRECT here: {error}")))?;
        return Ok(ReadFile { file, through: Through::Device });
    }
    let file = File::open(&job.file)?;
    let advice = match best_advice(job.pattern) {
        MapAdvice::Random => Advice::Random,
        _ => Advice::Sequential,
    };
    fadvise(&file, 0, None, advice).map_err(io::Error::from)?;
    Ok(ReadFile { file, through: Through::PageCache })
}

impl Contestant for ReadFile {
    type Worker<'a> = ReadWorker<'a>;

    fn worker(&self) -> Result<Self::Worker<'_>, Failure> {
        Ok(ReadWorker { file: &self.file, buffer: vec![1; (CHUNK_BYTES + PAGE_BYTES) as usize] })
    }

    fn populate(&self, range: Range<u64>) -> Result<(), Failure> {
        match self.through {
            Through::PageCache => Ok(read_through(&self.file, range)?),
            Through::Device => Ok(()),
        }
    }

    fn missed_pages(&self) -> Result<Option<u64>, Failure> {
        match self.through {
            Through::PageCache => Ok(Some(usage::device_read_bytes()? / PAGE_BYTES)),
            // There is no cache to hit.
            Through::Device => Ok(None),
        }
    }
}

/// One thread with its buffer.
pub struct ReadWorker<'a> {
    file: &'a File,
    buffer: Vec<u8>,
}

impl ReadWorker<'_> {
    /// Reads `range` of the file into the page-aligned part of the buffer, as O_DIRECT wants it.
    fn read(&mut self, offset_bytes: u64, len_bytes: u64) -> io::Result<&[u8]> {
        let start = self.buffer.as_ptr().align_offset(PAGE_BYTES as usize);
        let aligned = &mut self.buffer[start..start + len_bytes as usize];
        self.file.read_exact_at(aligned, offset_bytes)?;
        Ok(aligned)
    }
}

impl Worker for ReadWorker<'_> {
    fn load(&mut self, word_index: u64) -> Result<u64, Failure> {
        let page = self.read(word_index / PAGE_WORDS * PAGE_BYTES, PAGE_BYTES)?;
        Ok(word_at(page, (word_index % PAGE_WORDS * WORD_BYTES) as usize))
    }

    fn sum(&mut self, words: Range<u64>, step_words: u64) -> Result<u64, Failure> {
        let mut sum: u64 = 0;
        let end_bytes = words.end * WORD_BYTES;
        for offset in (words.start * WORD_BYTES..end_bytes).step_by(CHUNK_BYTES as usize) {
            let chunk = self.read(offset, CHUNK_BYTES.min(end_bytes - offset))?;
            for at in (0..chunk.len()).step_by((step_words * WORD_BYTES) as usize) {
                sum = sum.wrapping_add(word_at(chunk, at));
            }
        }
        Ok(sum)
    }
}

fn word_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; WORD_BYTES as usize];
    word.copy_from_slice(&bytes[offset..offset + WORD_BYTES as usize]);
    u64::from_ne_bytes(word)
}
