//! Uploads that were begun and neither ended nor removed: their writer was killed, or lost its store. Their parts cost
//! money.

use std::sync::Arc;

use http::Method;
use memobj::ErrorKind;
use object_store::path::Path;

use super::s3::{self, Call};
use super::target::Target;
use super::upload;
use crate::counters::Counters;
use crate::error::{ObjectStoreError, Step};
use crate::failure::Failure;
use crate::location::Location;
use crate::options::ObjectStoreOptions;
use crate::runtime;
use crate::store::Store;
use crate::transport::Transport;
use crate::xml;

/// An upload of parts that is not complete.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LeftUpload {
    /// The name of the object in its bucket.
    pub key: String,
    /// What the store calls the upload.
    pub id: String,
    /// When it was begun, as the store writes it.
    pub begun: String,
}

/// The uploads of the object at `url`, or of all whose names begin with its. One may be under way right now. Blocks.
///
/// # Errors
///
/// If `url` is not of S3, or the store refuses. At most 1000 are listed at once.
pub fn left_uploads(url: &str, options: &ObjectStoreOptions) -> Result<Vec<LeftUpload>, ObjectStoreError> {
    run(url, options, Step::ListUploads, |target| async move {
        let (store, path) = parts(&target.store)?;
        let call = Call::query([("uploads", String::new()), ("prefix", path.to_string())]);
        let bucket = Path::default();
        let response = s3::send((store, &target.transport), Method::GET, &bucket, call).await?;
        let answer = s3::text(&target.transport, response).await?;
        let uploads = xml::all(&answer, "Upload").into_iter();
        Ok(uploads.filter_map(left_upload).collect())
    })
}

fn left_upload(element: &str) -> Option<LeftUpload> {
    let text = |name| xml::text(element, name);
    Some(LeftUpload {
        key: text("Key")?,
        id: text("UploadId")?,
        begun: text("Initiated").unwrap_or_default(),
    })
}

/// Removes an upload of the bucket of `url`, and its parts. Blocks.
///
/// # Errors
///
/// If there is none such, or the store refuses.
pub fn abort_upload(
    url: &str,
    options: &ObjectStoreOptions,
    left: &LeftUpload,
) -> Result<(), ObjectStoreError> {
    let left = left.clone();
    run(url, options, Step::AbortUpload, |target| async move {
        let (store, _) = parts(&target.store)?;
        let path = Path::parse(&left.key)
            .map_err(|error| Failure::because(ErrorKind::Denied, format!("its name: {error}"), error))?;
        upload::abort(&target, store, &path, &left.id).await
    })
}

fn parts(store: &Store) -> Result<(&object_store::aws::AmazonS3, &Path), Failure> {
    match store {
        Store::S3(store, path) => Ok((store, path)),
        _ => Err(Failure::new(ErrorKind::Denied, "only S3 has such uploads")),
    }
}

/// Does `work` for the store of `url`.
fn run<T, F>(
    url: &str,
    options: &ObjectStoreOptions,
    step: Step,
    work: impl FnOnce(Target) -> F,
) -> Result<T, ObjectStoreError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let location = Location::parse(url)?;
    let failed = |failure| ObjectStoreError::new(step.clone(), &location.shown, failure);
    let store = Store::new(&location, options).map_err(failed)?;
    let transport = Transport {
        counters: Arc::new(Counters::default()),
        clock: options.clock.clone(),
        timeout: options.request_timeout,
    };
    let target = Target { store, transport, kept: Default::default() };
    let done = runtime::wait_for(work(target));
    done.unwrap_or_else(|error| Err(error.into())).map_err(failed)
}
