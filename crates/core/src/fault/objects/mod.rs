//! The pages of objects, for hosts whose writes to objects all go through here.
//!
//! An object has a length and pages; a page is in a frame or not here yet. A snapshot is an object that has another
//! one's bytes of one moment: it shares the other's frames until one changes, and just before that happens the
//! snapshot gets a copy. So a copy segment is a private segment of a snapshot.
//!
//! Past the end of an object, the rest of its last page is zeros when it is supplied, when the object is cut or
//! extended, and when it is written back. In between, stores by shared segments stay there for all to see, and never
//! become part of the object.

mod change;
mod snapshot;

use super::{Frames, Notice, ObjectPage, Objects, Want};
use crate::address::{PageIndex, PageRange, PageSize};
use crate::space::ObjectId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

const PAGE: PageSize = PageSize::SMALL;

/// What the pages of an object are that nobody wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Zeros.
    Zeros,
    /// What a pager supplies.
    Pager,
}

#[derive(Clone, Debug)]
struct Object<Frame> {
    length: u64,
    pages: BTreeMap<u64, Frame>,
    /// Bytes below come from the pager, others are zeros.
    supplied_below: u64,
    /// Of a snapshot: what it is one of.
    origin: Option<ObjectId>,
    snapshots: Vec<ObjectId>,
    /// Mapped bytes, and one for whoever has it open.
    references: u64,
}

impl<Frame> Object<Frame> {
    fn has(&self, page: u64) -> bool {
        page < PAGE.pages_for(self.length)
    }
}

/// Objects and their pages.
#[derive(Debug)]
pub struct ObjectTable<F: Frames> {
    objects: BTreeMap<ObjectId, Object<F::Frame>>,
    notices: Vec<Notice>,
    next_snapshot: u64,
}

/// A page has to be supplied first, or there is no frame.
type Blocked<Frame> = ObjectPage<Frame>;

impl<F: Frames> ObjectTable<F> {
    /// No objects. Snapshots get names from `first_snapshot` on, which nobody else uses.
    pub fn new(first_snapshot: ObjectId) -> Self {
        Self { objects: BTreeMap::new(), notices: Vec::new(), next_snapshot: first_snapshot.0 }
    }

    /// Adds an object, open until it is closed.
    pub fn open(&mut self, object: ObjectId, length: u64, fill: Fill) {
        let supplied_below = if fill == Fill::Pager { length } else { 0 };
        let (pages, origin, snapshots) = (BTreeMap::new(), None, Vec::new());
        let new = Object { length, pages, supplied_below, origin, snapshots, references: 1 };
        self.objects.insert(object, new);
    }

    /// The object lives on as long as it is mapped.
    pub fn close(&mut self, frames: &mut F, object: ObjectId) {
        self.release(frames, object, 1);
    }

    /// Bytes of the object, if it is there.
    pub fn length(&self, object: ObjectId) -> Option<u64> {
        self.objects.get(&object).map(|object| object.length)
    }

    /// What happened to pages since it was last asked. To be passed to every space.
    pub fn notices(&mut self) -> Vec<Notice> {
        core::mem::take(&mut self.notices)
    }

    /// Puts a page that was needed in place; the frame is the object's from now on. Its bytes past the end of what
    /// the pager has become zeros. A page that came meanwhile stays, and the frame is given back.
    pub fn supply(&mut self, frames: &mut F, object: ObjectId, page: PageIndex, frame: F::Frame) {
        let start = page.0.saturating_mul(PAGE.bytes());
        match self.objects.get_mut(&object) {
            Some(into) if into.has(page.0) && !into.pages.contains_key(&page.0) => {
                let end = into.supplied_below.min(into.length);
                zero(frames, frame, end.saturating_sub(start), PAGE.bytes());
                into.pages.insert(page.0, frame);
            }
            _ => frames.release(frame),
        }
    }

