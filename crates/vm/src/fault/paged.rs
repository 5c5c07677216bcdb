//! An address space with its private pages.

use super::{FrameNumber, Memory, Mmu, ObjectTable, Stop};
use crate::space::abi::linux::{Madvise, Populate};
use crate::space::{
    AddressSpace, Change, Limits, Lock, MapRequest, OnFork, ProtectFrom, RemapTo, Segment, SegmentContent,
    Sharing, SpaceError,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use memobj_core::address::VirtAddr;
use memobj_core::prot::{Access, Prot};

/// An address space whose page table is kept by us: its verbs are those of [`AddressSpace`], applied.
///
/// To be dropped only after [`Attached::clear`], which gives its frames back.
#[derive(Clone, Debug)]
pub struct PagedSpace {
    space: AddressSpace,
    /// What the space owns, by page number; all else belongs to objects.
    pages: BTreeMap<u64, Page>,
}

/// What a space has in a place of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    /// A private page.
    Private(FrameNumber),
    /// A guard.
    Guard,
}

/// Why a verb was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerbError {
    /// By the address space.
    Space(SpaceError),
    /// A page that has to be resident could not be.
    Stop(Stop),
    /// The object cannot promise to stay as it is.
    NoSnapshot,
}

impl From<SpaceError> for VerbError {
    fn from(error: SpaceError) -> Self {
        VerbError::Space(error)
    }
}

impl PagedSpace {
    /// An empty address space.
    pub fn new(limits: Limits) -> Self {
        Self { space: AddressSpace::new(limits), pages: BTreeMap::new() }
    }

    /// What is mapped.
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Sets other limits.
    pub fn set_limits(&mut self, limits: Limits) {
        self.space.set_limits(limits);
    }

    /// The space with what its host lends for one verb or fault: the objects with the memory of all, and the page table
    /// of the space.
    pub fn on<'a, M: Memory, U: Mmu>(
        &'a mut self,
        objects: &'a mut ObjectTable<M>,
        mmu: &'a mut U,
    ) -> Attached<'a, M, U> {
        Attached { space: &mut self.space, pages: &mut self.pages, objects, mmu }
    }
}

/// See [`PagedSpace::on`].
#[derive(Debug)]
pub struct Attached<'a, M: Memory, U> {
    pub(super) space: &'a mut AddressSpace,
    pub(super) pages: &'a mut BTreeMap<u64, Page>,
    pub(super) objects: &'a mut ObjectTable<M>,
    pub(super) mmu: &'a mut U,
}

