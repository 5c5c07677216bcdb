//! Ranges of an object, compared with a manifest if there is one.

use std::ops::Range;
use std::sync::Arc;

use memobj::ErrorKind;

use crate::counters::Counters;
use crate::failure::Failure;
use crate::fetch::{Base, Fetcher};
use crate::file::LocalFile;
use crate::manifest::{Check, Manifest, WrongDigest};
use crate::overlap::give_overlap;

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Source {
    Server(Box<Fetcher>),
    File(LocalFile),
}

/// Reads ranges of one object.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) source: Source,
    pub(crate) manifest: Option<Arc<Manifest>>,
    pub(crate) counters: Arc<Counters>,
}

impl Reader {
    /// Has `take` copy the bytes of `range` away, see [`Fetcher::fetch`]. With a manifest, whole blocks of it are asked for;
    /// a wrong digest is asked for once more.
    pub(crate) async fn read(
        &self,
        base: &Base,
        range: Range<u64>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(manifest) = &self.manifest else {
            return self.fetch(base, range, take).await;
        };
        let mut check = manifest.check_from(manifest.covering(&range).start);
        let first = self.read_checked(base, &range, manifest, &mut check, &mut take).await;
        if !check.is_wrong() {
            return first;
        }
        self.counters.retries_asked.add(1);
        let mut check = manifest.check_from(manifest.covering(&range).start);
        self.read_checked(base, &range, manifest, &mut check, &mut take).await
    }

    async fn read_checked(
        &self,
        base: &Base,
        range: &Range<u64>,
        manifest: &Manifest,
        check: &mut Check<'_>,
        take: &mut impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let checked = |at, bytes: &[u8]| {
            check.feed(bytes).map_err(wrong_digest)?;
            give_overlap(at, bytes, range, take)
        };
        self.fetch(base, manifest.covering(range), checked).await
    }

    async fn fetch(
        &self,
        base: &Base,
        range: Range<u64>,
        take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match &self.source {
            Source::Server(fetcher) => fetcher.fetch(base, range, take).await,
            Source::File(file) => file.fetch(range, take).await,
        }
    }
}

fn wrong_digest(WrongDigest(block): WrongDigest) -> Failure {
    Failure::new(ErrorKind::Integrity, format!("block {block} has not the digest of the manifest"))
}
