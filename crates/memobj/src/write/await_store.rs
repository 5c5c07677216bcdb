//! What a store waits for whose thread does not sleep on it here: that of a guest.

use std::sync::Arc;

use memobj_core::address::PageIndex;
use memobj_linux::area::{PageWatch, Until};
use memobj_linux::fault_loop::{Awaited, Listener, Listeners};

use super::Writes;
use crate::allocator::FrameAllocator;

/// Something was written since, or will never be.
struct Progress {
    allocator: Listener<InRoom>,
    seen: u32,
}

struct InRoom(Arc<FrameAllocator>);

impl AsRef<Listeners> for InRoom {
    fn as_ref(&self) -> &Listeners {
        self.0.unwritten.listeners()
    }
}

impl Awaited for Progress {
    fn is_over(&self) -> bool {
        self.allocator.0.unwritten.progress() != self.seen
    }
}

/// The gate is open.
struct Opened(Listener<AtGate>);

struct AtGate(Arc<Writes>);

impl AsRef<Listeners> for AtGate {
    fn as_ref(&self) -> &Listeners {
        &self.0.gate.listeners
    }
}

impl Awaited for Opened {
    fn is_over(&self) -> bool {
        !self.0.0.gate.is_closed()
    }
}

impl Writes {
    /// What a store to `page` waits for that may not go on now: the same as
    /// [`wait_to_store`](Self::wait_to_store). `None` if it may be tried at once.
    pub(crate) fn await_store(self: &Arc<Self>, page: PageIndex) -> Option<Box<dyn Awaited>> {
        if self.area.word(page).keeps_stores_off() {
            let watch = PageWatch::new(&self.area, page, Until::OpenToStores)?;
            return Some(Box::new(watch));
        }
        let allocator = Listener::new(InRoom(Arc::clone(&self.fill.allocator)));
        let seen = self.fill.allocator.unwritten.progress();
        if self.has_too_much_dirty() {
            return Some(Box::new(Progress { allocator, seen }));
        }
        let opened = Opened(Listener::new(AtGate(Arc::clone(self))));
        if opened.is_over() { None } else { Some(Box::new(opened)) }
    }
}
