//! What others ask of the driver.

use std::io;
use std::sync::{Arc, Weak};

use crossbeam_queue::ArrayQueue;
use memobj_core::address::{PageIndex, PageRange};
use memobj_sys::area::{FillClaim, GonePage};
use memobj_sys::wake::Doorbell;

use super::{FrameStore, GuestState};
use crate::health::Health;
use crate::pins::AskDriver;

const MOST_REQUESTS: usize = 4096;

/// What others ask of the driver. Made and queued in signal handlers: moving it must not allocate.
#[derive(Debug)]
pub(crate) enum Request {
    /// For a frame store, if it is still there.
    Of(Weak<FrameStore>, Ask),
    /// The frame store at this address in memory has lost its last mapping.
    Forget(usize),
    /// Resolve the faults of this guest from now on.
    Admit(Arc<GuestState>),
    /// This guest has been dismissed.
    Dismissed(Arc<GuestState>),
}

/// What is asked for one frame store.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Fill this claim; its pages are waited for.
    Supply { claim: FillClaim, sequential: bool },
    /// Somebody waits for a page that is kept ready.
    Demand(PageIndex),
    /// Somebody has read in order up to this page.
    Ahead(PageIndex),
    /// Obtain the absent pages of this range; nobody waits yet.
    Prefetch(PageRange),
    /// A store faulted at this page, and could not go on at once.
    Store(PageIndex),
    /// The frame of this page is gone, with changes that nobody else has.
    Lost(GonePage),
}

/// The requests that the driver of a cache has not taken yet.
#[derive(Debug)]
pub(crate) struct Requests {
    queue: ArrayQueue<Request>,
    pub(crate) bell: Doorbell,
    health: Arc<Health>,
}

impl Requests {
    pub(crate) fn new(health: &Arc<Health>) -> io::Result<Self> {
        let queue = ArrayQueue::new(MOST_REQUESTS);
        Ok(Self { queue, bell: Doorbell::new()?, health: Arc::clone(health) })
    }

    /// Hands a request to the driver. Safe in a signal handler.
    pub(crate) fn ask(&self, request: Request) {
        let mut request = request;
        while let Err(back) = self.queue.push(request) {
            if self.health.is_closing() {
                return;
            }
            request = back;
            self.bell.ring();
            std::thread::yield_now();
        }
        self.bell.ring();
    }

    /// The next request, for the driver.
    pub(crate) fn take(&self) -> Option<Request> {
        self.queue.pop()
    }
}

/// Hands what the calling thread does not do itself to the driver, in the name of one frame store.
#[derive(Clone, Debug)]
pub(crate) struct Handoff {
    requests: Arc<Requests>,
    store: Weak<FrameStore>,
}

impl Handoff {
    pub(super) fn new(requests: &Arc<Requests>, store: &Weak<FrameStore>) -> Self {
        Self { requests: Arc::clone(requests), store: Weak::clone(store) }
    }

    /// The frame store, for who has a borrow and needs to keep it.
    pub(crate) fn store(&self) -> Option<Arc<FrameStore>> {
        self.store.upgrade()
    }

    /// Safe in a signal handler.
    pub(crate) fn ask(&self, ask: Ask) {
        self.requests.ask(Request::Of(Weak::clone(&self.store), ask));
    }

    /// The last mapping is gone.
    pub(crate) fn forget(&self) {
        self.requests.ask(Request::Forget(self.store.as_ptr() as usize));
    }
}

impl AskDriver for Handoff {
    fn demand(&self, page: PageIndex) {
        self.ask(Ask::Demand(page));
    }

    fn read_ahead(&self, page: PageIndex) {
        self.ask(Ask::Ahead(page));
    }
}
