//! Has the crate object_store form and sign a request, and keeps the request instead of sending it.
//!
//! ```text
//!   store.get_opts(path, range, extensions: Slot)
//!      credentials, endpoint, headers, signature
//!        -> HttpService::call(request): the request goes into its Slot; the caller gets an error
//!   slot.take() -> the signed request, which the transport sends
//! ```
//!
//! So every answer comes to this crate with its status and headers, whatever store it is of. Requests without a Slot are
//! for credentials. They are sent.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use url::Url;

use crate::client::client_for;

/// How long a service for credentials may take. On machines that have none its address is silent.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(5);
/// Credentials are no longer than this.
const LONGEST_ANSWER: usize = 1 << 20;

/// Where a request is put that was formed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<HttpRequest>>>);

impl Slot {
    pub(crate) fn take(&self) -> Option<HttpRequest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, request: HttpRequest) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
    }
}

/// What the one who asked for a request hears of it.
#[derive(Debug)]
struct Captured(&'static str);

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Captured {}

fn refused(kind: HttpErrorKind, why: &'static str) -> HttpError {
    HttpError::new(kind, Captured(why))
}

/// The transport that is given to object_store.
#[derive(Debug)]
pub(crate) struct Capturing;

impl HttpConnector for Capturing {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Self))
    }
}

#[async_trait]
impl HttpService for Capturing {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let slot = request.extensions().get::<Slot>().cloned();
        match slot {
            Some(slot) => {
                slot.put(request);
                Err(refused(HttpErrorKind::Unknown, "the request is kept"))
            }
            None => send(request).await,
        }
    }
}

/// Sends a request for credentials.
async fn send(request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let (parts, body) = request.into_parts();
    let body = body.as_bytes().cloned().unwrap_or_default();
    let url = Url::parse(&parts.uri.to_string())
        .map_err(|_| refused(HttpErrorKind::Request, "the address for credentials is no URL"))?;
    let client = client_for(&url).map_err(|_| refused(HttpErrorKind::Connect, "there is no HTTP client"))?;
    let request =
        client.request(parts.method, url).headers(parts.headers).body(body).timeout(CREDENTIALS_TIMEOUT);
    let response = request.send().await.map_err(of_transport)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut answer = HttpResponse::new(collect(response).await?.into());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

async fn collect(mut response: reqwest::Response) -> Result<Bytes, HttpError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(of_transport)? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Err(refused(HttpErrorKind::Decode, "the answer with credentials is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn of_transport(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() { HttpErrorKind::Timeout } else { HttpErrorKind::Connect };
    HttpError::new(kind, error.without_url())
}
