//! Pages that are demanded by somebody who does not wait for them: the loop that reads the faults of others.

use std::sync::Arc;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::decide::{Decision, Intent, decide};
use memobj_linux::area::{FillClaim, PageWatch, Until};

use crate::batch::claims;
use crate::driver::fill_or_call;
use crate::pages::FillReason;
use crate::parts::ObjectParts;
use crate::pins::Ask;
use crate::write::FaultFor;

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
    parts: &Arc<ObjectParts>,
    page: PageIndex,
    around: PageRange,
    access: FaultFor,
) -> Demanded {
    loop {
        match decide(parts.area.word(page), Intent::Presence) {
            Decision::Trap => return Demanded::Failed,
            Decision::Claim => {
                // That page first, and what follows it in the same read.
                let behind = PageRange { start: page.0, end: around.end.max(page.0 + 1) };
                let before = PageRange { start: around.start.min(page.0), end: page.0 };
                claims(&parts.fill, &[behind, before]).for_each(|claim| supply(parts, claim, access));
            }
            Decision::Demand => parts.waits.driver.ask(Ask::Demand(page)),
            Decision::Wait(_) => {}
            _ => return Demanded::There,
        }
        // Without: its word has changed.
        if let Some(watch) = PageWatch::new(&parts.area, page, Until::Free) {
            return Demanded::Pending(watch);
        }
    }
}

/// Fills `claim`, or hands it to whoever does.
fn supply(parts: &Arc<ObjectParts>, claim: FillClaim, access: FaultFor) {
    let Some(claim) = parts.fill.refuse(claim, FillReason::Demand) else { return };
    if parts.object.has_bytes_at_once() {
        return fill_or_call(parts, claim, access);
    }
    let sequential = parts.writes.is_some() && parts.pins.pattern.is_sequential(claim.pages());
    match parts.object.file() {
        None if !sequential => parts.fill.call_pager(claim, FillReason::Demand),
        _ => parts.waits.driver.ask(Ask::Supply { claim, sequential }),
    }
}
