//! Which conditions a server honours.

use std::sync::Arc;

use http::StatusCode;

use crate::error::{ObjectStoreError, Step};
use crate::failure::Failure;
use crate::fetch::Fetcher;
use crate::location::Location;
use crate::open::refused;
use crate::opening::open_at;
use crate::options::ObjectStoreOptions;
use crate::reader::Source;
use crate::runtime;
use crate::version::Version;

/// By what versions of an object are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ComparedBy {
    /// An entity tag (RFC 9110, 8.8.3).
    EntityTag,
    /// The date of the last change: changes within one second that keep the length are not seen.
    LastModified,
    /// Nothing: no change is seen.
    Nothing,
}

/// What a server does with conditions of requests. Answers are compared here in any case.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Conditions {
    /// By what versions are told apart.
    pub compared_by: ComparedBy,
    /// Whether the server answers for parts of the object.
    pub ranges: bool,
    /// Whether the server itself refuses a request for a version that is gone: then no byte of another one is moved.
    pub refuses_other_versions: bool,
}

/// Asks the server of the object at `url` which conditions it honours. Changes nothing. Blocks for three round trips.
///
/// # Errors
///
/// As [`ObjectStorePager::open`](crate::ObjectStorePager::open).
pub fn conditions(url: &str, options: ObjectStoreOptions) -> Result<Conditions, ObjectStoreError> {
    let location = Location::parse(url)?;
    let shown = Arc::clone(&location.shown);
    let failed = |failure| ObjectStoreError::new(Step::Open, &shown, failure);
    let asked = runtime::wait_for(async move {
        let shared = open_at(&location, &options).await?;
        let base = &shared.base;
        let Source::Server(fetcher) = &shared.reader.source else {
            let compared_by = ComparedBy::EntityTag;
            return Ok(Ok(Conditions { compared_by, ranges: true, refuses_other_versions: true }));
        };
        Ok(ask(fetcher, &base.version, base.is_whole).await)
    });
    asked.unwrap_or_else(|error| Ok(Err(error.into())))?.map_err(failed)
}

async fn ask(fetcher: &Fetcher, version: &Version, is_whole: bool) -> Result<Conditions, Failure> {
    let (compared_by, other) = match version {
        Version::Tag(_) => (ComparedBy::EntityTag, Version::Tag("\"no-version-has-this-tag\"".into())),
        Version::Modified(_) => {
            (ComparedBy::LastModified, Version::Modified("Thu, 01 Jan 1970 00:00:01 GMT".into()))
        }
        Version::Untold => (ComparedBy::Nothing, Version::Untold),
    };
    let status = status(fetcher, version).await?;
    let ranges = !is_whole && status != StatusCode::OK;
    let refuses_other_versions = match compared_by {
        ComparedBy::Nothing => false,
        _ => self::status(fetcher, &other).await? == StatusCode::PRECONDITION_FAILED,
    };
    Ok(Conditions { compared_by, ranges, refuses_other_versions })
}

/// What a request for the first byte is answered, on condition that the object is of this version. The body is dropped.
async fn status(fetcher: &Fetcher, version: &Version) -> Result<StatusCode, Failure> {
    let request = fetcher.store.get(Some(0..1), version).await?;
    let response = fetcher.transport.send(request).await?;
    match response.status() {
        // Of an object without bytes there is no first one.
        status @ (StatusCode::OK
        | StatusCode::PARTIAL_CONTENT
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::RANGE_NOT_SATISFIABLE) => Ok(status),
        _ => Err(refused(&fetcher.transport, response).await),
    }
}
