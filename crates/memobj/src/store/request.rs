//! What others ask of the driver.

use std::sync::{Arc, Weak};

use memobj_core::address::{PageIndex, PageRange};
use memobj_sys::area::{FillClaim, GonePage};

use super::{FrameStore, GuestState};

/// What others ask of the driver. Made and queued in signal handlers: moving it must not allocate.
#[derive(Debug)]
pub(crate) enum Request {
    /// Fill this claim; its pages are waited for.
    Supply { store: Weak<FrameStore>, claim: FillClaim, sequential: bool },
    /// Somebody waits for a page that is kept ready.
    Demand { store: Weak<FrameStore>, page: PageIndex },
    /// Somebody has read in order up to `page`, exclusive.
    Ahead { store: Weak<FrameStore>, page: PageIndex },
    /// Obtain the absent pages of this range; nobody waits yet.
    Prefetch { store: Weak<FrameStore>, pages: PageRange },
    /// A store faulted at this page, and could not go on at once.
    Store { store: Weak<FrameStore>, page: PageIndex },
    /// The frame of this page is gone, with changes that nobody else has.
    Lost { store: Weak<FrameStore>, gone: GonePage },
    /// The frame store at this address in memory has lost its last mapping.
    Forget(usize),
    /// Resolve the faults of this guest from now on.
    Admit(Arc<GuestState>),
    /// This guest has been dismissed.
    Dismissed(Arc<GuestState>),
}
