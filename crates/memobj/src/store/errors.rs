//! Why pages of one object failed.

use std::collections::BTreeMap;

use memobj_core::address::{PageIndex, PageRange};

use crate::error::PageError;
use crate::locks::{Guard, Rank, RankedMutex};

/// Errors that one object keeps in detail; beyond, pages still fail but share a general message.
const KEPT_ERRORS: usize = 4096;

/// A page whose error is known is Failed, or becomes so this moment. Under the lock a page that is Failed stays so.
#[derive(Debug)]
pub(crate) struct Errors(RankedMutex<ErrorTable>);

#[derive(Debug, Default)]
pub(crate) struct ErrorTable {
    pages: BTreeMap<u64, PageError>,
    /// Pages failed whose errors found no place.
    overflowed: bool,
    last: Option<PageError>,
}

impl Errors {
    pub(crate) fn new() -> Self {
        Self(RankedMutex::new(Rank::Errors, ErrorTable::default()))
    }

    pub(crate) fn keep(&self, page: PageIndex, report: PageError) {
        let mut errors = self.0.lock();
        if errors.pages.len() < KEPT_ERRORS {
            errors.pages.insert(page.0, report.clone());
        } else {
            errors.overflowed = true;
        }
        errors.last = Some(report);
    }

    /// Why `page` failed. Where its error may have found no place, what `unknown` makes of the last error.
    pub(crate) fn of(
        &self,
        page: PageIndex,
        unknown: impl FnOnce(Option<&PageError>) -> PageError,
    ) -> Option<PageError> {
        let errors = self.0.lock();
        let known = errors.pages.get(&page.0);
        known.cloned().or_else(|| errors.overflowed.then(|| unknown(errors.last.as_ref())))
    }

    pub(crate) fn last(&self) -> Option<PageError> {
        self.0.lock().last.clone()
    }

    pub(crate) fn known_in(&self, pages: PageRange) -> Vec<PageError> {
        self.0.lock().pages.range(pages.start..pages.end).map(|(_, error)| error.clone()).collect()
    }

    /// The pages among `pages` that have errors; `None` if not all errors found a place.
    pub(crate) fn pages_in(&self, pages: PageRange) -> Option<Vec<PageIndex>> {
        let errors = self.0.lock();
        let known = errors.pages.range(pages.start..pages.end).map(|(page, _)| PageIndex(*page));
        (!errors.overflowed).then(|| known.collect())
    }

    pub(crate) fn has(&self, page: PageIndex) -> bool {
        self.0.lock().pages.contains_key(&page.0)
    }

    /// Forgets the error of `page` if `retries`, which is asked under the lock, says so; then `true`.
    pub(crate) fn forget_if(&self, page: PageIndex, retries: impl FnOnce() -> bool) -> bool {
        let mut errors = self.0.lock();
        let forgets = retries();
        if forgets {
            errors.pages.remove(&page.0);
        }
        forgets
    }

    /// While this is held no page is retried.
    pub(crate) fn hold(&self) -> Guard<'_, ErrorTable> {
        self.0.lock()
    }

    pub(crate) fn take(&mut self) -> ErrorTable {
        std::mem::take(self.0.get_mut())
    }
}
