//! A multipart upload: parts are copied inside of the store, or sent; then all take effect at once.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use http::header::{ETAG, HeaderMap, HeaderName, HeaderValue};
use memobj::ErrorKind;
use object_store::aws::AmazonS3;
use object_store::path::Path;

use super::body::Content;
use super::plan::Part;
use super::s3::{self, Call};
use super::target::{Condition, PUBLICATION, Published, Target};
use crate::encoded::encoded;
use crate::failure::Failure;
use crate::fetch::Base;
use crate::version::Version;
use crate::xml;

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const COPY_RANGE: HeaderName = HeaderName::from_static("x-amz-copy-source-range");
const COPY_IF_MATCH: HeaderName = HeaderName::from_static("x-amz-copy-source-if-match");
/// Parts under way at once.
const AT_ONCE: usize = 4;
/// How long the store may take to make one object of many parts.
const COMPLETION: Duration = Duration::from_secs(600);
/// A store copies at least so many bytes each second.
const SLOWEST_COPY: u64 = 4 << 20;

/// One upload to S3.
pub(crate) struct Upload<'a> {
    pub(crate) target: &'a Target,
    pub(crate) store: &'a AmazonS3,
    pub(crate) path: &'a Path,
    pub(crate) bucket: &'a str,
    /// What parts can be copied from.
    pub(crate) copied_from: Option<&'a Base>,
    /// The store refused to copy a range: all is sent.
    pub(crate) cannot_copy: AtomicBool,
}

