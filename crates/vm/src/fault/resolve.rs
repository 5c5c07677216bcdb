//! One fault.

use super::paged::Page;
use super::{Attached, FrameNumber, Memory, Mmu, Stop, Trap};
use crate::space::{Backing, Loads, Segment};
use memobj_core::address::{PageSize, VirtAddr};
use memobj_core::decide::{Fault, Intent};
use memobj_core::prot::{Access, Prot};

const PAGE: PageSize = PageSize::SMALL;

impl<M: Memory, U: Mmu> Attached<'_, M, U> {
    /// Makes `access` legal and returns the frame that holds `address`.
    ///
    /// The order is the kernel's: the segment, which a stack may become; its protection; a guard; the end of the
    /// object.
    pub(super) fn resolve(&mut self, address: VirtAddr, access: Access) -> Result<FrameNumber, Stop> {
        let segment = match self.space.lookup(address) {
            Some(segment) => segment,
            None => self.grow(address)?,
        };
        if segment.backing == Backing::Reserved {
            return Err(Trap::Unmapped.into());
        }
        let limits = self.space.limits();
        let effective = limits.effective(segment.attributes.prot);
        if !effective.allows(access) {
            // x86-64 looks at whether a page may be executed only once it is there.
            let late = access == Access::Execute && limits.loads != Loads::Stated;
            if late && effective != Prot::NONE {
                self.make_present(&segment, address, Access::Read)?;
            }
            return Err(Trap::Denied.into());
        }
        self.make_present(&segment, address, access)
    }

    fn grow(&mut self, address: VirtAddr) -> Result<Segment, Stop> {
        let grown = self.verb(|space, changes| space.grow(address, changes));
        grown.map_err(|_| Trap::Unmapped.into())
    }

    /// Brings the page of `segment` at `address` in, whatever its protection is.
    pub(super) fn make_present(
        &mut self,
        segment: &Segment,
        address: VirtAddr,
        access: Access,
    ) -> Result<FrameNumber, Stop> {
        let number = address.0 >> PAGE.shift();
        let (frame, stores) = match self.pages.get(&number) {
            Some(Page::Guard) => return Err(Trap::Unmapped.into()),
            Some(&Page::Private(frame)) => self.own(number, frame, access)?,
            None if segment.attributes.is_private() => self.first_use(segment, address, access)?,
            None => (self.object_page(segment, address, access)?, access == Access::Write),
        };
        let effective = self.space.limits().effective(segment.attributes.prot);
        let prot = if stores { effective } else { effective.without(Prot::WRITE) };
        let page = VirtAddr(number << PAGE.shift());
        self.mmu.map(page, frame, prot);
        // A load may have left a translation that forbids stores, or leads to the page that was copied.
        self.mmu.flush(page, PAGE.bytes());
        Ok(frame)
    }

    /// A private page that is there: copied if it is to be stored to and has other owners. Also says whether it may
    /// be stored to.
    fn own(&mut self, number: u64, frame: FrameNumber, access: Access) -> Result<(FrameNumber, bool), Stop> {
        let memory = self.objects.memory();
        if memory.owners(frame) == 1 {
            return Ok((frame, true));
        }
        if access != Access::Write {
            return Ok((frame, false));
        }
        let copy = memory.copy_of(frame).ok_or(Stop::NoFrame)?;
        self.pages.insert(number, Page::Private(copy));
        memory.release(frame);
        Ok((copy, true))
    }

    /// A page that has no private copy yet.
    fn first_use(
        &mut self,
        segment: &Segment,
        address: VirtAddr,
        access: Access,
    ) -> Result<(FrameNumber, bool), Stop> {
        let new = match segment.backing {
            Backing::Object { .. } => {
                // The object keeps its page: a store goes into a copy.
                let frame = self.object_page(segment, address, Access::Read)?;
                if access != Access::Write {
                    return Ok((frame, false));
                }
                self.objects.memory().copy_of(frame)
            }
            Backing::Anonymous | Backing::Reserved => self.objects.memory().zeroed(),
        };
        let frame = new.ok_or(Stop::NoFrame)?;
        self.pages.insert(address.0 >> PAGE.shift(), Page::Private(frame));
        Ok((frame, true))
    }

    fn object_page(
        &mut self,
        segment: &Segment,
        address: VirtAddr,
        access: Access,
    ) -> Result<FrameNumber, Stop> {
        let (object, offset) = segment.object_at(address).ok_or(Trap::Unmapped)?;
        let intent =
            if access == Access::Write { Intent::Store(Fault::Any) } else { Intent::Load(Fault::Any) };
        self.objects.reach(object, PAGE.page_of(offset).0, intent)
    }
}
