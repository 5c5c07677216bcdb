//! One range of one version, from the server.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use memobj::ErrorKind;
use reqwest::Response;

use crate::answer::{self, Expected};
use crate::failure::Failure;
use crate::hedge::{self, Latencies};
use crate::options::Hedging;
use crate::overlap::give_overlap;
use crate::silence::{PATIENCE, Silence};
use crate::store::Store;
use crate::time::{sleep, within};
use crate::transport::Transport;
use crate::version::Version;

/// Who asks for ranges, and what it has learned of its server.
#[derive(Debug)]
pub(crate) struct Fetcher {
    pub(crate) store: Store,
    pub(crate) transport: Transport,
    pub(crate) silence: Silence,
    pub(crate) latencies: Latencies,
    pub(crate) hedging: Hedging,
}

/// The version that answers have to be of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    pub(crate) version: Version,
    pub(crate) length: u64,
    /// The server has no ranges, and the object is small: it is always asked for whole.
    pub(crate) is_whole: bool,
}

/// An answer whose head was checked, and whose first bytes are here.
struct Transfer {
    response: Response,
    first: Option<Bytes>,
    /// What the body is of.
    range: Range<u64>,
}

impl Fetcher {
    /// Has `take` copy the bytes of `range` away, piece by piece and in order. Pieces that were taken before an error
    /// are not to be used. Checks status, version, range and length.
    pub(crate) async fn fetch(
        &self,
        base: &Base,
        range: Range<u64>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if range.is_empty() {
            return Ok(());
        }
        let start = self.transport.clock.now();
        let result = self.transfer(base, range, start, &mut take).await;
        match &result {
            Err(failure) if failure.is_silence => self.silence.unanswered(start, &failure.what),
            _ => self.silence.answered(),
        }
        result
    }

    async fn transfer(
        &self,
        base: &Base,
        range: Range<u64>,
        start: Instant,
        take: &mut impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut transfer = self.watched(start, self.begin_hedged(base, &range)).await?;
        self.silence.answered();
        self.latencies.note(self.transport.clock.now().saturating_duration_since(start));
        let (mut at, end) = (transfer.range.start, transfer.range.end);
        let mut next = transfer.first.take();
        while let Some(bytes) = next {
            let after = u64::try_from(bytes.len()).ok().and_then(|count| at.checked_add(count));
            let after = after.filter(|&after| after <= end).ok_or_else(too_long)?;
            give_overlap(at, &bytes, &range, take)?;
            at = after;
            next = self.transport.chunk(&mut transfer.response).await?;
        }
        if at < end {
            let what = format!("the body ended early: {at} instead of {end}");
            return Err(Failure::new(ErrorKind::Truncated, what));
        }
        Ok(())
    }

    /// Waits for `work`, and calls the server silent when that takes long.
    async fn watched<T>(&self, start: Instant, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let clock = &self.transport.clock;
        match within(clock, PATIENCE, &mut work).await {
            Some(done) => done,
            None => {
                self.silence.unanswered(start, "it is silent, and still waited for");
                work.await
            }
        }
    }

    /// Begins a transfer; a second one if that takes longer than nearly all others. The first answer is taken.
    async fn begin_hedged(&self, base: &Base, range: &Range<u64>) -> Result<Transfer, Failure> {
        let mut first = pin!(self.begin(base, range));
        let slow_after = match self.hedging {
            Hedging::Slowest => self.latencies.slow_after(),
            Hedging::Off => None,
        };
        let Some(slow_after) = slow_after else { return first.await };
        tokio::select! {
            biased;
            transfer = &mut first => return transfer,
            () = sleep(&self.transport.clock, slow_after) => {}
        }
        if !hedge::take_turn(&self.transport.counters) {
            return first.await;
        }
        let mut second = pin!(self.begin(base, range));
        tokio::select! {
            transfer = &mut first => either(transfer, second).await,
            transfer = &mut second => either(transfer, first).await,
        }
    }

    async fn begin(&self, base: &Base, range: &Range<u64>) -> Result<Transfer, Failure> {
        let range = if base.is_whole { 0..base.length } else { range.clone() };
        let part = (!base.is_whole).then(|| range.clone());
        let request = self.store.get(part, &base.version).await?;
        let mut response = self.transport.send(request).await?;
        let status = response.status();
        if status != StatusCode::OK && status != StatusCode::PARTIAL_CONTENT {
            return Err(self.transport.refusal(response).await);
        }
        let expected = Expected {
            version: base.version.clone(),
            length: base.length,
            range: range.clone(),
            is_whole: base.is_whole,
        };
        answer::check(&expected, status, response.headers())?;
        if self.store.is_web() {
            answer::check_encoding(response.headers())?;
        }
        let first = self.transport.chunk(&mut response).await?;
        Ok(Transfer { response, first, range })
    }
}

/// Takes the first answer, unless it is a failure that need not be one of the other.
async fn either(
    first: Result<Transfer, Failure>,
    other: impl Future<Output = Result<Transfer, Failure>>,
) -> Result<Transfer, Failure> {
    match first {
        Err(failure) if failure.kind.may_retry() => other.await.or(Err(failure)),
        first => first,
    }
}

fn too_long() -> Failure {
    Failure::new(ErrorKind::Integrity, "the body is longer than the range that was asked for")
}
