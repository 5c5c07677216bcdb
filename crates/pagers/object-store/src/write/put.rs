//! A new version by one request.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::HeaderValue;
use memobj::ErrorKind;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::body::Content;
use super::s3::{self, Call};
use super::target::{Condition, PUBLICATION, Published, Target};
use crate::capture::Slot;
use crate::failure::Failure;
use crate::store::no_credentials;

/// The largest object that is published to a store other than S3: it is in memory meanwhile.
const LARGEST_IN_MEMORY: u64 = 64 << 20;

/// PutObject of S3. The body is a stream.
pub(crate) async fn to_s3(
    target: &Target,
    (store, path): (&AmazonS3, &Path),
    content: &Arc<Content>,
    condition: &Condition,
    publication: &HeaderValue,
) -> Result<Published, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut call = Call::default().with(condition.header());
        call.signed = target.kept.clone();
        call.signed.insert(PUBLICATION, publication.clone());
        call.body = Some((content.body(0..content.length), content.length));
        match s3::send((store, &target.transport), Method::PUT, path, call).await {
            Ok(response) => {
                target.transport.counters.sent_parts.add(1);
                return match Published::of(response.headers(), content.length) {
                    Ok(published) => Ok(published),
                    Err(failure) => target.settle(publication, condition, failure).await,
                };
            }
            Err(failure) => match content.take_failure() {
                // The bytes could not be read: nothing was published.
                Some(failure) => target.pause(tries, failure).await?,
                None => match target.settle(publication, condition, failure).await {
                    Ok(published) => return Ok(published),
                    Err(failure) => target.pause(tries, failure).await?,
                },
            },
        }
    }
}

/// A conditional PUT as object_store forms it, of all bytes in memory.
pub(crate) async fn to_other(
    target: &Target,
    (store, path): (&dyn ObjectStore, &Path),
    content: &Arc<Content>,
    condition: &Condition,
) -> Result<Published, Failure> {
    if content.length > LARGEST_IN_MEMORY {
        let what = format!(
            "{} bytes are published by one request; at most {LARGEST_IN_MEMORY} can be",
            content.length
        );
        return Err(Failure::new(ErrorKind::NoSpace, what));
    }
    let bytes = content.bytes(0..content.length).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        match put_once(target, (store, path), bytes.clone(), condition).await {
            Ok(published) => {
                target.transport.counters.sent_parts.add(1);
                return Ok(published);
            }
            // Without a name for the publication a lost answer cannot be told from another writer: Stale then.
            Err(failure) => target.pause(tries, failure).await?,
        }
    }
}

async fn put_once(
    target: &Target,
    (store, path): (&dyn ObjectStore, &Path),
    bytes: Bytes,
    condition: &Condition,
) -> Result<Published, Failure> {
    let slot = Slot::default();
    let mode = match condition {
        Condition::Create => PutMode::Create,
        Condition::Replace { base, generation } => PutMode::Update(UpdateVersion {
            e_tag: base.version.tag().map(str::to_owned),
            version: generation.clone(),
        }),
    };
    let mut options = PutOptions { mode, ..PutOptions::default() };
    options.extensions.insert(slot.clone());
    let outcome = store.put_opts(path, PutPayload::from(bytes.clone()), options).await;
    let request = slot.take().ok_or_else(|| no_credentials(outcome.err()))?;
    let (parts, _) = request.into_parts();
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let request = reqwest::Request::try_from(http::Request::from_parts(parts, reqwest::Body::from(bytes)))
        .map_err(|error| {
            Failure::because(ErrorKind::Io, "a request that cannot be formed", error.without_url())
        })?;
    let response = target.transport.send(request).await?;
    match response.status().is_success() {
        true => Published::of(response.headers(), length),
        false => Err(target.transport.refusal(response).await),
    }
}
