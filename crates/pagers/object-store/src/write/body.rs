//! The bytes of a new version, as streams of its parts.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream;

use super::layers::{Origin, Piece};
use super::spool::Spool;
use crate::failure::Failure;
use crate::reader::Reader;
use crate::runtime::blocking;

/// So much of a part is in memory at once.
const CHUNK: u64 = 1 << 20;

/// All bytes of a new version.
#[derive(Debug)]
pub(crate) struct Content {
    reader: Arc<Reader>,
    /// Ascending, without gaps.
    pieces: Vec<Piece>,
    pub(crate) length: u64,
    /// Why a stream ended early: the HTTP client does not say.
    failed: Mutex<Option<Failure>>,
}

impl Content {
    pub(crate) fn new(reader: Arc<Reader>, pieces: Vec<Piece>) -> Self {
        let length = pieces.last().map_or(0, |piece| piece.range.end);
        Self { reader, pieces, length, failed: Mutex::new(None) }
    }

    /// What is not in the published version.
    pub(crate) fn changed(&self) -> Vec<Range<u64>> {
        let mut changed: Vec<Range<u64>> = Vec::new();
        for piece in self.pieces.iter().filter(|piece| !matches!(piece.origin, Origin::Base(_))) {
            match changed.last_mut() {
                Some(last) if last.end == piece.range.start => last.end = piece.range.end,
                _ => changed.push(piece.range.clone()),
            }
        }
        changed
    }

    /// Why the last stream ended early, if one did.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The bytes of `range` as the body of a request.
    pub(crate) fn body(self: &Arc<Self>, range: Range<u64>) -> reqwest::Body {
        let state = (Arc::clone(self), range);
        reqwest::Body::wrap_stream(stream::try_unfold(state, |(content, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let end = range.end.min(range.start.saturating_add(CHUNK));
            let chunk = content.bytes(range.start..end).await.map_err(|failure| {
                let what = failure.what.clone();
                *content.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                std::io::Error::other(what)
            })?;
            content.reader.counters.network_written_bytes.add_len(&chunk);
            Ok::<_, std::io::Error>(Some((chunk, (content, end..range.end))))
        }))
    }

    /// The bytes of `range` in memory.
    pub(crate) async fn bytes(&self, range: Range<u64>) -> Result<Bytes, Failure> {
        let length = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
        let mut bytes = Vec::with_capacity(length);
        let take = |_, piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        self.read(range, take).await?;
        Ok(bytes.into())
    }

    /// Has `take` copy the bytes of `range` away, in order.
    pub(crate) async fn read(
        &self,
        range: Range<u64>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let first = self.pieces.partition_point(|piece| piece.range.end <= range.start);
        for piece in self.pieces.iter().skip(first) {
            let part = piece.range.start.max(range.start)..piece.range.end.min(range.end);
            if part.start >= part.end {
                break;
            }
            match &piece.origin {
                Origin::Base(base) => self.reader.read(base, part, &mut take).await?,
                Origin::Spool(spool) => from_spool(spool, part, &mut take).await?,
                Origin::Zero => in_chunks(part).try_for_each(|(at, count)| take(at, &vec![0; count]))?,
            }
        }
        Ok(())
    }
}

async fn from_spool(
    spool: &Arc<Spool>,
    part: Range<u64>,
    take: &mut impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (at, count) in in_chunks(part) {
        let spool = Arc::clone(spool);
        let read = move || {
            let mut chunk = vec![0; count];
            spool.read(at, &mut chunk).map(|()| chunk)
        };
        take(at, &blocking(read).await?)?;
    }
    Ok(())
}

/// Offsets and lengths of the chunks of `range`.
fn in_chunks(range: Range<u64>) -> impl Iterator<Item = (u64, usize)> {
    let count = (range.end - range.start).div_ceil(CHUNK);
    (0..count).map(move |index| {
        let at = range.start + index * CHUNK;
        (at, usize::try_from((range.end - at).min(CHUNK)).unwrap_or(0))
    })
}
