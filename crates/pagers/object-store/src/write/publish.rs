//! What a sync does: the changes become a new version of the object, or nothing changes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use memobj::ErrorKind;
use tokio::sync::Mutex;

use super::body::Content;
use super::layers::{Layers, Origin};
use super::plan::{Limits, Part, plan};
use super::put;
use super::target::{Condition, Published, Target, publication};
use super::upload::Upload;
use crate::failure::Failure;
use crate::fetch::Base;
use crate::reader::Reader;
use crate::runtime::blocking;
use crate::store::Store;

/// Where bytes come from that were not written, when an object is saved elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unchanged {
    /// From the version that was opened. If another writer has replaced it, saving fails as Stale.
    AsOpened,
    /// From the version that is there now: the changes of this writer, on top of those of the other.
    AsNow,
}

/// Publishes the changes of one object. Writers of one object take turns.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) reader: Arc<Reader>,
    pub(crate) layers: Arc<Layers>,
    pub(crate) target: Target,
    pub(crate) bucket: String,
    /// The generation that is published, for Google Cloud Storage.
    pub(crate) generation: Mutex<Option<String>>,
}

impl Publisher {
    /// Publishes what was written before this call. If that fails, nothing is lost: the next call tries again.
    pub(crate) async fn publish(&self) -> Result<(), Failure> {
        let mut generation = self.generation.lock().await;
        let layers = Arc::clone(&self.layers);
        let Some(snapshot) = blocking(move || layers.begin()).await? else { return Ok(()) };
        let unfinished = Unfinished { layers: Arc::clone(&self.layers), snapshot: Some(snapshot) };
        let pieces = self.layers.pieces_of(snapshot, 0..snapshot.length);
        let content = Arc::new(Content::new(Arc::clone(&self.reader), pieces));
        let base = self.layers.base();
        let (condition, copied_from) = match base.version.tag() {
            Some(_) => {
                (Condition::Replace { base: base.clone(), generation: generation.clone() }, Some(&base))
            }
            None => (Condition::Create, None),
        };
        let published = store(&self.target, &self.bucket, &content, &condition, copied_from).await?;
        unfinished.finish();
        *generation = published.generation;
        self.layers.published(snapshot, published.base);
        Ok(())
    }

    /// Stores the object with its changes as another one, which must not exist.
    pub(crate) async fn save_as(
        &self,
        other: &Target,
        bucket: &str,
        unchanged: Unchanged,
    ) -> Result<(), Failure> {
        let mut pieces = self.layers.pieces(0..self.layers.length());
        if unchanged == Unchanged::AsNow {
            let headers = self.target.head().await?;
            let headers = headers.ok_or_else(|| Failure::new(ErrorKind::Stale, "the object is gone"))?;
            let length = crate::answer::content_length(&headers);
            let length = length.ok_or_else(|| Failure::new(ErrorKind::Integrity, "no length"))?;
            let now = Published::of(&headers, length)?.base;
            pieces = pieces.into_iter().flat_map(|piece| on_top_of(piece, &now)).collect();
        }
        let content = Arc::new(Content::new(Arc::clone(&self.reader), pieces));
        store(other, bucket, &content, &Condition::Create, None).await.map(drop)
    }
}

/// `piece` with the bytes of `now` instead of those of the version that was opened; zeros behind its end.
fn on_top_of(piece: super::layers::Piece, now: &Base) -> Vec<super::layers::Piece> {
    use super::layers::Piece;
    if !matches!(piece.origin, Origin::Base(_)) {
        return vec![piece];
    }
    let middle = now.length.clamp(piece.range.start, piece.range.end);
    let there = Piece { range: piece.range.start..middle, origin: Origin::Base(now.clone()) };
    let behind = Piece { range: middle..piece.range.end, origin: Origin::Zero };
    [there, behind].into_iter().filter(|piece| !piece.range.is_empty()).collect()
}

/// Stores `content` on `condition`: by parts if that moves less, or is needed.
async fn store(
    target: &Target,
    bucket: &str,
    content: &Arc<Content>,
    condition: &Condition,
    copied_from: Option<&Base>,
) -> Result<Published, Failure> {
    let publication = publication();
    let (store, path) = match &target.store {
        Store::S3(store, path) => (store, path),
        other => {
            let known = other.known().ok_or_else(not_writable)?;
            target.check(condition).await?;
            return put::to_other(target, known, content, condition).await;
        }
    };
    let changed = match copied_from {
        Some(_) => content.changed(),
        None => std::iter::once(0..content.length).collect(),
    };
    let parts = plan(&changed, content.length, Limits::S3);
    if !parts.iter().any(|part| matches!(part, Part::Copy(_))) && parts.len() < 2 {
        target.check(condition).await?;
        return put::to_s3(target, (store, path), content, condition, &publication).await;
    }
    // Before bytes travel in vain; and again at the end.
    target.check(condition).await?;
    let cannot_copy = AtomicBool::new(false);
    let upload = Upload { target, store, path, bucket, copied_from, cannot_copy };
    upload.run(content, parts, condition, &publication).await
}

fn not_writable() -> Failure {
    Failure::new(ErrorKind::Denied, "nothing can be published there")
}

/// A publication that has not ended. Dropped, it gives the layers back to the next one.
struct Unfinished {
    layers: Arc<Layers>,
    snapshot: Option<super::layers::Snapshot>,
}

impl Unfinished {
    fn finish(mut self) {
        self.snapshot = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            // If they cannot be merged they stay as they are, which loses nothing.
            let _ = self.layers.not_published(snapshot);
        }
    }
}
