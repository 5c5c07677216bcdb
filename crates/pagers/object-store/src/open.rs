//! The first question to a server: length and version.
//!
//! Stores are asked by HEAD. A web server is asked for the first byte instead: also in one round trip, it tells whether
//! the server has ranges, which no answer to HEAD does; and servers that refuse HEAD answer it.

use http::StatusCode;
use http::header::HeaderMap;
use memobj::ErrorKind;
use reqwest::Response;

use crate::answer::{self, ContentRange};
use crate::failure::Failure;
use crate::fetch::{Base, Fetcher};
use crate::options::{ObjectStoreOptions, VersionTrust};
use crate::transport::Transport;
use crate::version::Version;

/// What the first answer said.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) base: Base,
    /// All headers: a new version keeps some of them.
    pub(crate) headers: HeaderMap,
}

/// Asks for length and version.
pub(crate) async fn open(fetcher: &Fetcher, options: &ObjectStoreOptions) -> Result<Opened, Failure> {
    let opened = match fetcher.store.is_web() {
        true => open_web(fetcher, options).await?,
        false => match open_store(fetcher).await {
            Err(failure) if options.creates && failure.status == Some(404) => return Ok(absent()),
            opened => opened?,
        },
    };
    if opened.base.version == Version::Untold
        && opened.base.length > 0
        && options.version_trust == VersionTrust::Required
    {
        let what = "the server names no version of it (no strong ETag, no Last-Modified), so that a change could not \
                    be noticed; version=none opens it nevertheless";
        return Err(Failure::new(ErrorKind::Denied, what));
    }
    Ok(opened)
}

/// An object that is to be made: without a version, and empty.
fn absent() -> Opened {
    let base = Base { version: Version::Untold, length: 0, is_whole: false };
    Opened { base, headers: HeaderMap::new() }
}

/// The failure of an answer to the first question: a status that later means "not there any more" means "not there" now.
pub(crate) async fn refused(transport: &Transport, response: Response) -> Failure {
    let mut failure = transport.refusal(response).await;
    if failure.kind == ErrorKind::Stale {
        failure.kind = ErrorKind::Denied;
    }
    failure
}

async fn open_store(fetcher: &Fetcher) -> Result<Opened, Failure> {
    let response = fetcher.transport.send(fetcher.store.head().await?).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(&fetcher.transport, response).await);
    }
    let headers = response.headers().clone();
    let length = answer::content_length(&headers).ok_or_else(no_length)?;
    let base = Base { version: Version::of(&headers), length, is_whole: false };
    Ok(Opened { base, headers })
}

async fn open_web(fetcher: &Fetcher, options: &ObjectStoreOptions) -> Result<Opened, Failure> {
    let request = fetcher.store.get(Some(0..1), &Version::Untold).await?;
    let mut response = fetcher.transport.send(request).await?;
    let headers = response.headers().clone();
    let range = ContentRange::of(&headers);
    let (length, is_whole) = match (response.status(), range) {
        (StatusCode::PARTIAL_CONTENT, Some(range)) => (range.total.ok_or_else(no_length)?, false),
        // Of an empty object there is no first byte.
        (StatusCode::RANGE_NOT_SATISFIABLE, Some(ContentRange { total: Some(0), .. })) => (0, false),
        (StatusCode::OK, _) => (without_ranges(&headers, options)?, true),
        (StatusCode::PARTIAL_CONTENT, None) => return Err(no_length()),
        _ => return Err(refused(&fetcher.transport, response).await),
    };
    answer::check_encoding(&headers)?;
    if !is_whole {
        // So that the connection can be used again.
        while let Ok(Some(_)) = fetcher.transport.chunk(&mut response).await {}
    }
    Ok(Opened { base: Base { version: Version::of(&headers), length, is_whole }, headers })
}

/// The length of an object of a server that ignored a range.
fn without_ranges(headers: &HeaderMap, options: &ObjectStoreOptions) -> Result<u64, Failure> {
    let length = answer::content_length(headers).ok_or_else(no_length)?;
    if length <= options.block_bytes {
        return Ok(length);
    }
    let what = format!(
        "the server does not support ranges: it answered a request for one byte with all {length}, which is more than \
         one block of {}",
        options.block_bytes
    );
    Err(Failure::new(ErrorKind::Denied, what))
}

fn no_length() -> Failure {
    Failure::new(ErrorKind::Denied, "the server does not say how long the object is")
}
