//! The pager that looks on the disk first.

use std::fmt;
use std::sync::Arc;

use memobj::pagers::{
    Description, LengthRequest, Pager, PagerReports, SupplyRequest, SyncRequest, WriteRequest,
};

use crate::counters::named;
use crate::format;
use crate::identity::{Blocks, LEAST_BLOCK};
use crate::object::Object;
use crate::shared::Shared;

/// The most requests at once. Inner pagers that block name no limit.
const MOST_DEPTH: usize = 64;

/// Whether blocks of an object are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Keeping {
    /// Blocks are looked for on the disk, and kept there.
    Kept,
    /// The inner pager names no version: blocks of two versions could not be told apart. Nothing is kept.
    NoVersion,
    /// A block is more than half of the budget. Nothing is kept.
    BlockTooLarge,
    /// The object was written to, or its length was changed, through this pager. Its bytes are of no version until it is
    /// opened again; from the first change on nothing is kept, and nothing is looked for.
    Changed,
}

/// A pager with blocks on disk; made by [`DiskCache::pager`](crate::DiskCache::pager).
///
/// It describes itself as the inner pager does, with blocks of at least 64 KiB and a depth of at most 64. Whether anything
/// is kept says [`keeping`](Self::keeping). If nothing is, everything passes through, the description included.
///
/// No call blocks, except that the first change removes the object's blocks, by one rename in the directory.
pub struct DiskCached<P: Pager + 'static> {
    description: Description,
    way: Way<P>,
}

enum Way<P> {
    Cached(Arc<Object<P>>),
    Through(P, Keeping),
}

impl<P: Pager + 'static> fmt::Debug for DiskCached<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskCached")
            .field("description", &self.description)
            .field("keeping", &self.keeping())
            .finish_non_exhaustive()
    }
}

impl<P: Pager + 'static> DiskCached<P> {
    pub(crate) fn new(inner: P, key: &str, shared: Arc<Shared>) -> Self {
        let description = inner.describe();
        let block_bytes = description.block().max(LEAST_BLOCK);
        // A version without a letter is none.
        let Some(version) = description.version_name().filter(|version| !version.is_empty()) else {
            return Self { description, way: Way::Through(inner, Keeping::NoVersion) };
        };
        if format::charge(format::file_bytes(block_bytes)) > shared.store.budget / 2 {
            return Self { description, way: Way::Through(inner, Keeping::BlockTooLarge) };
        }
        let blocks = Blocks::new(key, version, description.length(), block_bytes);
        // Made anew: what the engine could read without a request would not be kept.
        let own = Description::new(description.length())
            .version(version)
            .block_bytes(block_bytes)
            .depth(description.depth_limit().min(MOST_DEPTH));
        let own = if description.is_writable() { own.writable() } else { own };
        let own = if description.is_immutable() { own.immutable() } else { own };
        Self { description: own, way: Way::Cached(Object::new(inner, blocks, shared)) }
    }

    /// Whether blocks are kept, and if not, why.
    pub fn keeping(&self) -> Keeping {
        match &self.way {
            Way::Cached(object) if object.core.is_changed() => Keeping::Changed,
            Way::Cached(_) => Keeping::Kept,
            Way::Through(_, keeping) => *keeping,
        }
    }

    /// The pager that is asked for what is not on the disk.
    pub fn inner(&self) -> &P {
        match &self.way {
            Way::Cached(object) => &object.inner,
            Way::Through(inner, _) => inner,
        }
    }

    /// Called before the inner pager hears of a change.
    fn change(&self) {
        if let Way::Cached(object) = &self.way {
            object.core.change();
        }
    }
}

impl<P: Pager + 'static> Pager for DiskCached<P> {
    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn attach(&self, reports: PagerReports) {
        if let Way::Cached(object) = &self.way {
            // Called once.
            let _ = object.core.reports.set(reports.clone());
        }
        self.inner().attach(reports);
    }

    /// Those of the inner pager, and `disk_cache_hits`, `disk_cache_misses` (blocks), `disk_cache_read_bytes`,
    /// `disk_cache_written_bytes`, `disk_cache_damaged` (blocks), `disk_cache_evicted_bytes` (by this handle, of all objects) and
    /// `disk_cache_failures` (of the disk: each is a miss, or a block that is not kept).
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.inner().counters();
        if let Way::Cached(object) = &self.way {
            counters.extend(named(&object.core.counters, &object.core.shared.counters));
        }
        counters
    }

    fn supply(&self, request: SupplyRequest) {
        match &self.way {
            Way::Cached(object) => object.supply(request),
            Way::Through(inner, _) => inner.supply(request),
        }
    }

    fn write_back(&self, request: WriteRequest) {
        self.change();
        self.inner().write_back(request);
    }

    fn sync(&self, request: SyncRequest) {
        self.inner().sync(request);
    }

    fn set_length(&self, request: LengthRequest) {
        self.change();
        self.inner().set_length(request);
    }

    fn detach(&self) {
        match &self.way {
            Way::Cached(object) => object.detach(),
            Way::Through(inner, _) => inner.detach(),
        }
    }
}
