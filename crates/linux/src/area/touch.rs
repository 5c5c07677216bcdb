//! Copies by plain loads, beside pins for writing.

use memobj_core::address::PageIndex;

use super::{Area, Writes};
use crate::signal;
use crate::uffd::Announce;

/// Why a copy by plain loads has ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchRefused {
    /// The load of this byte of the object trapped.
    Trapped(u64),
    /// The page of this byte is pinned for writing.
    PinnedMut(u64),
}

/// Copies `[offset, offset + buffer.len())` of `area` by plain loads that fault like anybody's, in the view whose faults
/// are announced so. A trap ends the copy, and so does a page that is pinned for writing; bytes before it are copied.
pub fn copy_by_touch(
    area: &Area,
    announce: Announce,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), TouchRefused> {
    assert!(offset.checked_add(buffer.len() as u64).is_some_and(|end| end <= area.capacity()));
    if area.writes() == Writes::No {
        return touch(area, announce, offset, buffer);
    }
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let page = PageIndex(at >> area.page_size().shift());
        let end = (page.0 + 1) << area.page_size().shift();
        let part = ((end - at) as usize).min(buffer.len() - done);
        let touching = area.touching(page).ok_or(TouchRefused::PinnedMut(at))?;
        touch(area, announce, at, &mut buffer[done..done + part])?;
        drop(touching);
        done += part;
    }
    Ok(())
}

fn touch(area: &Area, announce: Announce, offset: u64, buffer: &mut [u8]) -> Result<(), TouchRefused> {
    let source = area.address(announce, offset).ok_or(TouchRefused::Trapped(offset))?;
    // SAFETY: the range lies in a view of this area, which is mapped as long as it is. No mutable reference shows it: the
    // pages of an area that is read only have none, and those of others are not pinned for writing before the caller's
    // touch has ended.
    let copied = unsafe { signal::copy_trapping(buffer, source) };
    if copied == buffer.len() { Ok(()) } else { Err(TouchRefused::Trapped(offset + copied as u64)) }
}
