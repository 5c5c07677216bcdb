//! The kernel's mapping of the tree.

use std::fs::File;

use memobj_linux::peer::{FileView, MapAdvice};

use super::job::IndexJob;
use super::lookup::{Index, Nodes};
use super::node::{Found, Words, find};
use crate::data::{PAGE_BYTES, WORD_BYTES, read_through};
use crate::job::Failure;
use crate::usage;

/// The tree, mapped, without read-ahead.
pub struct MappedTree {
    file: File,
    view: FileView,
}

impl MappedTree {
    /// Maps the tree of the job.
    pub fn open(job: &IndexJob) -> Result<Self, Failure> {
        let file = File::open(&job.file)?;
        let view = FileView::map(&file)?;
        view.advise(0..view.len_bytes(), MapAdvice::Random)?;
        Ok(Self { file, view })
    }
}

impl Index for MappedTree {
    type Nodes<'a> = &'a MappedTree;

    fn nodes(&self) -> Result<Self::Nodes<'_>, Failure> {
        Ok(self)
    }

    fn populate(&self, len_bytes: u64) -> Result<(), Failure> {
        read_through(&self.file, 0..len_bytes)?;
        Ok(self.view.advise(0..len_bytes, MapAdvice::PopulateRead)?)
    }

    fn missed_pages(&self) -> Result<Option<u64>, Failure> {
        Ok(Some(usage::faults()?.major))
    }
}

struct MappedNode<'a> {
    view: &'a FileView,
    start: u64,
}

impl Words for MappedNode<'_> {
    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.view.load_u64(self.start + index as u64 * WORD_BYTES)
    }
}

impl Nodes for &MappedTree {
    #[inline]
    fn find(&mut self, node: u64, key: u64) -> Result<Found, Failure> {
        Ok(find(&MappedNode { view: &self.view, start: node * PAGE_BYTES }, key))
    }

    #[inline]
    fn load(&mut self, offset_bytes: u64) -> Result<u64, Failure> {
        Ok(self.view.load_u64(offset_bytes))
    }
}