impl<M: Memory, U: Mmu> Attached<'_, M, U> {
    /// Maps what `request` asks for; a copy segment shows the object as it is now.
    pub fn map(&mut self, request: &MapRequest, populate: Populate) -> Result<Segment, VerbError> {
        let mut request = *request;
        let mut snapshot = None;
        if let (Ok(Sharing::Copy), SegmentContent::Object { view, offset }) =
            (request.sharing, request.source)
        {
            let id = self.objects.snapshot(view.id).ok_or(VerbError::NoSnapshot)?;
            request.source = SegmentContent::Object { view: crate::space::ObjectView { id, ..view }, offset };
            snapshot = Some(id);
        }
        let mapped = self.verb(|space, changes| space.map(&request, changes));
        if let Some(id) = snapshot {
            // Ours until the segment has it, or it was refused.
            self.objects.close(id);
        }
        let mapped = mapped?;
        if populate == Populate::Yes || mapped.attributes.lock == Lock::Locked {
            self.populate_all(mapped.start, mapped.length);
        }
        Ok(mapped)
    }

    /// Frees a range.
    pub fn unmap(&mut self, start: VirtAddr, length: u64) -> Result<(), VerbError> {
        self.verb(|space, changes| space.unmap(start, length, changes))
    }

    /// Changes the protection of a range. Locked pages that become private and writable are copied at once.
    pub fn protect(
        &mut self,
        start: VirtAddr,
        length: u64,
        prot: Result<Prot, SpaceError>,
        from: ProtectFrom,
    ) -> Result<(), VerbError> {
        let mut changes = Vec::new();
        let done = self.space.protect(start, length, prot, from, &mut changes);
        self.apply(&changes);
        for change in changes {
            if let Change::Changed { before, after } = change
                && after.attributes.lock == Lock::Locked
                && after.attributes.is_private_writable()
                && !before.attributes.prot.contains(Prot::WRITE)
            {
                self.populate_all(after.start, after.length);
            }
        }
        Ok(done?)
    }

    /// Moves a segment or changes its length.
    pub fn remap(
        &mut self,
        from: VirtAddr,
        (old, new): (u64, u64),
        to: RemapTo,
    ) -> Result<VirtAddr, VerbError> {
        let at = self.verb(|space, changes| space.remap(from, old, new, to, changes))?;
        let page = memobj_core::address::PageSize::SMALL.bytes();
        let old = old.checked_next_multiple_of(page).unwrap_or(0);
        let new = new.checked_next_multiple_of(page).unwrap_or(0);
        let locked = self.space.lookup(at).is_some_and(|it| it.attributes.lock == Lock::Locked);
        if let (true, Some(added)) = (locked && new > old, at.checked_add(old)) {
            self.populate_all(added, new - old);
        }
        Ok(at)
    }

    /// Takes advice about a range, or makes it resident.
    ///
    /// Holes to be punched into objects are the host's to punch; `punched` has them, also when the verb is refused.
    pub fn advise(
        &mut self,
        start: VirtAddr,
        length: u64,
        advice: Result<Madvise, SpaceError>,
        punched: &mut Vec<Change>,
    ) -> Result<(), VerbError> {
        let advice = match advice {
            Ok(Madvise::Populate(access)) => return self.populate(start, length, access),
            Ok(Madvise::Advise(advice)) => Ok(advice),
            Err(error) => Err(error),
        };
        let mut changes = Vec::new();
        let done = self.space.advise(start, length, advice, &mut changes);
        self.apply(&changes);
        punched.extend(changes.into_iter().filter(|change| matches!(change, Change::Punched(_))));
        Ok(done?)
    }

    /// Locks or unlocks a range; what is locked is made resident.
    pub fn lock(&mut self, start: VirtAddr, length: u64, lock: Lock) -> Result<(), VerbError> {
        self.verb(|space, changes| space.lock(start, length, lock, changes))?;
        if lock == Lock::Unlocked { Ok(()) } else { self.populate_locked(start, length) }
    }

    /// A forked child. Private pages are shared from now on, until one side stores.
    pub fn fork(&mut self) -> PagedSpace {
        let mut child = PagedSpace { space: self.space.fork(), pages: BTreeMap::new() };
        for segment in child.space.iter() {
            if let crate::space::Backing::Object { id, .. } = segment.backing {
                self.objects.retain(id, segment.length);
            }
            if segment.attributes.on_fork != OnFork::Inherit {
                continue;
            }
            for (&number, &page) in self.pages.range(page_numbers(segment.start, segment.length)) {
                if let Page::Private(frame) = page {
                    self.objects.memory().share(frame);
                }
                child.pages.insert(number, page);
            }
            self.mmu.unmap(segment.start, segment.length);
            self.mmu.flush(segment.start, segment.length);
        }
        child
    }

    /// Drops what a new program does not get.
    pub fn exec(&mut self) {
        let mut changes = Vec::new();
        self.space.exec(&mut changes);
        self.apply(&changes);
    }

    /// Unmaps everything.
    pub fn clear(&mut self) {
        let all: Vec<Change> = self.space.iter().map(Change::Unmapped).collect();
        *self.space = AddressSpace::new(self.space.limits());
        self.apply(&all);
    }

    /// Does `verb` and applies what it changed, whether it was refused or not.
    pub(super) fn verb<T>(
        &mut self,
        verb: impl FnOnce(&mut AddressSpace, &mut Vec<Change>) -> Result<T, SpaceError>,
    ) -> Result<T, VerbError> {
        let mut changes = Vec::new();
        let done = verb(self.space, &mut changes);
        self.apply(&changes);
        Ok(done?)
    }

    /// Makes `access` to `address` legal, or says why it is not.
    ///
    /// A host calls it when the MMU let an access not pass, and tries the access again afterwards.
    pub fn fault(&mut self, address: VirtAddr, access: Access) -> Result<(), Stop> {
        self.resolve(address, access).map(drop)
    }
}

/// The numbers of the pages of a range of whole pages.
pub(super) fn page_numbers(start: VirtAddr, length: u64) -> core::ops::Range<u64> {
    let page = memobj_core::address::PageSize::SMALL.shift();
    start.0 >> page..start.0.saturating_add(length) >> page
}
