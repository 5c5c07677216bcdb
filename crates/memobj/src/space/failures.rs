//! Pages that trap because they could not be supplied.

use std::collections::BTreeMap;
use std::ops::Range;

use memobj_core::address::VirtAddr;

use crate::error::PageError;

const PAGE: u64 = 4096;

/// Which pages of a space are poisoned, and why. A page that is here is poisoned in the kernel's page table, and so has
/// no private copy.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pages: BTreeMap<u64, PageError>,
    last: Option<PageError>,
}

impl Failures {
    pub(super) fn add(&mut self, page: VirtAddr, error: PageError) {
        self.last = Some(error.clone());
        self.pages.insert(page.0, error);
    }

    pub(super) fn at(&self, address: VirtAddr) -> Option<&PageError> {
        self.pages.get(&(address.0 / PAGE * PAGE))
    }

    pub(super) fn last(&self) -> Option<&PageError> {
        self.last.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (VirtAddr, &PageError)> {
        self.pages.iter().map(|(page, error)| (VirtAddr(*page), error))
    }

    /// The poisoned pages of a range.
    pub(super) fn in_range(&self, range: Range<u64>) -> Vec<u64> {
        self.pages.range(range).map(|(page, _)| *page).collect()
    }

    /// Forgets the pages of a range: they are not poisoned any more.
    pub(super) fn forget(&mut self, range: Range<u64>) {
        for page in self.in_range(range) {
            self.pages.remove(&page);
        }
    }
}
