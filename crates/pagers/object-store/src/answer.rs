//! What an answer has to be before it is data. The table is in `docs/network.md`.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RETRY_AFTER};
use memobj::ErrorKind;

use crate::failure::Failure;
use crate::version::{Agreement, Version};

/// What was asked for, and of what.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) version: Version,
    /// Bytes of the object when it was opened.
    pub(crate) length: u64,
    pub(crate) range: Range<u64>,
    /// The server has no ranges: all of the object was asked for.
    pub(crate) is_whole: bool,
}

/// What Content-Range says (RFC 9110, 14.4): the first and last byte, and the length of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ContentRange {
    pub(crate) bytes: Option<(u64, u64)>,
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
        let (bytes, total) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
        let bytes = match bytes {
            "*" => None,
            _ => {
                let (first, last) = bytes.split_once('-')?;
                Some((first.parse().ok()?, last.parse().ok()?))
            }
        };
        let total = if total == "*" { None } else { Some(total.parse().ok()?) };
        Some(Self { bytes, total })
    }
}

/// Content-Length; `None` if there is none or it is no number.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Refuses bytes that are compressed: they are not the object's.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"" | b"identity") => Ok(()),
        Some(encoding) => {
            let encoding = String::from_utf8_lossy(encoding);
            Err(integrity(format!("the answer is encoded as {encoding:?}, which was not asked for")))
        }
    }
}

fn integrity(what: String) -> Failure {
    Failure::new(ErrorKind::Integrity, what)
}

/// Checks the head of an answer with status 200 or 206 against what was asked for.
pub(crate) fn check(expected: &Expected, status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    check_version(expected, headers)?;
    match (status, expected.is_whole) {
        (StatusCode::PARTIAL_CONTENT, false) => check_range(expected, headers)?,
        (StatusCode::OK, true) => {}
        // A range that is the whole object may be answered by the whole object.
        (StatusCode::OK, false) if expected.range == (0..expected.length) => {}
        (status, _) => {
            return Err(integrity(format!("status {status} for a range: the server ignored the range")));
        }
    }
    check_length(expected, headers)
}

fn check_version(expected: &Expected, headers: &HeaderMap) -> Result<(), Failure> {
    match expected.version.compare(headers) {
        Agreement::Same => Ok(()),
        Agreement::Other(version) => {
            let opened = expected.version.name(expected.length).unwrap_or_default();
            let what = format!("the server answers with version {version}, opened was {opened}");
            Err(Failure::new(ErrorKind::Stale, what))
        }
        Agreement::Missing => Err(integrity("the answer names no version".into())),
    }
}

fn check_range(expected: &Expected, headers: &HeaderMap) -> Result<(), Failure> {
    let range = ContentRange::of(headers)
        .ok_or_else(|| integrity("the answer has no Content-Range that can be read".into()))?;
    if let Some(total) = range.total.filter(|&total| total != expected.length) {
        let what = format!("the object has {total} bytes now, opened was one of {}", expected.length);
        return Err(Failure::new(ErrorKind::Stale, what));
    }
    let wanted = (expected.range.start, expected.range.end.saturating_sub(1));
    if range.bytes != Some(wanted) {
        let got = range.bytes.map_or("none".into(), |(first, last)| format!("{first}-{last}"));
        return Err(integrity(format!("asked for bytes {}-{}, the answer has {got}", wanted.0, wanted.1)));
    }
    Ok(())
}

fn check_length(expected: &Expected, headers: &HeaderMap) -> Result<(), Failure> {
    let wanted = expected.range.end - expected.range.start;
    match content_length(headers) {
        // Without a length the body is counted.
        None => Ok(()),
        Some(length) if length == wanted => Ok(()),
        Some(length) if length < wanted => {
            Err(Failure::new(ErrorKind::Truncated, format!("the answer has {length} bytes of {wanted}")))
        }
        Some(length) => Err(integrity(format!("the answer has {length} bytes instead of {wanted}"))),
    }
}

/// The failure that an answer with this status is, for an object that was opened. `body` is its beginning.
pub(crate) fn refusal(status: StatusCode, headers: &HeaderMap, body: &str) -> Failure {
    let kind = match status.as_u16() {
        401 | 403 => ErrorKind::Denied,
        404 | 410 | 412 | 416 => ErrorKind::Stale,
        _ => ErrorKind::Io,
    };
    let detail = detail(body).map_or(String::new(), |detail| format!(" ({detail})"));
    let mut failure = Failure::new(kind, format!("the server answers {status}{detail}"));
    failure.status = Some(status.as_u16());
    failure.retry_after = retry_after(headers, SystemTime::now());
    failure
}

/// The code and message in an XML error of S3, Google Cloud Storage or Azure.
fn detail(body: &str) -> Option<String> {
    let code = element(body, "Code")?;
    Some(match element(body, "Message") {
        Some(message) => format!("{code}: {}", message.lines().next().unwrap_or("")),
        None => code.to_owned(),
    })
}

/// The text of the first element with this name.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// Retry-After in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
