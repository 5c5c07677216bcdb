//! One fault.

use super::paged::Page;
use super::{Frames, Host, Mmu, ObjectPage, Objects, PagedSpace, Stop, Trap, Want};
use crate::address::{PageSize, VirtAddr};
use crate::prot::{Access, Prot};
use crate::space::{Backing, Loads, Segment};

const PAGE: PageSize = PageSize::SMALL;

impl<Frame: Copy + Eq> PagedSpace<Frame> {
    /// Makes `access` legal and returns the frame that holds `address`.
    ///
    /// The order is the kernel's: the segment, which a stack may become; its protection; a guard; the end of the
    /// object.
    pub(super) fn resolve<F: Frames<Frame = Frame>>(
        &mut self,
        host: &mut Host<'_, F, impl Mmu<Frame>, impl Objects<F>>,
        address: VirtAddr,
        access: Access,
    ) -> Result<Frame, Stop> {
        let segment = match self.space.lookup(address) {
            Some(segment) => segment,
            None => self.grow(host, address)?,
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
                self.make_present(host, &segment, address, Want::Load)?;
            }
            return Err(Trap::Denied.into());
        }
        let want = if access == Access::Write { Want::Store } else { Want::Load };
        self.make_present(host, &segment, address, want)
    }

    fn grow<F: Frames<Frame = Frame>>(
        &mut self,
        host: &mut Host<'_, F, impl Mmu<Frame>, impl Objects<F>>,
        address: VirtAddr,
    ) -> Result<Segment, Stop> {
        let grown = self.verb(host, |space, changes| space.grow(address, changes));
        grown.map_err(|_| Trap::Unmapped.into())
    }

    /// Brings the page of `segment` at `address` in, whatever its protection is.
    pub(super) fn make_present<F: Frames<Frame = Frame>>(
        &mut self,
        host: &mut Host<'_, F, impl Mmu<Frame>, impl Objects<F>>,
        segment: &Segment,
        address: VirtAddr,
        want: Want,
    ) -> Result<Frame, Stop> {
        let number = address.0 >> PAGE.shift();
        let (frame, stores) = match self.pages.get(&number) {
            Some(Page::Guard) => return Err(Trap::Unmapped.into()),
            Some(&Page::Private(frame)) => self.own(host.frames, number, frame, want)?,
            None if segment.attributes.is_private() => self.first_use(host, segment, address, want)?,
            None => (object_page(host, segment, address, want)?, want == Want::Store),
        };
        let effective = self.space.limits().effective(segment.attributes.prot);
        let prot = if stores { effective } else { effective.without(Prot::WRITE) };
        let page = VirtAddr(number << PAGE.shift());
        host.mmu.map(page, frame, prot);
        // A load may have left a translation that forbids stores, or leads to the page that was copied.
        host.mmu.flush(page, PAGE.bytes());
        Ok(frame)
    }

    /// A private page that is there: copied if it is to be stored to and has other owners. Also says whether it may
    /// be stored to.
    fn own<F: Frames<Frame = Frame>>(
        &mut self,
        frames: &mut F,
        number: u64,
        frame: Frame,
        want: Want,
    ) -> Result<(Frame, bool), Stop> {
        if frames.owners(frame) == 1 {
            return Ok((frame, true));
        }
        if want == Want::Load {
            return Ok((frame, false));
        }
        let copy = frames.copy_of(frame).ok_or(Stop::NoFrame)?;
        self.pages.insert(number, Page::Private(copy));
        frames.release(frame);
        Ok((copy, true))
    }

    /// A page that has no private copy yet.
    fn first_use<F: Frames<Frame = Frame>>(
        &mut self,
        host: &mut Host<'_, F, impl Mmu<Frame>, impl Objects<F>>,
        segment: &Segment,
        address: VirtAddr,
        want: Want,
    ) -> Result<(Frame, bool), Stop> {
        let new = match segment.backing {
            Backing::Object { .. } => {
                // The object keeps its page: a store goes into a copy.
                let frame = object_page(host, segment, address, Want::Load)?;
                if want == Want::Load {
                    return Ok((frame, false));
                }
                host.frames.copy_of(frame)
            }
            Backing::Anonymous | Backing::Reserved => host.frames.zeroed(),
        };
        let frame = new.ok_or(Stop::NoFrame)?;
        self.pages.insert(address.0 >> PAGE.shift(), Page::Private(frame));
        Ok((frame, true))
    }
}

fn object_page<F: Frames>(
    host: &mut Host<'_, F, impl Mmu<F::Frame>, impl Objects<F>>,
    segment: &Segment,
    address: VirtAddr,
    want: Want,
) -> Result<F::Frame, Stop> {
    let Some((object, offset)) = segment.object_at(address) else { return Err(Trap::Unmapped.into()) };
    match host.objects.page(host.frames, object, PAGE.page_of(offset), want) {
        ObjectPage::Here(frame) => Ok(frame),
        ObjectPage::Needed(object, page) => Err(Stop::Need(object, page)),
        ObjectPage::Beyond => Err(Trap::Beyond.into()),
        ObjectPage::Failed => Err(Trap::Failed.into()),
        ObjectPage::NoFrame => Err(Stop::NoFrame),
    }
}
