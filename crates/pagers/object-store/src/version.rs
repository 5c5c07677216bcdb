//! Which version of an object an answer is of.

use std::time::{Duration, SystemTime};

use http::header::{
    DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
};

/// After this time a change has another date: dates have a grain of a second.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What names a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    /// A strong entity tag (RFC 9110, 8.8.3), with its quotes if the server sends them.
    Tag(String),
    /// The date of Last-Modified. The length belongs to it, and is compared with every answer in any case. Sees no
    /// change of the same length within one second.
    Modified(String),
    /// The server names none.
    Untold,
}

/// How an answer's version compares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Agreement {
    Same,
    /// This is another version.
    Other(String),
    /// The answer does not say.
    Missing,
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

/// Whether the next change of an object of a web server is sure to have another version: not if it was changed so shortly
/// before the answer that the next could have the same date (RFC 9110, 8.8.2.2). Tags of web servers are often made of that
/// date and the length.
pub(crate) fn is_settled(headers: &HeaderMap) -> bool {
    let date = |name| -> Option<SystemTime> { httpdate::parse_http_date(text(headers, name)?).ok() };
    let Some(changed) = date(LAST_MODIFIED) else { return true };
    date(DATE).is_some_and(|answered| answered.duration_since(changed).is_ok_and(|age| age >= SETTLED_AFTER))
}

impl Version {
    /// The version that `headers` name. Weak entity tags name none: two objects with the same one can differ in bytes.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match (text(headers, ETAG), text(headers, LAST_MODIFIED)) {
            (Some(tag), _) if !tag.starts_with("W/") => Self::Tag(tag.to_owned()),
            (_, Some(date)) => Self::Modified(date.to_owned()),
            _ => Self::Untold,
        }
    }

    /// Its name for users.
    pub(crate) fn name(&self, length: u64) -> Option<String> {
        match self {
            Self::Tag(tag) => Some(tag.clone()),
            Self::Modified(date) => Some(format!("{date}, {length} bytes")),
            Self::Untold => None,
        }
    }

    /// The entity tag, if that is what names it.
    pub(crate) fn tag(&self) -> Option<&str> {
        match self {
            Self::Tag(tag) => Some(tag),
            Self::Modified(_) | Self::Untold => None,
        }
    }

    /// The header that has a server answer for this version only.
    pub(crate) fn condition(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::Tag(tag) => (IF_MATCH, tag),
            Self::Modified(date) => (IF_UNMODIFIED_SINCE, date),
            Self::Untold => return None,
        };
        Some((name, HeaderValue::from_str(value).ok()?))
    }

    /// Whether an answer with these headers is of this version. Compared whatever conditions the server honours.
    pub(crate) fn compare(&self, headers: &HeaderMap) -> Agreement {
        let (named, answer) = match self {
            Self::Untold => return Agreement::Same,
            Self::Tag(tag) => (tag, text(headers, ETAG)),
            Self::Modified(date) => (date, text(headers, LAST_MODIFIED)),
        };
        match answer {
            None => Agreement::Missing,
            Some(answer) if answer == named => Agreement::Same,
            Some(answer) => Agreement::Other(answer.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_strong_tag_is_a_version_and_a_weak_one_is_none() {
        let date = "Tue, 01 Dec 2026 00:00:00 GMT";
        let strong = headers(&[(ETAG, "\"a\""), (LAST_MODIFIED, date)]);
        assert_eq!(Version::of(&strong), Version::Tag("\"a\"".into()));
        assert_eq!(
            Version::of(&headers(&[(ETAG, "W/\"a\""), (LAST_MODIFIED, date)])),
            Version::Modified(date.into())
        );
        assert_eq!(Version::of(&headers(&[(ETAG, "W/\"a\"")])), Version::Untold);
    }

    #[test]
    fn a_change_has_to_be_older_than_the_grain_of_dates() {
        let second = |second: u32| format!("Tue, 01 Dec 2026 00:00:{second:02} GMT");
        let at = |changed, answered| {
            is_settled(&headers(&[(LAST_MODIFIED, &second(changed)), (DATE, &second(answered))]))
        };
        assert!(at(10, 12) && at(10, 59));
        assert!(!at(10, 10) && !at(10, 11) && !at(11, 10));
        assert!(!is_settled(&headers(&[(LAST_MODIFIED, &second(10))])), "without a date of the answer");
        assert!(is_settled(&headers(&[(ETAG, "\"a\"")])));
    }

    #[test]
    fn an_answer_has_to_name_the_same_version() {
        let version = Version::Tag("\"a\"".into());
        assert_eq!(version.compare(&headers(&[(ETAG, "\"a\"")])), Agreement::Same);
        assert_eq!(version.compare(&headers(&[(ETAG, "\"b\"")])), Agreement::Other("\"b\"".into()));
        assert_eq!(version.compare(&headers(&[(ETAG, "W/\"a\"")])), Agreement::Other("W/\"a\"".into()));
        assert_eq!(version.compare(&HeaderMap::new()), Agreement::Missing);
    }
}
