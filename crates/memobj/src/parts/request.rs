//! What others ask of the driver.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_queue::ArrayQueue;
use memobj_linux::eventfd::EventFd;

use super::ObjectParts;
use crate::health::Health;
use crate::pages::{Arrived, Keep};
use crate::pins::{Ask, AskDriver};

const MOST_REQUESTS: usize = 4096;

/// What others ask of the driver. Made and queued in signal handlers: moving it must not allocate.
#[derive(Debug)]
pub(crate) enum Request {
    /// For the parts of an object, if it is still there.
    Of(Weak<ObjectParts>, Ask),
    /// The parts at this address in memory has lost its last mapping.
    Forget(usize),
    /// What a pager was asked for ahead of its reader, as this unit of the driver, is here; or it never will be.
    Arrived(u64, Option<Arrived>),
}

/// The requests that the driver of a cache has not taken yet.
#[derive(Debug)]
pub(crate) struct Requests {
    queue: ArrayQueue<Request>,
    pub(crate) eventfd: EventFd,
    health: Arc<Health>,
}

impl Requests {
    pub(crate) fn new(health: &Arc<Health>) -> io::Result<Self> {
        let queue = ArrayQueue::new(MOST_REQUESTS);
        Ok(Self { queue, eventfd: EventFd::new()?, health: Arc::clone(health) })
    }

    /// Hands a request to the driver. Safe in a signal handler.
    pub(crate) fn ask(&self, request: Request) {
        let mut request = request;
        while let Err(back) = self.queue.push(request) {
            if self.health.is_closing() {
                return;
            }
            request = back;
            self.eventfd.notify();
            std::thread::yield_now();
        }
        self.eventfd.notify();
    }

    /// The next request, for the driver.
    pub(crate) fn take(&self) -> Option<Request> {
        self.queue.pop()
    }
}

/// Keeps what a pager has supplied as a unit of the driver.
#[derive(Debug)]
pub(crate) struct Unit {
    requests: Arc<Requests>,
    number: u64,
    was_told: AtomicBool,
}

impl Unit {
    pub(crate) fn new(requests: &Arc<Requests>, number: u64) -> Self {
        Self { requests: Arc::clone(requests), number, was_told: AtomicBool::new(false) }
    }
}

impl Keep for Unit {
    fn keep(&self, arrived: Option<Arrived>) {
        if !self.was_told.swap(true, Ordering::AcqRel) {
            self.requests.ask(Request::Arrived(self.number, arrived));
        }
    }
}

impl Drop for Unit {
    /// A request that was dropped unasked: the driver would keep the object for it.
    fn drop(&mut self) {
        self.keep(None);
    }
}

/// Asks the driver in the name of one object.
#[derive(Debug)]
pub(super) struct Handoff {
    pub(super) requests: Arc<Requests>,
    pub(super) parts: Weak<ObjectParts>,
}

impl AskDriver for Handoff {
    fn ask(&self, ask: Ask) {
        self.requests.ask(Request::Of(Weak::clone(&self.parts), ask));
    }
}