    /// Page `page` of what is not a snapshot, as it is.
    fn own_page(&mut self, frames: &mut F, object: ObjectId, page: u64) -> ObjectPage<F::Frame> {
        let Some(entry) = self.objects.get_mut(&object) else { return ObjectPage::Failed };
        if !entry.has(page) {
            return ObjectPage::Beyond;
        }
        if let Some(&frame) = entry.pages.get(&page) {
            return ObjectPage::Here(frame);
        }
        if page < PAGE.pages_for(entry.supplied_below) {
            return ObjectPage::Needed(object, PageIndex(page));
        }
        let Some(frame) = frames.zeroed() else { return ObjectPage::NoFrame };
        entry.pages.insert(page, frame);
        ObjectPage::Here(frame)
    }

    /// Page `page` of `object`, ready to be changed: snapshots have their copy.
    fn page_to_change(
        &mut self,
        frames: &mut F,
        object: ObjectId,
        page: u64,
    ) -> Result<F::Frame, Blocked<F::Frame>> {
        let frame = match self.own_page(frames, object, page) {
            ObjectPage::Here(frame) => frame,
            other => return Err(other),
        };
        self.push(frames, object, page, frame)?;
        Ok(frame)
    }

    fn forget(&mut self, frames: &mut F, object: ObjectId) {
        let Some(gone) = self.objects.remove(&object) else { return };
        for frame in gone.pages.into_values() {
            frames.release(frame);
        }
        let Some(origin) = gone.origin else { return };
        if let Some(entry) = self.objects.get_mut(&origin) {
            entry.snapshots.retain(|&snapshot| snapshot != object);
        }
        self.forget_unused(frames, origin);
    }

    fn forget_unused(&mut self, frames: &mut F, object: ObjectId) {
        let unused = |entry: &Object<F::Frame>| entry.references == 0 && entry.snapshots.is_empty();
        if self.objects.get(&object).is_some_and(unused) {
            self.forget(frames, object);
        }
    }
}

impl<F: Frames> Objects<F> for ObjectTable<F> {
    fn page(
        &mut self,
        frames: &mut F,
        object: ObjectId,
        page: PageIndex,
        want: Want,
    ) -> ObjectPage<F::Frame> {
        if self.objects.get(&object).is_some_and(|entry| entry.origin.is_some()) {
            return self.snapshot_page(frames, object, page.0);
        }
        match want {
            Want::Load => self.own_page(frames, object, page.0),
            Want::Store => match self.page_to_change(frames, object, page.0) {
                Ok(frame) => ObjectPage::Here(frame),
                Err(blocked) => blocked,
            },
        }
    }

    fn snapshot(&mut self, frames: &mut F, object: ObjectId) -> Option<ObjectId> {
        self.take_snapshot(frames, object)
    }

    fn retain(&mut self, object: ObjectId, bytes: u64) {
        // Shared anonymous memory becomes an object when it is mapped.
        let new = || Object {
            length: bytes,
            pages: BTreeMap::new(),
            supplied_below: 0,
            origin: None,
            snapshots: Vec::new(),
            references: 0,
        };
        let entry = self.objects.entry(object).or_insert_with(new);
        entry.references = entry.references.saturating_add(bytes);
    }

    fn release(&mut self, frames: &mut F, object: ObjectId, bytes: u64) {
        if let Some(entry) = self.objects.get_mut(&object) {
            entry.references = entry.references.saturating_sub(bytes);
        }
        self.forget_unused(frames, object);
    }
}

/// Zeros bytes `[start, end)` of a frame.
fn zero<F: Frames>(frames: &mut F, frame: F::Frame, start: u64, end: u64) {
    const ZEROS: [u8; 512] = [0; 512];
    let mut at = start.min(PAGE.bytes());
    while at < end.min(PAGE.bytes()) {
        let length = (end.min(PAGE.bytes()) - at).min(ZEROS.len() as u64);
        frames.write(frame, at as usize, &ZEROS[..length as usize]);
        at += length;
    }
}

/// All pages from `page` on.
fn from_page(page: u64) -> PageRange {
    PageRange { start: page, end: u64::MAX }
}
