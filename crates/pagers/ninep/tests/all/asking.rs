//! Requests of tests, without an engine.

use std::ops::Range;
use std::sync::mpsc::{Receiver, channel};

use memobj::pagers::{LengthRequest, Pager, SupplyRequest, SyncRequest, WriteRequest};
use memobj::{ErrorKind, SupplyError};
use memobj_9p::NinePager;
use memobj_sim::fixture::GUARD;

/// An answer that comes later.
pub(crate) struct Later<T>(Receiver<Result<T, SupplyError>>);

impl<T> Later<T> {
    pub(crate) fn wait(self) -> Result<T, SupplyError> {
        self.0.recv_timeout(GUARD).expect("an answer")
    }

    /// The kind of its failure.
    pub(crate) fn kind(self) -> ErrorKind {
        self.wait().err().expect("a failure").kind
    }

    pub(crate) fn is_there(&self) -> bool {
        // Nothing is taken out but what is looked at: the test ends by it.
        self.0.try_recv().is_ok()
    }
}

pub(crate) fn supply(pager: &NinePager, range: Range<u64>) -> Later<Vec<u8>> {
    let (sender, answer) = channel();
    let request = SupplyRequest::new(range, move |answer| drop(sender.send(answer.map(<[u8]>::to_vec))));
    pager.supply(request.unwrap());
    Later(answer)
}

pub(crate) fn write(pager: &NinePager, offset: u64, bytes: &[u8]) -> Later<()> {
    let (sender, answer) = channel();
    pager.write_back(WriteRequest::new(offset, bytes.to_vec(), move |answer| drop(sender.send(answer))));
    Later(answer)
}

pub(crate) fn sync(pager: &NinePager) -> Later<()> {
    let (sender, answer) = channel();
    pager.sync(SyncRequest::new(move |answer| drop(sender.send(answer))));
    Later(answer)
}

pub(crate) fn set_length(pager: &NinePager, length: u64) -> Later<()> {
    let (sender, answer) = channel();
    pager.set_length(LengthRequest::new(length, move |answer| drop(sender.send(answer))));
    Later(answer)
}

/// One of the pager's counters.
pub(crate) fn counter(pager: &NinePager, name: &str) -> u64 {
    pager.counters().into_iter().find(|(its_name, _)| *its_name == name).unwrap().1
}