impl Upload<'_> {
    /// Uploads `content` in `parts`; they take effect on `condition`. Whatever fails, no part is left if the store can be
    /// reached.
    pub(crate) async fn run(
        &self,
        content: &Arc<Content>,
        parts: Vec<Part>,
        condition: &Condition,
        publication: &HeaderValue,
    ) -> Result<Published, Failure> {
        let id = self.create(publication).await?;
        let guard = AbortGuard::new(self, id.clone());
        let done = self.fill(&id, content, parts, condition, publication).await;
        guard.defuse();
        if done.is_err() {
            // What cannot be removed is found by `left_uploads`.
            let _ = abort(self.target, self.store, self.path, &id).await;
        }
        done
    }

    async fn call(&self, method: Method, call: Call) -> Result<reqwest::Response, Failure> {
        s3::send((self.store, &self.target.transport), method, self.path, call).await
    }

    async fn create(&self, publication: &HeaderValue) -> Result<String, Failure> {
        let mut call = Call::query([("uploads", String::new())]);
        call.signed = self.target.kept.clone();
        call.signed.insert(PUBLICATION, publication.clone());
        let response = self.call(Method::POST, call).await?;
        let answer = s3::text(&self.target.transport, response).await?;
        xml::text(&answer, "UploadId").ok_or_else(|| not_understood("UploadId"))
    }

    async fn fill(
        &self,
        id: &str,
        content: &Arc<Content>,
        parts: Vec<Part>,
        condition: &Condition,
        publication: &HeaderValue,
    ) -> Result<Published, Failure> {
        let numbered = (1_u32..).zip(parts);
        let tags: Vec<String> = stream::iter(numbered)
            .map(|(number, part)| self.part_with_retries(id, number, part, content))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        self.target.check(condition).await?;
        match self.complete(id, &tags, condition).await {
            Ok(tag) => {
                let base = Base { version: Version::Tag(tag), length: content.length, is_whole: false };
                Ok(Published { base, generation: None })
            }
            Err(failure) => self.target.settle(publication, condition, failure).await,
        }
    }

    /// The tag of a part that was uploaded.
    async fn part_with_retries(
        &self,
        id: &str,
        number: u32,
        part: Part,
        content: &Arc<Content>,
    ) -> Result<String, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.part(id, number, &part, content).await {
                Ok(tag) => return Ok(tag),
                Err(failure) => {
                    let failure = content.take_failure().unwrap_or(failure);
                    self.target.pause(tries, failure).await?;
                }
            }
        }
    }

    async fn part(
        &self,
        id: &str,
        number: u32,
        part: &Part,
        content: &Arc<Content>,
    ) -> Result<String, Failure> {
        match (part, self.copied_from) {
            (Part::Copy(range), Some(base)) if !self.cannot_copy.load(Ordering::Relaxed) => {
                match self.copy(id, number, range, base).await {
                    Err(failure) if matches!(failure.status, Some(400 | 405 | 501)) => {
                        self.cannot_copy.store(true, Ordering::Relaxed);
                        self.send(id, number, range, content).await
                    }
                    copied => copied,
                }
            }
            (Part::Copy(range) | Part::Send(range), _) => self.send(id, number, range, content).await,
        }
    }

    /// UploadPartCopy (Amazon S3 API Reference).
    async fn copy(&self, id: &str, number: u32, range: &Range<u64>, base: &Base) -> Result<String, Failure> {
        let mut call = part_query(id, number);
        call.patience = Duration::from_secs((range.end - range.start) / SLOWEST_COPY);
        let source = format!("{}/{}", self.bucket, encoded(self.path.as_ref()));
        let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let mut headers = vec![(COPY_SOURCE, source), (COPY_RANGE, bytes)];
        headers.extend(base.version.tag().map(|tag| (COPY_IF_MATCH, tag.to_owned())));
        for (name, value) in headers {
            let value = HeaderValue::from_str(&value)
                .map_err(|error| Failure::because(ErrorKind::Denied, "the name of the object", error))?;
            call.signed.insert(name, value);
        }
        let response = self.call(Method::PUT, call).await?;
        let answer = s3::text(&self.target.transport, response).await?;
        self.target.transport.counters.copied_parts.add(1);
        xml::text(&answer, "ETag").ok_or_else(|| not_understood("ETag"))
    }

    async fn send(
        &self,
        id: &str,
        number: u32,
        range: &Range<u64>,
        content: &Arc<Content>,
    ) -> Result<String, Failure> {
        let mut call = part_query(id, number);
        call.body = Some((content.body(range.clone()), range.end - range.start));
        let response = self.call(Method::PUT, call).await?;
        self.target.transport.counters.sent_parts.add(1);
        tag(response.headers()).ok_or_else(|| not_understood("ETag"))
    }

    async fn complete(&self, id: &str, tags: &[String], condition: &Condition) -> Result<String, Failure> {
        let parts: String = (1_u32..)
            .zip(tags)
            .map(|(number, tag)| {
                format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", xml::escaped(tag))
            })
            .collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let mut call = Call::query([("uploadId", id.to_owned())]).with(condition.header());
        call.body = Some((body.into(), length));
        call.patience = COMPLETION;
        let response = self.call(Method::POST, call).await?;
        let answer = s3::text(&self.target.transport, response).await?;
        // In headers, of which answers are compared, an ETag has quotes always.
        let tag = xml::text(&answer, "ETag").ok_or_else(|| not_understood("ETag"))?;
        Ok(if tag.starts_with('"') { tag } else { format!("\"{tag}\"") })
    }
}

fn part_query(id: &str, number: u32) -> Call {
    Call::query([("partNumber", number.to_string()), ("uploadId", id.to_owned())])
}

pub(crate) fn tag(headers: &HeaderMap) -> Option<String> {
    headers.get(ETAG)?.to_str().ok().map(str::to_owned)
}

fn not_understood(what: &str) -> Failure {
    Failure::new(ErrorKind::Integrity, format!("the answer has no {what}"))
}

/// Removes an upload and its parts.
pub(crate) async fn abort(target: &Target, store: &AmazonS3, path: &Path, id: &str) -> Result<(), Failure> {
    let call = Call::query([("uploadId", id.to_owned())]);
    s3::send((store, &target.transport), Method::DELETE, path, call).await.map(drop)
}

/// Removes an upload whose task is dropped: the object was closed.
struct AbortGuard(Option<(Target, AmazonS3, Path, String)>);

impl AbortGuard {
    fn new(upload: &Upload<'_>, id: String) -> Self {
        Self(Some((upload.target.clone(), upload.store.clone(), upload.path.clone(), id)))
    }

    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortGuard {
    fn drop(&mut self) {
        if let (Some((target, store, path, id)), Ok(runtime)) = (self.0.take(), crate::runtime::handle()) {
            runtime.spawn(async move { abort(&target, &store, &path, &id).await });
        }
    }
}
