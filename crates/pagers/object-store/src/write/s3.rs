//! Requests to S3 for which object_store has no call. Their URLs are signed by it, with the headers that S3 wants signed.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use memobj::ErrorKind;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use reqwest::Response;

use crate::client::client_for;
use crate::failure::Failure;
use crate::store::no_credentials;
use crate::transport::Transport;

/// How long a signed URL is valid.
const VALID: Duration = Duration::from_secs(3600);
/// Answers to these requests are no longer.
const LONGEST_ANSWER: usize = 4 << 20;
/// A body moves at least so many bytes each second, or it takes too long.
const SLOWEST: u64 = 256 << 10;

/// One request.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) query: Vec<(&'static str, String)>,
    /// Headers that begin with `x-amz-`, and metadata.
    pub(crate) signed: HeaderMap,
    pub(crate) plain: HeaderMap,
    /// A body and its length.
    pub(crate) body: Option<(reqwest::Body, u64)>,
    /// How long the store may take besides.
    pub(crate) patience: Duration,
}

impl Call {
    pub(crate) fn query(query: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self { query: query.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn with(mut self, header: Option<(HeaderName, HeaderValue)>) -> Self {
        self.plain.extend(header);
        self
    }
}

/// Sends `call` for the object at `path`; the answer if its status is a success.
pub(crate) async fn send(
    (store, transport): (&AmazonS3, &Transport),
    method: Method,
    path: &Path,
    call: Call,
) -> Result<Response, Failure> {
    let options = SignedUrlOptions::default().with_query(call.query);
    let options = call
        .signed
        .iter()
        .fold(options, |options, (name, value)| options.with_signed_header(name.clone(), value.clone()));
    let signed = store.signed_url_opts(method.clone(), path, VALID, &options).await;
    let url = signed.map_err(|error| no_credentials(Some(error)))?;
    let mut headers = call.plain;
    headers.extend(call.signed);
    let length = call.body.as_ref().map_or(0, |(_, length)| *length);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let client = client_for(&url)?;
    let request = client.request(method, url).headers(headers);
    let request = match call.body {
        Some((body, _)) => request.body(body),
        None => request,
    };
    let request = request.build().map_err(|error| {
        Failure::because(ErrorKind::Io, "a request that cannot be formed", error.without_url())
    })?;
    let limit = transport.timeout + call.patience + Duration::from_secs(length / SLOWEST);
    let response = transport.send_within(request, limit).await?;
    match response.status() {
        StatusCode::OK | StatusCode::NO_CONTENT => Ok(response),
        _ => Err(transport.refusal(response).await),
    }
}

/// The answer's body as text. S3 can begin an answer with status 200 and end it with an error.
pub(crate) async fn text(transport: &Transport, mut response: Response) -> Result<String, Failure> {
    let body = transport.body(&mut response, LONGEST_ANSWER).await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if text.contains("<Error>") {
        let mut failure = crate::answer::refusal(StatusCode::OK, response.headers(), &text);
        failure.kind = ErrorKind::Io;
        return Err(failure);
    }
    Ok(text)
}
