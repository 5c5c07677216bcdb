//! Sends requests, counts bytes, and says what went wrong.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use memobj::{EngineClock, ErrorKind};
use reqwest::{Request, Response};

use crate::answer;
use crate::client::client_for;
use crate::counters::Counters;
use crate::failure::Failure;
use crate::time::within;

/// How much of an error's body is read for its message.
const LONGEST_MESSAGE: usize = 4 << 10;

/// Sends requests for one pager.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: EngineClock,
    /// How long to wait for a head, or for the next bytes of a body.
    pub(crate) timeout: Duration,
}

impl Transport {
    /// Sends `request` and waits for the head of the answer, whatever its status is.
    ///
    /// A kept connection can be closed by the server in the moment in which it is used. A request that reads and was
    /// answered by nothing at all is therefore sent once more.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, Failure> {
        self.send_within(request, self.timeout).await
    }

    /// The same for a request that may take longer.
    pub(crate) async fn send_within(&self, request: Request, limit: Duration) -> Result<Response, Failure> {
        let may_repeat = matches!(*request.method(), Method::GET | Method::HEAD);
        let again = if may_repeat { request.try_clone() } else { None };
        match (self.send_once(request, limit).await?, again) {
            (Err(error), Some(again)) if is_closed(&error) => {
                self.counters.retries_asked.add(1);
                self.send_once(again, limit).await?.map_err(|error| failure(error, "no answer"))
            }
            (answer, _) => answer.map_err(|error| failure(error, "no answer")),
        }
    }

    async fn send_once(
        &self,
        request: Request,
        limit: Duration,
    ) -> Result<Result<Response, reqwest::Error>, Failure> {
        let client = client_for(request.url())?;
        self.counters.requests.add(1);
        if let Some(body) = request.body().and_then(reqwest::Body::as_bytes) {
            self.counters.network_written_bytes.add_len(body);
        }
        within(&self.clock, limit, client.execute(request))
            .await
            .ok_or_else(|| Failure::timeout(limit, "no answer"))
    }

    /// The next bytes of a body; `None` at its end.
    pub(crate) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        let chunk = within(&self.clock, self.timeout, response.chunk())
            .await
            .ok_or_else(|| Failure::timeout(self.timeout, "no byte of the body"))?
            .map_err(|error| failure(error, "the body"))?;
        if let Some(bytes) = &chunk {
            self.counters.network_read_bytes.add_len(bytes);
        }
        Ok(chunk)
    }

    /// Reads a body, which is an error if it has more than `most` bytes.
    pub(crate) async fn body(&self, response: &mut Response, most: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(bytes) = self.chunk(response).await? {
            if body.len() + bytes.len() > most {
                return Err(Failure::new(
                    ErrorKind::Integrity,
                    format!("an answer of more than {most} bytes"),
                ));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    /// The failure that an answer is whose status is not the one that was hoped for.
    pub(crate) async fn refusal(&self, mut response: Response) -> Failure {
        let mut body = Vec::new();
        while let Ok(Some(bytes)) = self.chunk(&mut response).await {
            body.extend_from_slice(&bytes);
            if body.len() >= LONGEST_MESSAGE {
                break;
            }
        }
        body.truncate(LONGEST_MESSAGE);
        answer::refusal(response.status(), response.headers(), &String::from_utf8_lossy(&body))
    }
}

/// Whether a connection ended without one byte of an answer.
fn is_closed(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout() && !error.is_redirect()
}

/// Whether the server said that a body is longer than what came before it closed the connection.
fn is_cut(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let system = cause.downcast_ref::<io::Error>();
        system.is_some_and(|system| system.kind() == io::ErrorKind::UnexpectedEof)
    })
}

fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause: &&'a (dyn Error + 'static)| (*cause).source())
}

fn failure(error: reqwest::Error, when: &str) -> Failure {
    let error = error.without_url();
    let kind = match () {
        () if error.is_timeout() => ErrorKind::Timeout,
        () if error.is_body() || error.is_decode() => {
            if is_cut(&error) {
                ErrorKind::Truncated
            } else {
                ErrorKind::Io
            }
        }
        () => ErrorKind::Io,
    };
    let what = match () {
        () if kind == ErrorKind::Truncated => "the body ended early".to_owned(),
        () if error.is_connect() => format!("no connection: {}", innermost(&error)),
        () => format!("{when}: {}", innermost(&error)),
    };
    let is_silence = !error.is_redirect() && !error.is_builder();
    let failure = Failure::because(kind, what, error);
    if is_silence { failure.silent() } else { failure }
}

/// The last two causes: the first ones say "error sending request" of everything.
fn innermost(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    texts.dedup();
    let skipped = texts.len().saturating_sub(2);
    match texts.is_empty() {
        true => error.to_string(),
        false => texts.split_off(skipped).join(": "),
    }
}
