//! Local files by `file://` URLs, so that one pager serves every URL. `Cache::open_file` reads files faster.

use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use memobj::ErrorKind;
use url::Url;

use crate::failure::Failure;
use crate::runtime::blocking;

/// So much is read at once.
const PIECE: u64 = 256 << 10;

/// An open file, and how it was when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct LocalFile {
    file: Arc<File>,
    stamp: Stamp,
}

/// What changes when a file is written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl LocalFile {
    pub(crate) fn open(url: &Url) -> Result<Self, Failure> {
        let path = url
            .to_file_path()
            .map_err(|()| Failure::new(ErrorKind::Denied, "the URL names no file of this machine"))?;
        let file = File::open(path).map_err(of_file)?;
        let metadata = file.metadata().map_err(of_file)?;
        if !metadata.is_file() {
            return Err(Failure::new(ErrorKind::Denied, "it is no regular file"));
        }
        Ok(Self { file: Arc::new(file), stamp: Stamp::of(&metadata) })
    }

    pub(crate) fn length(&self) -> u64 {
        self.stamp.length
    }

    pub(crate) fn version(&self) -> String {
        let Stamp { length, modified: (seconds, nanoseconds), .. } = self.stamp;
        format!("{seconds}.{nanoseconds:09}, {length} bytes")
    }

    /// As [`Fetcher::fetch`](crate::fetch::Fetcher::fetch).
    pub(crate) async fn fetch(
        &self,
        range: Range<u64>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut at = range.start;
        while at < range.end {
            let (file, count) = (Arc::clone(&self.file), (range.end - at).min(PIECE));
            let piece = blocking(move || {
                let mut piece = vec![0; usize::try_from(count).unwrap_or(0)];
                file.read_exact_at(&mut piece, at).map_err(of_file).map(|()| piece)
            });
            take(at, &piece.await?)?;
            at += count;
        }
        let metadata = self.file.metadata().map_err(of_file)?;
        match Stamp::of(&metadata) == self.stamp {
            true => Ok(()),
            false => Err(Failure::new(ErrorKind::Stale, "the file was changed")),
        }
    }
}

fn of_file(error: std::io::Error) -> Failure {
    let kind = memobj::SupplyError::from(std::io::Error::from(error.kind())).kind;
    Failure::because(kind, format!("file: {error}"), error)
}
