//! Pagers that answer, as pagers whose calls block.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, sync_channel};

use super::{
    BlockingPager, Description, LengthRequest, Pager, PagerReports, SupplyRequest, SyncRequest, WriteRequest,
    by_calls,
};
use crate::error::{ErrorKind, SupplyError};

/// A [`BlockingPager`] that asks a [`Pager`] and waits for the answer: so that [`Faulty`](super::Faulty), and what you have
/// written for blocking pagers, can wrap any. It occupies a worker for each request, and copies what is supplied.
///
/// ```
/// use memobj::pagers::{Awaited, BlockingPager, Bytes};
///
/// let pager = Awaited::new(Bytes::new(&b"hello"[..]));
/// let mut buffer = [0; 5];
/// pager.supply(0..5, &mut buffer)?;
/// assert_eq!(&buffer, b"hello");
/// # Ok::<(), memobj::SupplyError>(())
/// ```
pub struct Awaited<P> {
    inner: P,
    description: Description,
}

impl<P: Pager> Awaited<P> {
    /// Asks `pager` to describe itself.
    pub fn new(pager: P) -> Self {
        Self { description: pager.describe(), inner: pager }
    }
}

impl<P> fmt::Debug for Awaited<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaited").field("description", &self.description).finish_non_exhaustive()
    }
}

type Answer<T> = Result<T, SupplyError>;

/// Waits for the answer; a request is answered also when it is dropped.
fn wait<T>(answer: &Receiver<Answer<T>>) -> Answer<T> {
    answer.recv().unwrap_or_else(|RecvError| Err(SupplyError::new(ErrorKind::Detached)))
}

/// Has `ask` hand over a request that ends in this closure, and waits.
fn asked(ask: impl FnOnce(Box<dyn FnOnce(Answer<()>) + Send>)) -> Answer<()> {
    let (sender, answer) = sync_channel(1);
    ask(Box::new(move |answer| drop(sender.send(answer))));
    wait(&answer)
}

impl<P: Pager> BlockingPager for Awaited<P> {
    fn length(&self) -> u64 {
        self.description.length()
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        let (sender, answer) = sync_channel(1);
        let request = SupplyRequest::new(range, move |answer| drop(sender.send(answer.map(<[u8]>::to_vec))))?;
        self.inner.supply(request);
        let bytes = wait(&answer)?;
        if bytes.len() != buffer.len() {
            return Err(SupplyError::new(ErrorKind::Integrity));
        }
        buffer.copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn is_writable(&self) -> bool {
        self.description.is_writable()
    }

    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        let bytes = bytes.to_vec();
        asked(|to| self.inner.write_back(WriteRequest::new(range.start, bytes, to)))
    }

    fn sync(&self) -> Result<(), SupplyError> {
        asked(|to| self.inner.sync(SyncRequest::new(to)))
    }

    fn set_length(&self, length: u64) -> Result<(), SupplyError> {
        asked(|to| self.inner.set_length(LengthRequest::new(length, to)))
    }

    fn is_immutable(&self) -> bool {
        self.description.is_immutable()
    }

    fn block_bytes(&self) -> u64 {
        self.description.block()
    }

    fn version(&self) -> Option<Arc<str>> {
        self.description.version_name().map(Into::into)
    }

    fn attach(&self, reports: PagerReports) {
        self.inner.attach(reports);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.inner.counters()
    }

    fn detach(&self) {
        self.inner.detach();
    }
}

by_calls!([P: Pager] Awaited<P>, |_, description| description);
