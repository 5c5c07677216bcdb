//! Bytes that cannot go away and cannot change.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memobj_core::address::{ByteRange, PageRange};
use memobj_core::pages::StoreRefused;

use super::{Area, MutPinSet, PinSet};
use crate::signal;

/// Why pages that were pinned do not give their bytes. Their pins have ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotPinned {
    /// Not all of them are pinned, or touches of some may be under way.
    Missing,
    /// The object has been cut off.
    CutOff,
    /// Pins are copies, and there is no room for this one.
    NoRoom,
    /// Pins are copies, and the load of this byte of the object trapped.
    Trapped(u64),
}

/// Bytes of the budget, and of the share of it that pins may hold, for one copy.
#[derive(Debug)]
pub struct CopyBudget {
    area: Arc<Area>,
    bytes: u64,
}

impl CopyBudget {
    /// Room for `bytes` bytes, which the caller has reserved of the budget of `area` and of the share of it that pins may
    /// hold. Dropping this gives both back.
    pub fn reserved(area: Arc<Area>, bytes: u64) -> Self {
        Self { area, bytes }
    }
}

impl Drop for CopyBudget {
    fn drop(&mut self) {
        self.area.pin_budget().release(self.bytes);
        self.area.budget().release(self.bytes);
    }
}

/// A copy of pinned bytes.
#[derive(Debug)]
struct Copied {
    bytes: Box<[u8]>,
    _room: CopyBudget,
}

impl Copied {
    /// Zeros in place of `bytes`.
    fn new(room: Option<CopyBudget>, bytes: ByteRange) -> Result<Self, NotPinned> {
        let room = room.filter(|room| room.bytes >= bytes.len()).ok_or(NotPinned::NoRoom)?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len() as usize).map_err(|_| NotPinned::NoRoom)?;
        copy.resize(bytes.len() as usize, 0);
        Ok(Self { bytes: copy.into_boxed_slice(), _room: room })
    }
}

/// How `bytes` of `pages`, which the caller has pinned, are handed out: by a reference, which is counted from here on
/// (`None`), or as a copy.
fn refer_or_copy(
    area: &Area,
    pages: PageRange,
    bytes: ByteRange,
    room: Option<CopyBudget>,
) -> Result<Option<Copied>, NotPinned> {
    if area.page_size().pages_of(bytes) != pages {
        return Err(NotPinned::Missing);
    }
    if bytes.end > area.length() {
        return Err(NotPinned::CutOff);
    }
    if area.enter_reference() {
        return Ok(None);
    }
    let mut copy = Copied::new(room, bytes)?;
    copy_out(area, pages, bytes, &mut copy.bytes).map_err(NotPinned::Trapped)?;
    Ok(Some(copy))
}

/// Copies `bytes` of `pages`, which the caller has pinned.
fn copy_out(area: &Area, pages: PageRange, bytes: ByteRange, buffer: &mut [u8]) -> Result<(), u64> {
    let inside = area.page_size().pages_of(bytes);
    assert!(bytes.is_empty() || (pages.start <= inside.start && inside.end <= pages.end));
    // SAFETY: the pages lie in the view, which is mapped as long as the area; the caller's pins keep mutable
    // references of others away.
    let copied = unsafe { signal::copy_trapping(buffer, area.pointer(bytes.start)) };
    if copied == buffer.len() { Ok(()) } else { Err(bytes.start + copied as u64) }
}

/// Copies `bytes`, which lie in pages that `set` has pinned, all of them, to `buffer`, which is as long; the error is
/// the byte of the object whose load trapped. No reference is made to the pages.
pub fn copy_pinned(set: &PinSet, bytes: ByteRange, buffer: &mut [u8]) -> Result<(), u64> {
    assert!(set.missing() == 0 && bytes.len() == buffer.len() as u64);
    copy_out(set.owner(), set.pages(), bytes, buffer)
}

/// Pinned bytes of an object.
#[derive(Debug)]
pub struct PinnedBytes {
    pins: PinSet,
    bytes: ByteRange,
    copy: Option<Copied>,
}

impl PinnedBytes {
    /// The bytes, once `pins` has every page. `bytes` lies in these pages, in the first and the last of them.
    ///
    /// Where pins are copies ([`Home::pins_are_copies`](super::Home::pins_are_copies)) the copy takes `room` for them.
    pub fn new(pins: PinSet, bytes: ByteRange, room: Option<CopyBudget>) -> Result<Self, NotPinned> {
        if pins.missing() > 0 {
            return Err(NotPinned::Missing);
        }
        let copy = refer_or_copy(pins.owner(), pins.pages(), bytes, room)?;
        Ok(Self { pins, bytes, copy })
    }
}

