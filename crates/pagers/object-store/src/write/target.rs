//! The object that a new version is published as, and on what condition.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES, HeaderMap,
    HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};
use memobj::ErrorKind;

use crate::answer;
use crate::failure::Failure;
use crate::fetch::Base;
use crate::store::Store;
use crate::transport::Transport;
use crate::version::Version;

/// Metadata of users begin so.
const META: &str = "x-amz-meta-";
/// Which publication made a version, so that one whose answer was lost can be found.
pub(crate) const PUBLICATION: HeaderName = HeaderName::from_static("x-amz-meta-memobj-publication");
/// Which generation an object of Google Cloud Storage is.
const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");
/// How often a request of a publication is sent.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// What has to hold when a new version takes effect.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// The published version is this one still.
    Replace { base: Base, generation: Option<String> },
    /// There is no such object.
    Create,
}

impl Condition {
    /// The header that says so.
    pub(crate) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Create => Some((IF_NONE_MATCH, HeaderValue::from_static("*"))),
            Self::Replace { base, .. } => Some((IF_MATCH, HeaderValue::from_str(base.version.tag()?).ok()?)),
        }
    }
}

/// A version that was published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) base: Base,
    pub(crate) generation: Option<String>,
}

impl Published {
    /// The version that `headers` name, if they name one. A version without a name could not be told from those of others, so
    /// that nothing could be read any more.
    pub(crate) fn of(headers: &HeaderMap, length: u64) -> Result<Self, Failure> {
        let version = Version::of(headers);
        if version.tag().is_none() {
            let what = "the store does not name the version that it took";
            return Err(Failure::new(ErrorKind::Integrity, what));
        }
        Ok(Self { base: Base { version, length, is_whole: false }, generation: generation(headers) })
    }
}

/// The generation that an answer of Google Cloud Storage names.
pub(crate) fn generation(headers: &HeaderMap) -> Option<String> {
    headers.get(&GENERATION).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// An object of a store.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) store: Store,
    pub(crate) transport: Transport,
    /// Metadata that a new version has, too.
    pub(crate) kept: HeaderMap,
}

/// The headers of an answer that are metadata of the object.
pub(crate) fn kept(headers: &HeaderMap) -> HeaderMap {
    let standard =
        [CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES];
    let is_kept = |name: &HeaderName| {
        standard.contains(name) || name.as_str().starts_with(META) && *name != PUBLICATION
    };
    let kept = headers.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A name for one publication that no other has.
pub(crate) fn publication() -> HeaderValue {
    let half = || RandomState::new().build_hasher().finish();
    let name = format!("{:016x}{:016x}", half(), half());
    HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("0"))
}

impl Target {
    /// The headers of the object; `None` if there is none.
    pub(crate) async fn head(&self) -> Result<Option<HeaderMap>, Failure> {
        let response = self.transport.send(self.store.head().await?).await?;
        match response.status() {
            StatusCode::OK => Ok(Some(response.headers().clone())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.transport.refusal(response).await),
        }
    }

    /// Looks whether `condition` holds now. The store is to look again in the moment of the change; some do not.
    pub(crate) async fn check(&self, condition: &Condition) -> Result<(), Failure> {
        let headers = self.head().await?;
        match (condition, headers) {
            (Condition::Create, None) => Ok(()),
            (Condition::Create, Some(_)) => Err(stale("there is an object of that name")),
            (Condition::Replace { .. }, None) => Err(stale("the object is gone")),
            (Condition::Replace { base, .. }, Some(headers)) => match Version::of(&headers) == base.version {
                true => Ok(()),
                false => Err(another_version(base, &Version::of(&headers))),
            },
        }
    }

    /// What became of a publication whose last request failed with `failure`: it may have taken effect all the same.
    pub(crate) async fn settle(
        &self,
        publication: &HeaderValue,
        condition: &Condition,
        failure: Failure,
    ) -> Result<Published, Failure> {
        let Ok(headers) = self.head().await else { return Err(failure) };
        if let Some(headers) =
            headers.as_ref().filter(|headers| headers.get(&PUBLICATION) == Some(publication))
        {
            let length = answer::content_length(headers);
            let length = length.ok_or_else(|| Failure::new(ErrorKind::Integrity, "no length"))?;
            return Published::of(headers, length);
        }
        if failure.kind != ErrorKind::Stale {
            return Err(failure);
        }
        match self.check(condition).await {
            // The condition holds: what is gone is the upload, not the object.
            Ok(()) => Err(Failure { kind: ErrorKind::Io, ..failure }),
            Err(why) => Err(why),
        }
    }

    /// Pauses before try number `tries` + 1 of a request; or returns `failure` if there is to be none.
    pub(crate) async fn pause(&self, tries: u32, failure: Failure) -> Result<(), Failure> {
        if tries >= TRIES || !failure.kind.may_retry() {
            return Err(failure);
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << tries.min(8));
        self.transport.counters.retries_asked.add(1);
        crate::time::sleep(&self.transport.clock, pause.max(failure.retry_after.unwrap_or_default())).await;
        Ok(())
    }
}

fn stale(what: &str) -> Failure {
    Failure::new(ErrorKind::Stale, what)
}

fn another_version(base: &Base, now: &Version) -> Failure {
    let name = |version: &Version| version.name(base.length).unwrap_or_default();
    stale(&format!("it is at version {} now, the changes are of {}", name(now), name(&base.version)))
}
