//! The kernel's mappings.

use std::fs::File;
use std::path::PathBuf;

use memobj_linux::peer::{FileView, MapAdvice};

use super::access::Object;
use super::job::ScaleJob;
use super::memory_use;
use super::objects::Objects;
use crate::data::WORD_BYTES;
use crate::job::Failure;

/// Mappings of one file, each of all of it.
pub struct Views {
    file: PathBuf,
    views: Vec<FileView>,
    /// Resident pages of files when there were no mappings.
    file_bytes_before: u64,
}

impl Views {
    /// None yet.
    pub fn none(job: &ScaleJob) -> Result<Self, Failure> {
        let views = Vec::with_capacity(job.count as usize);
        Ok(Self { file: job.file.clone(), views, file_bytes_before: memory_use::file_bytes()? })
    }

    /// The file of the job, mapped once.
    pub fn one(job: &ScaleJob) -> Result<Self, Failure> {
        let mut views =
            Self { file: job.file.clone(), views: Vec::new(), file_bytes_before: memory_use::file_bytes()? };
        views.map_one()?;
        Ok(views)
    }
}

impl Objects for Views {
    fn map_one(&mut self) -> Result<(), Failure> {
        let view = FileView::map(&File::open(&self.file)?)?;
        view.advise(0..view.len_bytes(), MapAdvice::Random)?;
        self.views.push(view);
        Ok(())
    }

    fn keep(&mut self, count: usize) {
        self.views.truncate(count);
    }

    fn load(&mut self, object: usize, word_index: u64) -> Result<u64, Failure> {
        Ok(self.views[object].load_u64(word_index * WORD_BYTES))
    }

    fn frame_bytes(&self) -> Result<u64, Failure> {
        Ok(memory_use::file_bytes()?.saturating_sub(self.file_bytes_before))
    }
}

impl Object for Views {
    #[inline]
    fn load(&mut self, word_index: u64) -> Result<u64, Failure> {
        Objects::load(self, 0, word_index)
    }

    fn frame_bytes(&self) -> Result<u64, Failure> {
        Objects::frame_bytes(self)
    }
}