impl Deref for PinnedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if let Some(copy) = &self.copy {
            return &copy.bytes;
        }
        let start = self.pins.owner().pointer(self.bytes.start);
        // SAFETY: every page of the range is pinned by `pins`, so each holds a frame that eviction leaves alone, and is
        // protected in all views; bytes are put in place only into absent pages; nobody else has a description of the
        // frames that can write, as this reference is counted (`new`); the region lives as long as the area, which
        // `pins` keeps.
        unsafe { std::slice::from_raw_parts(start, self.bytes.len() as usize) }
    }
}

impl Drop for PinnedBytes {
    fn drop(&mut self) {
        if self.copy.is_none() {
            self.pins.owner().leave_reference();
        }
    }
}

/// Bytes of an object pinned for writing.
#[derive(Debug)]
pub struct PinnedBytesMut {
    pins: MutPinSet,
    bytes: ByteRange,
    copy: Option<Copied>,
}

impl PinnedBytesMut {
    /// The bytes, once `pins` has every page and no touch of one is under way. `bytes` lies in these pages, in the first
    /// and the last of them.
    ///
    /// Where pins are copies ([`Home::pins_are_copies`](super::Home::pins_are_copies)) the copy takes `room` for them,
    /// and is put into the pages by [`put_back`](Self::put_back).
    pub fn new(pins: MutPinSet, bytes: ByteRange, room: Option<CopyBudget>) -> Result<Self, NotPinned> {
        if !pins.is_alone() {
            return Err(NotPinned::Missing);
        }
        let copy = refer_or_copy(pins.owner(), pins.pages(), bytes, room)?;
        Ok(Self { pins, bytes, copy })
    }

    /// Puts a copy into the pages; where the bytes are the pages' own there is nothing to do. To be called before this is
    /// dropped, which forgets the copy.
    pub fn put_back(&mut self) -> Result<(), StoreRefused> {
        let Some(copy) = &self.copy else { return Ok(()) };
        let area = self.pins.owner();
        let page_bytes = area.page_size().bytes();
        let mut done = 0;
        while done < copy.bytes.len() {
            let at = self.bytes.start + done as u64;
            let part = ((page_bytes - at % page_bytes) as usize).min(copy.bytes.len() - done);
            self.pins.store(at, &copy.bytes[done..done + part])?;
            done += part;
        }
        Ok(())
    }
}

impl Deref for PinnedBytesMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if let Some(copy) = &self.copy {
            return &copy.bytes;
        }
        let start = self.pins.owner().pointer(self.bytes.start);
        // SAFETY: every page of the range is pinned for writing by `pins` alone, so each holds a frame that is
        // neither evicted nor copied from, and no touch of it is under way or begins; nobody else has a description of
        // the frames that can write, as this reference is counted (`new`); the region lives as long as the area, which
        // `pins` keeps.
        unsafe { std::slice::from_raw_parts(start, self.bytes.len() as usize) }
    }
}

impl DerefMut for PinnedBytesMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        if let Some(copy) = &mut self.copy {
            return &mut copy.bytes;
        }
        let start = self.pins.owner().pointer(self.bytes.start).cast_mut();
        // SAFETY: as in `deref`, and `self` is borrowed mutably: of all pins of these pages it is the only one.
        unsafe { std::slice::from_raw_parts_mut(start, self.bytes.len() as usize) }
    }
}

impl Drop for PinnedBytesMut {
    fn drop(&mut self) {
        if self.copy.is_none() {
            self.pins.owner().leave_reference();
        }
    }
}

/// Copies the bytes of `area` from `offset` on, which somebody may have pinned for writing, as they are: he may be
/// storing to them. For the end of the process only, after which nobody can tell a half of a store from a store that did
/// not come.
///
/// The kernel copies (process_vm_readv(2)), so no reference points to what another thread changes.
pub fn copy_as_is(area: &Area, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let len = buffer.len();
    if offset.checked_add(len as u64).is_none_or(|end| end > area.view_bytes() as u64) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let into = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: len };
    let from = libc::iovec { iov_base: area.pointer(offset).cast_mut().cast(), iov_len: len };
    // SAFETY: the kernel writes to `buffer`, which is ours. It reads addresses of this process: those that are not
    // mapped are an error.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &into, 1, &from, 1, 0) };
    match usize::try_from(copied) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(copied) if copied == len => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
