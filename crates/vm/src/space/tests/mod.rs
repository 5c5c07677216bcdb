//! Address spaces against a table of pages, and the fixed cases of each verb.

extern crate std;

mod model;
mod verbs;

use super::*;
use alloc::vec::Vec;
use memobj_core::address::{ObjectOffset, VirtAddr};
use memobj_core::prot::Prot;

pub(super) const PAGE: u64 = 4096;
pub(super) const LOW: u64 = 16;
pub(super) const PAGES: u64 = 48;

pub(super) fn limits() -> Limits {
    Limits::between(VirtAddr(LOW * PAGE), VirtAddr((LOW + PAGES) * PAGE))
}

pub(super) fn at(page: u64) -> VirtAddr {
    VirtAddr(page * PAGE)
}

pub(super) fn view(object: u64) -> ObjectView {
    let opened = Prot::READ | Prot::WRITE;
    ObjectView { id: ObjectId(object), opened, kind: ObjectKind::Plain, largest: i64::MAX as u64 }
}

/// `pages` pages of object `object` from its page `offset` on, shared, to be read.
pub(super) fn object(pages: u64, object: u64, offset: u64) -> MapRequest {
    let source = SegmentContent::Object { view: view(object), offset: offset * PAGE };
    MapRequest::new(pages * PAGE, source, Prot::READ, Sharing::Shared)
}

pub(super) fn anonymous(pages: u64) -> MapRequest {
    let source = SegmentContent::Anonymous { memory: ObjectId(99) };
    MapRequest::new(pages * PAGE, source, Prot::READ | Prot::WRITE, Sharing::Private)
}

/// (first page, pages, page of the object or none) of all segments.
pub(super) fn table(space: &AddressSpace) -> Vec<(u64, u64, Option<u64>)> {
    let row = |it: Segment| {
        let offset = it.object_at(it.start).map(|(_, ObjectOffset(offset))| offset / PAGE);
        (it.start.0 / PAGE, it.length / PAGE, offset)
    };
    space.iter().map(row).collect()
}
