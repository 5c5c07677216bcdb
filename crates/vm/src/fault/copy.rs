//! Copying to and from a space, as a kernel does for system calls.

use super::{Attached, FrameNumber, Memory, Mmu, Stop, Trap};
use core::ops::Range;
use memobj_core::address::{PageSize, VirtAddr};
use memobj_core::prot::Access;

const PAGE: u64 = PageSize::SMALL.bytes();

/// How far a copy came, and what stopped it before the end.
type Copied = (usize, Option<Stop>);

impl<M: Memory, U: Mmu> Attached<'_, M, U> {
    /// Copies the bytes at `address` into `into`, up to the first that cannot be read.
    ///
    /// What stops it is an answer, never a signal: system calls return the count, or EFAULT if it is zero.
    pub fn copy_out(&mut self, address: VirtAddr, into: &mut [u8]) -> Copied {
        self.copy(address, into.len(), Access::Read, |memory, frame, at, part| {
            memory.read(frame, at, &mut into[part]);
        })
    }

    /// Copies `from` to `address`, up to the first byte that cannot be stored.
    pub fn copy_in(&mut self, address: VirtAddr, from: &[u8]) -> Copied {
        self.copy(address, from.len(), Access::Write, |memory, frame, at, part| {
            memory.write(frame, at, &from[part]);
        })
    }

    fn copy(
        &mut self,
        address: VirtAddr,
        length: usize,
        access: Access,
        mut act: impl FnMut(&M, FrameNumber, usize, Range<usize>),
    ) -> Copied {
        let mut done = 0;
        for (at, length) in pieces(address, length) {
            match at.ok_or(Trap::Unmapped.into()).and_then(|at| self.resolve(at, access)) {
                Ok(frame) => {
                    let at = (address.0 + done as u64) % PAGE;
                    act(self.objects.memory(), frame, at as usize, done..done + length);
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
