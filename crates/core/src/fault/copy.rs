//! Copying to and from a space, as a kernel does for system calls.

use super::{Host, Memory, Mmu, PagedSpace, Stop, Trap};
use crate::address::{PageSize, VirtAddr};
use crate::prot::Access;

const PAGE: u64 = PageSize::SMALL.bytes();

/// How far a copy came, and what stopped it before the end.
type Copied = (usize, Option<Stop>);

impl PagedSpace {
    /// Copies the bytes at `address` into `into`, up to the first that cannot be read.
    ///
    /// What stops it is an answer, never a signal: system calls return the count, or EFAULT if it is zero.
    pub fn copy_out(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        address: VirtAddr,
        into: &mut [u8],
    ) -> Copied {
        let mut done = 0;
        for (at, length) in pieces(address, into.len()) {
            match at.ok_or(Trap::Unmapped.into()).and_then(|at| self.resolve(host, at, Access::Read)) {
                Ok(frame) => {
                    let from = (address.0 + done as u64) % PAGE;
                    host.objects.memory().read(frame, from as usize, &mut into[done..done + length]);
                }
                Err(stop) => return (done, Some(stop)),
            }
            done += length;
        }
        (done, None)
    }

    /// Copies `from` to `address`, up to the first byte that cannot be stored.
    pub fn copy_in(
        &mut self,
        host: &mut Host<'_, impl Memory, impl Mmu>,
        address: VirtAddr,
        from: &[u8],
    ) -> Copied {
        let mut done = 0;
        for (at, length) in pieces(address, from.len()) {
            match at.ok_or(Trap::Unmapped.into()).and_then(|at| self.resolve(host, at, Access::Write)) {
                Ok(frame) => {
                    let to = (address.0 + done as u64) % PAGE;
                    host.objects.memory().write(frame, to as usize, &from[done..done + length]);
                }
                Err(stop) => return (done, Some(stop)),
            }
            done += length;
        }
        (done, None)
    }
}

/// The parts of `length` bytes at `address` that lie in one page each; `None` where addresses end.
fn pieces(address: VirtAddr, length: usize) -> impl Iterator<Item = (Option<VirtAddr>, usize)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let left = length.checked_sub(done).filter(|&left| left > 0)?;
        let at = address.checked_add(done as u64);
        let room = at.map_or(left, |at| (PAGE - at.0 % PAGE) as usize);
        done += left.min(room);
        Some((at, left.min(room)))
    })
}
