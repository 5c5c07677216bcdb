//! The parts of one mapped object, put together; and the cache, likewise.

mod guest;
mod request;
mod shared;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use memobj_core::address::PageRange;
use memobj_linux::area::{self, Area};
use memobj_linux::fork::MakerProcess;
use memobj_linux::slots::{AddressTable, SlotTable};
use memobj_linux::uffd::Announce;

use crate::pages::{Errors, Fill, ObjectCore, Pattern};
use crate::pins::{Pins, Waits};
use crate::write::{Unsynced, Writes};

pub(crate) use guest::GuestState;
pub use guest::{GuestEnd, GuestProt};
use request::Handoff;
pub(crate) use request::{Request, Requests, Unit as KeptUnit};
pub(crate) use shared::{CacheShared, system};

/// The parts of all mapped objects of the process, for the signal handler and the fault readers.
pub(crate) static OBJECTS: SlotTable<ObjectParts> = SlotTable::new();
/// From an address to a slot of [`OBJECTS`].
pub(crate) static ADDRESSES: AddressTable = AddressTable::new();

/// The parts of one mapped object. Doors and handles find it whole, and call the part that they need.
#[derive(Debug)]
pub(crate) struct ObjectParts {
    pub(crate) this: Weak<ObjectParts>,
    pub(crate) object: Arc<ObjectCore>,
    pub(crate) area: Arc<Area>,
    pub(crate) fill: Arc<Fill>,
    pub(crate) errors: Arc<Errors>,
    pub(crate) waits: Arc<Waits>,
    pub(crate) pins: Pins,
    /// Of an object that can be written.
    pub(crate) writes: Option<Arc<Writes>>,
    pub(crate) owner: Arc<MakerProcess>,
    /// Of one that is kept beyond the life of this process.
    pub(crate) kept: Option<KeptParts>,
}

/// Of an object that is kept.
#[derive(Debug)]
pub(crate) struct KeptParts {
    /// The process that keeps it: its guests' mappings end when it does.
    pub(crate) keeper: Arc<OwnedFd>,
    /// Whether its pages are those of a process before this one.
    pub(crate) is_inherited: bool,
    /// Pages that may trap in guests of a process before this one, and are not Failed.
    pub(crate) may_trap: Vec<PageRange>,
    /// Pages that are Failed since their changes were lost before.
    pub(crate) lost: Vec<PageRange>,
}

impl ObjectParts {
    pub(crate) fn new(
        cache: &CacheShared,
        object: &Arc<ObjectCore>,
        area: Arc<Area>,
        kept: Option<KeptParts>,
    ) -> io::Result<Arc<Self>> {
        let errors = Arc::new(Errors::new(&area, object, &cache.allocator)?);
        let pattern = Pattern::new(&area, object)?;
        let fill = Arc::new(Fill {
            number: Fill::next_number(),
            area: Arc::clone(&area),
            object: Arc::clone(object),
            errors: Arc::clone(&errors),
            allocator: Arc::clone(&cache.allocator),
            reporter: Arc::clone(&object.reporter),
            health: Arc::clone(&cache.health),
            buffers: Arc::clone(&cache.buffers),
            workers: Arc::clone(&cache.workers),
            closed: AtomicBool::new(false),
        });
        let unsynced = match (area.writes(), area.kept()) {
            (area::Writes::Yes, Some(tables)) => Some(Unsynced::kept(tables)?),
            (area::Writes::Yes, None) => Some(Unsynced::new(area.page_size().pages_for(area.capacity()))?),
            (area::Writes::No, _) => None,
        };
        Ok(Arc::new_cyclic(|this: &Weak<Self>| {
            let waits = Arc::new(Waits {
                area: Arc::clone(&area),
                fill: Arc::clone(&fill),
                owner: Arc::clone(&cache.owner),
                driver: Box::new(Handoff { requests: Arc::clone(&cache.requests), parts: Weak::clone(this) }),
            });
            Self {
                this: Weak::clone(this),
                object: Arc::clone(object),
                pins: Pins { waits: Arc::clone(&waits), pattern },
                writes: unsynced.map(|unsynced| {
                    let writes = Writes::new(&waits, unsynced);
                    writes.hold_back(kept.as_ref().is_some_and(|kept| kept.is_inherited));
                    Arc::new(writes)
                }),
                waits,
                area,
                fill,
                errors,
                owner: Arc::clone(&cache.owner),
                kept,
            }
        }))
    }

    /// The last mapping is gone: nobody may wait any longer.
    pub(crate) fn close(&self) {
        self.fill.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.fill.is_closed()
    }

    /// Offset in the object, and how faults are announced where `address` is.
    pub(crate) fn place_of(&self, address: usize) -> Option<(u64, Announce)> {
        self.area.views().find_map(|(start, len, announce)| {
            let offset = address.checked_sub(start).filter(|offset| *offset < len)?;
            Some((offset as u64, announce))
        })
    }
}
