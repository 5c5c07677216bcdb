//! Files in the page cache, and out of it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use crate::data::read_through;

/// Whether files are in the page cache before a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PageCache {
    /// All of them.
    Warm,
    /// None of them.
    Cold,
}

impl PageCache {
    /// Brings the file, or all files below the folder, into this state.
    pub fn establish(self, path: &Path) -> io::Result<()> {
        for file in files(path)? {
            let file = File::open(file)?;
            match self {
                Self::Warm => read_through(&file, 0..file.metadata()?.len())?,
                Self::Cold => {
                    // Pages that are not on the disk yet are not dropped.
                    file.sync_all()?;
                    fadvise(&file, 0, None, Advice::DontNeed)?;
                }
            }
        }
        Ok(())
    }
}

/// The file, or all files below the folder.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        found.extend(files(&entry?.path())?);
    }
    Ok(found)
}
