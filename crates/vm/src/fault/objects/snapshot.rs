//! Snapshots: copying a page just before it changes.

use super::{NOW, Object, ObjectTable, PAGE, PAGE_BYTES, ZEROS};
use crate::fault::{Memory, Notice, Stop};
use crate::space::ObjectId;
use memobj_core::address::{PageIndex, PageRange};
use memobj_core::decide::Intent;
use memobj_core::pages::Origin;

impl<M: Memory> ObjectTable<M> {
    /// An object that has the bytes of `object` as they are now, whatever becomes of it; `None` if that cannot be promised,
    /// for want of a frame or because somebody stores to a page by a pin. It is open until it is closed.
    ///
    /// What stores could go on to is protected, so that they ask again, and what they change can be copied before.
    pub fn snapshot(&mut self, object: ObjectId) -> Option<ObjectId> {
        let entry = self.objects.get(&object)?;
        let id = ObjectId(self.next_snapshot);
        self.next_snapshot += 1;
        // A snapshot does not change; but names are one for each mapping, so this is another of the same.
        let origin = entry.origin.unwrap_or(object);
        let new = Object { references: 1, ..Object::new(entry.length, Some(origin)) };
        self.objects.insert(id, new);
        self.objects.get_mut(&origin)?.snapshots.push(id);
        let filled =
            if origin == object { self.keep_as_it_is(object, id) } else { self.share_all(object, id) };
        if filled.is_err() {
            self.close(id);
            return None;
        }
        Some(id)
    }

    fn keep_as_it_is(&mut self, object: ObjectId, snapshot: ObjectId) -> Result<(), Stop> {
        let entry = &self.objects[&object];
        for block in entry.blocks.values() {
            block.protect(block.block_range(0)).map_err(|page| Stop::Busy(object, page))?;
        }
        let (last, tail) = (entry.length / PAGE_BYTES, (entry.length % PAGE_BYTES) as usize);
        if tail > 0 && entry.word(last).is_resident() {
            // What was stored past the end is not part of the object.
            let copy = self.memory().copy_of(entry.frame(last)).ok_or(Stop::NoFrame)?;
            self.memory().write(copy, tail, &ZEROS[tail..]);
            self.place(snapshot, last, copy, Origin::Stored(NOW))?;
        }
        Ok(())
    }

    /// Gives a snapshot all that another has of its own.
    fn share_all(&mut self, from: ObjectId, to: ObjectId) -> Result<(), Stop> {
        let own = |next: u64, table: &Self| {
            let entry = &table.objects[&from];
            entry
                .words_from(next)
                .find(|(_, word)| word.is_resident())
                .map(|(page, _)| (page, entry.frame(page)))
        };
        let mut next = 0;
        while let Some((page, frame)) = own(next, self) {
            self.memory().share(frame);
            self.place(to, page, frame, Origin::Stored(NOW))?;
            next = page + 1;
        }
        Ok(())
    }

    /// Gives the snapshots of `object` that show its page `page` a copy of it, which is resident and about to change.
    pub(super) fn save(&mut self, object: ObjectId, page: u64) -> Result<(), Stop> {
        let (mut copy, mut next) = (None, 0);
        while let Some(&id) = self.objects.get(&object).and_then(|entry| entry.snapshots.get(next)) {
            next += 1;
            let snapshot = &self.objects[&id];
            if !snapshot.has(page) || snapshot.word(page).is_resident() {
                continue;
            }
            let frame = match copy {
                Some(copy) => {
                    self.memory().share(copy);
                    copy
                }
                None => self.memory().copy_of(self.objects[&object].frame(page)).ok_or(Stop::NoFrame)?,
            };
            self.place(id, page, frame, Origin::Stored(NOW))?;
            self.memory().tell(Notice::Replaced(id, PageRange::one(PageIndex(page))));
            copy = Some(frame);
        }
        Ok(())
    }

    /// Gives the snapshots of `object` all pages from `first` on that they show of it.
    pub(super) fn save_from(&mut self, object: ObjectId, first: u64) -> Result<(), Stop> {
        let entry = &self.objects[&object];
        let pages = if entry.snapshots.is_empty() { 0 } else { PAGE.pages_for(entry.length) };
        (first..pages).try_for_each(|page| self.reach(object, page, Intent::Change).map(drop))
    }
}
