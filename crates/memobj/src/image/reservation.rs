//! Addresses kept for programs of fixed addresses.

use std::io;

use memobj_core::address::VirtAddr;
use memobj_vm::image::AddressRange;

use crate::image::MapImageError;

/// A range of addresses that nobody may access, kept for images of fixed addresses (`ET_EXEC`).
///
/// Such an image takes free addresses, and those that a reservation holds, each segment inside one of them; when the
/// image is dropped they are reserved again. Once the reservation is dropped, and with it the images in it, the range
/// is free. On Solaris a mapping of `/dev/null` is a reservation; a mapping that nobody may access is not, here either.
#[derive(Debug)]
pub struct Reservation(memobj_linux::image::Reservation);

impl Reservation {
    /// Reserves `length_bytes` from `start` on, whole pages, if nothing is mapped there.
    ///
    /// # Errors
    ///
    /// `InUse` if something is; `NoRoom` outside the address space; `Map` if the pages are not whole.
    pub fn new(start: VirtAddr, length_bytes: u64) -> Result<Self, MapImageError> {
        let end = start.0.checked_add(length_bytes).ok_or(MapImageError::NoRoom { length_bytes })?;
        let range = AddressRange { start: start.0, end };
        let reserved = memobj_linux::image::Reservation::new(range.start as usize..range.end as usize);
        reserved.map(Self).map_err(|source: io::Error| MapImageError::of_range(range, source))
    }

    /// The addresses.
    pub fn range(&self) -> AddressRange {
        let range = self.0.range();
        AddressRange { start: range.start as u64, end: range.end as u64 }
    }
}
