//! What changes of the space and notices of objects do to pages and translations.

use super::paged::{Page, page_numbers};
use super::{Attached, Memory, Mmu, Notice};
use crate::space::{Backing, Change, Guard, ObjectId, Segment, Sharing};
use alloc::vec::Vec;
use memobj_core::address::{PageRange, PageSize, VirtAddr};

impl<M: Memory, U: Mmu> Attached<'_, M, U> {
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match *change {
                Change::Mapped(segment) => {
                    if let Backing::Object { id, .. } = segment.backing {
                        self.objects.retain(id, segment.length);
                    }
                }
                Change::Unmapped(segment) => {
                    self.drop_pages((segment.start, segment.length), Guard::Open);
                    if let Backing::Object { id, .. } = segment.backing {
                        self.objects.release(id, segment.length);
                    }
                }
                Change::Changed { after, .. } => self.forget(after.start, after.length),
                Change::Dropped(segment) => {
                    self.drop_pages((segment.start, segment.length), Guard::Guarded);
                }
                Change::Guarded(segment, guard) => {
                    self.guard_pages((segment.start, segment.length), guard);
                }
                Change::Moved { from, to } => self.move_pages(&from, to),
                // The host's concern: it has the objects.
                Change::Punched(_) | Change::Synced(_) => {}
            }
        }
    }

    fn forget(&mut self, start: VirtAddr, length: u64) {
        self.mmu.unmap(start, length);
        self.mmu.flush(start, length);
    }

    /// Gives back what is in a range; guards stay if `guard` is [`Guard::Guarded`].
    fn drop_pages(&mut self, (start, length): (VirtAddr, u64), guard: Guard) {
        self.forget(start, length);
        for (number, page) in self.take_pages(start, length) {
            match page {
                Page::Private(frame) => self.objects.memory().release(frame),
                Page::Guard if guard == Guard::Guarded => drop(self.pages.insert(number, page)),
                Page::Guard => {}
            }
        }
    }

    fn guard_pages(&mut self, (start, length): (VirtAddr, u64), guard: Guard) {
        if guard == Guard::Guarded {
            self.drop_pages((start, length), guard);
            self.pages.extend(page_numbers(start, length).map(|number| (number, Page::Guard)));
            return;
        }
        for (number, page) in self.take_pages(start, length) {
            if page != Page::Guard {
                self.pages.insert(number, page);
            }
        }
    }

    fn take_pages(&mut self, start: VirtAddr, length: u64) -> Vec<(u64, Page)> {
        let numbers = page_numbers(start, length);
        let pages: Vec<_> = self.pages.range(numbers).map(|(&number, &page)| (number, page)).collect();
        for (number, _) in &pages {
            self.pages.remove(number);
        }
        pages
    }

    fn move_pages(&mut self, from: &Segment, to: VirtAddr) {
        self.forget(from.start, from.length);
        let (first, target) = (page_numbers(from.start, 0).start, page_numbers(to, 0).start);
        for (number, page) in self.take_pages(from.start, from.length) {
            self.pages.insert(number - first + target, page);
        }
    }

    /// Does to this space what happened to pages of an object.
    ///
    /// The host calls it for every space and every notice before it lets any access go on.
    pub fn notice(&mut self, notice: Notice) {
        let (Notice::Replaced(object, range) | Notice::Protected(object, range) | Notice::Cut(object, range)) =
            notice;
        let placed: Vec<(Segment, VirtAddr, u64)> = self
            .space
            .iter()
            .filter_map(|segment| place_of(&segment, object, range).map(|(at, length)| (segment, at, length)))
            .collect();
        for (segment, start, length) in placed {
            let cut = matches!(notice, Notice::Cut(..)) && segment.attributes.sharing == Sharing::Private;
            if cut {
                self.drop_pages((start, length), Guard::Guarded);
            } else {
                self.forget(start, length);
            }
        }
    }
}

/// Where pages of `object` are in `segment`, in whole pages: first address and length.
fn place_of(segment: &Segment, object: ObjectId, range: PageRange) -> Option<(VirtAddr, u64)> {
    let Backing::Object { id, offset } = segment.backing else { return None };
    let page = PageSize::SMALL.bytes();
    let first = offset.0.max(range.start.saturating_mul(page));
    let end = offset.0.saturating_add(segment.length).min(range.end.saturating_mul(page));
    (id == object && first < end).then(|| (VirtAddr(segment.start.0 + (first - offset.0)), end - first))
}
