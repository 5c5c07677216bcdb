//! Snapshots: copying a page just before it changes.

use super::super::{Frames, Notice, ObjectPage};
use super::{Blocked, Object, ObjectTable, PAGE, from_page, zero};
use crate::address::PageRange;
use crate::space::ObjectId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

impl<F: Frames> ObjectTable<F> {
    /// A snapshot of `object`. Stores into it are told again, so that what they change can be copied before.
    pub(super) fn take_snapshot(&mut self, frames: &mut F, object: ObjectId) -> Option<ObjectId> {
        let entry = self.objects.get(&object)?;
        if let Some(origin) = entry.origin {
            // A snapshot does not change; but names are one for each mapping, so take another of the same.
            let mut pages = entry.pages.clone();
            pages.values_mut().for_each(|frame| frames.share(*frame));
            let length = entry.length;
            return Some(self.add_snapshot(origin, length, pages));
        }
        let length = entry.length;
        let mut pages = BTreeMap::new();
        let (last, tail) = (length / PAGE.bytes(), length % PAGE.bytes());
        if let Some(&frame) = entry.pages.get(&last).filter(|_| tail > 0) {
            // What was stored past the end is not part of the object.
            let copy = frames.copy_of(frame)?;
            zero(frames, copy, tail, PAGE.bytes());
            pages.insert(last, copy);
        }
        let id = self.add_snapshot(object, length, pages);
        self.notices.push(Notice::Protected(object, from_page(0)));
        Some(id)
    }

    fn add_snapshot(&mut self, origin: ObjectId, length: u64, pages: BTreeMap<u64, F::Frame>) -> ObjectId {
        let id = ObjectId(self.next_snapshot);
        self.next_snapshot += 1;
        let (snapshots, origin_entry) = (Vec::new(), self.objects.get_mut(&origin));
        origin_entry.into_iter().for_each(|entry| entry.snapshots.push(id));
        let origin = Some(origin);
        self.objects
            .insert(id, Object { length, pages, supplied_below: 0, origin, snapshots, references: 0 });
        id
    }

    /// A page of a snapshot: its own, or that of the object, which has not changed since.
    pub(super) fn snapshot_page(
        &mut self,
        frames: &mut F,
        snapshot: ObjectId,
        page: u64,
    ) -> ObjectPage<F::Frame> {
        let Some(entry) = self.objects.get(&snapshot) else { return ObjectPage::Failed };
        if !entry.has(page) {
            return ObjectPage::Beyond;
        }
        match (entry.pages.get(&page), entry.origin) {
            (Some(&frame), _) => ObjectPage::Here(frame),
            (None, Some(origin)) => self.own_page(frames, origin, page),
            (None, None) => ObjectPage::Failed,
        }
    }

    /// Gives the snapshots of `object` that show `frame` as page `page` a copy of it.
    pub(super) fn push(
        &mut self,
        frames: &mut F,
        object: ObjectId,
        page: u64,
        frame: F::Frame,
    ) -> Result<(), Blocked<F::Frame>> {
        let snapshots = self.objects.get(&object).map(|entry| entry.snapshots.clone()).unwrap_or_default();
        let mut copy = None;
        for id in snapshots {
            let Some(snapshot) = self.objects.get_mut(&id) else { continue };
            if !snapshot.has(page) || snapshot.pages.contains_key(&page) {
                continue;
            }
            let copy = match copy {
                Some(copy) => {
                    frames.share(copy);
                    copy
                }
                None => *copy.insert(frames.copy_of(frame).ok_or(ObjectPage::NoFrame)?),
            };
            snapshot.pages.insert(page, copy);
            self.notices.push(Notice::Replaced(id, PageRange { start: page, end: page + 1 }));
        }
        Ok(())
    }

    /// Gives the snapshots of `object` all pages from `first` on that they show of it.
    pub(super) fn push_from(
        &mut self,
        frames: &mut F,
        object: ObjectId,
        first: u64,
    ) -> Result<(), Blocked<F::Frame>> {
        let Some(entry) = self.objects.get(&object) else { return Ok(()) };
        if entry.snapshots.is_empty() {
            return Ok(());
        }
        for page in first..PAGE.pages_for(entry.length) {
            self.page_to_change(frames, object, page)?;
        }
        Ok(())
    }
}
