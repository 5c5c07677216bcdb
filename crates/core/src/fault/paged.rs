//! An address space with its private pages.

use super::{FrameNumber, Host, Memory, Mmu, Stop};
use crate::address::VirtAddr;
use crate::prot::{Access, Prot};
use crate::space::abi::linux::{Madvise, Populate};
use crate::space::{
    AddressSpace, Change, Limits, Lock, MapRequest, OnFork, ProtectFrom, RemapTo, Segment, Sharing, Source,
    SpaceError,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// An address space whose page table is kept by us: its verbs are those of [`AddressSpace`], applied.
///
/// To be dropped only after [`PagedSpace::clear`], which gives its frames back.
#[derive(Clone, Debug)]
pub struct PagedSpace {
    pub(super) space: AddressSpace,
    /// What the space owns, by page number; all else belongs to objects.
    pub(super) pages: BTreeMap<u64, Page>,
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

    /// Maps what `request` asks for; a copy segment shows the object as it is now.
    pub fn map(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        request: &MapRequest,
        populate: Populate,
    ) -> Result<Segment, VerbError> {
        let mut request = *request;
        let mut snapshot = None;
        if let (Ok(Sharing::Copy), Source::Object { view, offset }) = (request.sharing, request.source) {
            let id = host.objects.snapshot(view.id).ok_or(VerbError::NoSnapshot)?;
            request.source = Source::Object { view: crate::space::ObjectView { id, ..view }, offset };
            snapshot = Some(id);
        }
        let mapped = self.verb(host, |space, changes| space.map(&request, changes));
        if let Some(id) = snapshot {
            // Ours until the segment has it, or it was refused.
            host.objects.close(id);
        }
        let mapped = mapped?;
        if populate == Populate::Yes || mapped.attributes.lock == Lock::Locked {
            self.populate_all(host, mapped.start, mapped.length);
        }
        Ok(mapped)
    }

    /// Frees a range.
    pub fn unmap(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        start: VirtAddr,
        length: u64,
    ) -> Result<(), VerbError> {
        self.verb(host, |space, changes| space.unmap(start, length, changes))
    }

    /// Changes the protection of a range. Locked pages that become private and writable are copied at once.
    pub fn protect(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        start: VirtAddr,
        length: u64,
        prot: Result<Prot, SpaceError>,
        from: ProtectFrom,
    ) -> Result<(), VerbError> {
        let mut changes = Vec::new();
        let done = self.space.protect(start, length, prot, from, &mut changes);
        self.apply(host, &changes);
        for change in changes {
            if let Change::Changed { before, after } = change
                && after.attributes.lock == Lock::Locked
                && after.attributes.is_private_writable()
                && !before.attributes.prot.contains(Prot::WRITE)
            {
                self.populate_all(host, after.start, after.length);
            }
        }
        Ok(done?)
    }

    /// Moves a segment or changes its length.
    pub fn remap(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        from: VirtAddr,
        (old, new): (u64, u64),
        to: RemapTo,
    ) -> Result<VirtAddr, VerbError> {
        let at = self.verb(host, |space, changes| space.remap(from, old, new, to, changes))?;
        let page = crate::address::PageSize::SMALL.bytes();
        let old = old.checked_next_multiple_of(page).unwrap_or(0);
        let new = new.checked_next_multiple_of(page).unwrap_or(0);
        let locked = self.space.lookup(at).is_some_and(|it| it.attributes.lock == Lock::Locked);
        if let (true, Some(added)) = (locked && new > old, at.checked_add(old)) {
            self.populate_all(host, added, new - old);
        }
        Ok(at)
    }

    /// Takes advice about a range, or makes it resident.
    ///
    /// Holes to be punched into objects are the host's to punch; `punched` has them, also when the verb is refused.
    pub fn advise(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        start: VirtAddr,
        length: u64,
        advice: Result<Madvise, SpaceError>,
        punched: &mut Vec<Change>,
    ) -> Result<(), VerbError> {
        let advice = match advice {
            Ok(Madvise::Populate(access)) => return self.populate(host, start, length, access),
            Ok(Madvise::Advise(advice)) => Ok(advice),
            Err(error) => Err(error),
        };
        let mut changes = Vec::new();
        let done = self.space.advise(start, length, advice, &mut changes);
        self.apply(host, &changes);
        punched.extend(changes.into_iter().filter(|change| matches!(change, Change::Punched(_))));
        Ok(done?)
    }

    /// Locks or unlocks a range; what is locked is made resident.
    pub fn lock(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        start: VirtAddr,
        length: u64,
        lock: Lock,
    ) -> Result<(), VerbError> {
        self.verb(host, |space, changes| space.lock(start, length, lock, changes))?;
        if lock == Lock::Unlocked { Ok(()) } else { self.populate_locked(host, start, length) }
    }

    /// A forked child. Private pages are shared from now on, until one side stores.
    pub fn fork(&mut self, host: &mut Host<'_, impl Memory, impl Mmu>) -> Self {
        let mut child = Self { space: self.space.fork(), pages: BTreeMap::new() };
        for segment in child.space.iter() {
            if let crate::space::Backing::Object { id, .. } = segment.backing {
                host.objects.retain(id, segment.length);
            }
            if segment.attributes.on_fork != OnFork::Inherit {
                continue;
            }
            for (&number, &page) in self.pages.range(page_numbers(segment.start, segment.length)) {
                if let Page::Private(frame) = page {
                    host.objects.memory().share(frame);
                }
                child.pages.insert(number, page);
            }
            host.mmu.unmap(segment.start, segment.length);
            host.mmu.flush(segment.start, segment.length);
        }
        child
    }

    /// Drops what a new program does not get.
    pub fn exec(&mut self, host: &mut Host<'_, impl Memory, impl Mmu>) {
        let mut changes = Vec::new();
        self.space.exec(&mut changes);
        self.apply(host, &changes);
    }

    /// Unmaps everything.
    pub fn clear(&mut self, host: &mut Host<'_, impl Memory, impl Mmu>) {
        let all: Vec<Change> = self.space.iter().map(Change::Unmapped).collect();
        self.space = AddressSpace::new(self.space.limits());
        self.apply(host, &all);
    }

    /// Does `verb` and applies what it changed, whether it was refused or not.
    pub(super) fn verb<T>(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        verb: impl FnOnce(&mut AddressSpace, &mut Vec<Change>) -> Result<T, SpaceError>,
    ) -> Result<T, VerbError> {
        let mut changes = Vec::new();
        let done = verb(&mut self.space, &mut changes);
        self.apply(host, &changes);
        Ok(done?)
    }

    /// Makes `access` to `address` legal, or says why it is not.
    ///
    /// A host calls it when the MMU let an access not pass, and tries the access again afterwards.
    pub fn fault(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        address: VirtAddr,
        access: Access,
    ) -> Result<(), Stop> {
        self.resolve(host, address, access).map(drop)
    }
}

/// The numbers of the pages of a range of whole pages.
pub(super) fn page_numbers(start: VirtAddr, length: u64) -> core::ops::Range<u64> {
    let page = crate::address::PageSize::SMALL.shift();
    start.0 >> page..start.0.saturating_add(length) >> page
}
