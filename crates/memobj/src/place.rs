//! Addresses that a caller chose: whether an object can have its home there, and who is there instead.

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memobj_linux::area::{self, Area};
use memobj_linux::region::LARGE;
use memobj_linux::uffd::Announce;

use crate::error::{MapError, Neighbour};

/// One past the highest address that a process has for mappings.
const END_OF_ADDRESSES: usize = (1 << 47) - 4096;

/// How often a place is tried at which somebody is when it is taken, and nobody when one looks.
const TRIES: u32 = 3;

/// A home that a caller chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Home {
    /// The view that is to be there.
    pub(crate) announce: Announce,
    /// The address of byte zero of the object.
    pub(crate) start: usize,
}

impl Home {
    /// The home of an object whose byte `offset` is to be at `address`.
    pub(crate) fn new(announce: Option<Announce>, address: usize, offset: u64) -> Result<Self, MapError> {
        let bad = |why| MapError::BadAddress { address, why };
        let Some(announce) = announce else {
            return Err(MapError::Unsupported {
                why: "a mapping that is only pinned and copied has no address",
            });
        };
        let start = usize::try_from(offset).ok().and_then(|offset| address.checked_sub(offset));
        let start = start.ok_or(bad("the bytes before the mapped range would be below address 0"))?;
        if !start.is_multiple_of(LARGE) {
            return Err(bad("byte 0 of the object would not be at a multiple of 2 MiB"));
        }
        if start == 0 {
            return Err(bad("byte 0 of the object would be at address 0"));
        }
        Ok(Self { announce, start })
    }

    /// Refuses an object that has its home elsewhere; says where its byte `offset` is. Where the view is missing, the caller
    /// finds that.
    pub(crate) fn check(self, object: &Arc<str>, area: &Area, offset: u64) -> Result<(), MapError> {
        let Some(start) = area.address(self.announce, 0).map(|start| start as usize) else { return Ok(()) };
        if start == self.start {
            return Ok(());
        }
        let (wanted, address) = (self.start + offset as usize, start + offset as usize);
        Err(MapError::MappedElsewhere { object: Arc::clone(object), wanted, address })
    }

    /// The addresses of an object that can grow to `capacity` bytes.
    fn range(self, capacity: u64) -> Result<Range<usize>, MapError> {
        let end = area::address_bytes(capacity).and_then(|len| self.start.checked_add(len));
        let end = end.filter(|end| *end <= END_OF_ADDRESSES);
        let why = "the object would end past the addresses that a process has";
        Ok(self.start..end.ok_or(MapError::BadAddress { address: self.start, why })?)
    }
}

/// What `make` makes of an object that can grow to `capacity` bytes, where its addresses are chosen by `home`, if it is.
pub(crate) fn at_home<T>(
    home: Option<Home>,
    capacity: u64,
    make: impl Fn(Option<usize>) -> io::Result<T>,
) -> Result<T, MapError> {
    const WHAT: &str = "reserve addresses for the object";
    let Some(home) = home else {
        return make(None).map_err(|source| MapError::System { what: WHAT, source });
    };
    let range = home.range(capacity)?;
    let mut tries = 1;
    loop {
        let source = match make(Some(home.start)) {
            Ok(made) => return Ok(made),
            Err(source) => source,
        };
        match source.kind() {
            io::ErrorKind::AlreadyExists => {}
            io::ErrorKind::PermissionDenied if home.start < lowest_address() => {
                let why = "addresses below vm.mmap_min_addr are not for this process";
                return Err(MapError::BadAddress { address: home.start, why });
            }
            _ => return Err(MapError::System { what: WHAT, source }),
        }
        if let Some(by) = neighbour(&range) {
            return Err(MapError::AddressTaken { range, by });
        }
        // Gone meanwhile.
        tries += 1;
        if tries > TRIES {
            return Err(MapError::System { what: WHAT, source });
        }
    }
}

/// The lowest address that an ordinary user can map.
fn lowest_address() -> usize {
    let text = fs::read_to_string("/proc/sys/vm/mmap_min_addr").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The first mapping of this process that has an address in `range`.
fn neighbour(range: &Range<usize>) -> Option<Neighbour> {
    let maps = fs::read("/proc/self/maps").ok()?;
    let overlaps = |by: &Neighbour| by.range.start < range.end && range.start < by.range.end;
    maps.split(|byte| *byte == b'\n')
        .filter_map(|line| Neighbour::parse(&String::from_utf8_lossy(line)))
        .find(overlaps)
}
