//! Pages that are demanded by somebody who does not wait for them: the loop that reads the faults of others.

use std::sync::Arc;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::decide::{Decision, Wish, decide};
use memobj_linux::area::{FillClaim, PageWatch, Until};

use crate::batch::claims;
use crate::driver::fill_or_call;
use crate::pages::Asked;
use crate::pins::Ask;
use crate::store::FrameStore;
use crate::write::Access;

/// What is known of a page.
#[derive(Debug)]
pub(crate) enum Demanded {
    /// It was resident a moment ago.
    There,
    /// It has failed.
    Failed,
    /// Somebody obtains it, or holds it for a moment: it is known when this is over.
    Pending(PageWatch),
}

/// Sees to it that somebody obtains `page`, unless it is there. Absent pages of `around`, in which `page` lies, are obtained
/// on the way if it is not there. Waits neither for pages nor for pagers.
pub(crate) fn demand(
    store: &Arc<FrameStore>,
    page: PageIndex,
    around: PageRange,
    access: Access,
) -> Demanded {
    loop {
        match decide(store.area.word(page), Wish::Presence) {
            Decision::Trap => return Demanded::Failed,
            Decision::Claim => {
                // That page first, and what follows it in the same read.
                let behind = PageRange { start: page.0, end: around.end.max(page.0 + 1) };
                let before = PageRange { start: around.start.min(page.0), end: page.0 };
                claims(&store.fill, &[behind, before]).for_each(|claim| supply(store, claim, access));
            }
            Decision::Demand => store.waits.driver.ask(Ask::Demand(page)),
            Decision::Wait(_) => {}
            _ => return Demanded::There,
        }
        // Without: its word has changed.
        if let Some(watch) = PageWatch::new(&store.area, page, Until::Free) {
            return Demanded::Pending(watch);
        }
    }
}

/// Fills `claim`, or hands it to whoever does.
fn supply(store: &Arc<FrameStore>, claim: FillClaim, access: Access) {
    let Some(claim) = store.fill.refuse(claim, Asked::Demand) else { return };
    if store.object.has_bytes_at_once() {
        return fill_or_call(store, claim, access);
    }
    let sequential = store.writes.is_some() && store.pins.pattern.is_sequential(claim.pages());
    match store.object.file() {
        None if !sequential => store.fill.call_pager(claim, Asked::Demand),
        _ => store.waits.driver.ask(Ask::Supply { claim, sequential }),
    }
}
