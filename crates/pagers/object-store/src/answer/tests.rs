use http::header::{ETAG, HeaderName, HeaderValue};

use super::*;

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

fn expected(range: Range<u64>) -> Expected {
    Expected { version: Version::Tag("\"a\"".into()), length: 100, range, is_whole: false }
}

fn answered(status: u16, pairs: &[(HeaderName, &str)]) -> Result<(), ErrorKind> {
    let status = StatusCode::from_u16(status).unwrap();
    check(&expected(10..20), status, &headers(pairs)).map_err(|failure| failure.kind)
}

#[test]
fn only_the_range_that_was_asked_for_is_an_answer() {
    let tag = (ETAG, "\"a\"");
    let range = (CONTENT_RANGE, "bytes 10-19/100");
    assert_eq!(answered(206, &[tag.clone(), range.clone(), (CONTENT_LENGTH, "10")]), Ok(()));
    assert_eq!(answered(206, &[tag.clone(), range.clone()]), Ok(()));
    assert_eq!(answered(206, &[tag.clone(), (CONTENT_RANGE, "bytes 10-19/*")]), Ok(()));
    let cases = [
        (206, "bytes 10-18/100", "9", ErrorKind::Integrity),
        (206, "bytes 11-20/100", "10", ErrorKind::Integrity),
        (206, "bytes */100", "10", ErrorKind::Integrity),
        (206, "bytes 10-19", "10", ErrorKind::Integrity),
        (206, "bytes 10-19/101", "10", ErrorKind::Stale),
        (206, "bytes 10-19/100", "9", ErrorKind::Truncated),
        (206, "bytes 10-19/100", "11", ErrorKind::Integrity),
        (200, "bytes 10-19/100", "10", ErrorKind::Integrity),
        (204, "bytes 10-19/100", "10", ErrorKind::Integrity),
    ];
    for (status, range, length, kind) in cases {
        let pairs = [tag.clone(), (CONTENT_RANGE, range), (CONTENT_LENGTH, length)];
        assert_eq!(answered(status, &pairs), Err(kind), "{status} {range} {length}");
    }
    assert_eq!(answered(206, &[tag]), Err(ErrorKind::Integrity), "no Content-Range");
    assert_eq!(answered(206, std::slice::from_ref(&range)), Err(ErrorKind::Integrity), "no version");
    assert_eq!(answered(206, &[(ETAG, "\"b\""), range]), Err(ErrorKind::Stale));
}

#[test]
fn all_of_the_object_may_come_as_such() {
    let all = headers(&[(ETAG, "\"a\""), (CONTENT_LENGTH, "100")]);
    assert!(check(&expected(0..100), StatusCode::OK, &all).is_ok());
    let long = headers(&[(ETAG, "\"a\""), (CONTENT_LENGTH, "101")]);
    assert_eq!(check(&expected(0..100), StatusCode::OK, &long).unwrap_err().kind, ErrorKind::Integrity);
}

#[test]
fn statuses_have_the_kinds_of_the_table() {
    let kind = |status| refusal(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), "").kind;
    assert_eq!([500, 502, 503, 504, 429].map(kind), [ErrorKind::Io; 5]);
    assert_eq!([404, 410, 412, 416].map(kind), [ErrorKind::Stale; 4]);
    assert_eq!([401, 403].map(kind), [ErrorKind::Denied; 2]);
}

#[test]
fn a_pause_is_seconds_or_a_date() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let pause = |text| retry_after(&headers(&[(RETRY_AFTER, text)]), start);
    assert_eq!(pause("120"), Some(Duration::from_secs(120)));
    assert_eq!(pause("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
    assert_eq!(pause("Sun, 06 Nov 1994 08:40:37 GMT"), Some(Duration::ZERO));
    assert_eq!(pause("soon"), None);
}

#[test]
fn messages_have_the_code_of_the_store() {
    let body =
        "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce\nyour rate</Message></Error>";
    let failure = refusal(StatusCode::SERVICE_UNAVAILABLE, &headers(&[(RETRY_AFTER, "3")]), body);
    assert_eq!(failure.what, "the server answers 503 Service Unavailable (SlowDown: Reduce)");
    assert_eq!(failure.retry_after, Some(Duration::from_secs(3)));
}
