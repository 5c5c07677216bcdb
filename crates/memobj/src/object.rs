//! Memory objects and their placement in this process.

use std::ops::{Range, RangeBounds};
use std::sync::{Arc, Weak};

use memobj_linux::uffd::Announce;

use crate::engine::CacheInner;
use crate::error::{ErrorKind, MapError, SupplyError, WriteError, WriteStep};
use crate::handles::{Keeping, ObjectHandle, PartsHandle};
use crate::locks::{self, Rank, RankedMutex};
use crate::mapping::Mapping;
use crate::metrics::ObjectMetrics;
use crate::options::{Delivery, FrameVisibility, MapOptions, ObjectOptions, Sharing, Writing};
use crate::pagers::{Blocking, Description, Logged, Pager, SyncRequest};
use crate::pages::{LengthChange, LengthError, ObjectCore};
use crate::parts::CacheShared;
use crate::place::Home;
use crate::private::Private;
use crate::ranges::bytes_in;
use crate::transaction::Transaction;
use crate::write::{CUT_OFF_UNTOLD, NOT_CUT_OFF, Obstacle, Writes};

/// What can be mapped: so many bytes, with a name and a pager that has them. Cheap to clone.
///
/// An object exists whether it is mapped or not. [`map`](Self::map) gives access to its bytes.
#[derive(Clone)]
pub struct MemoryObject {
    handle: Arc<ObjectHandle>,
}

impl std::fmt::Debug for MemoryObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryObject")
            .field("name", &self.name())
            .field("length", &self.len())
            .finish_non_exhaustive()
    }
}

impl MemoryObject {
    pub(crate) fn new(
        cache: Arc<CacheInner>,
        name: &str,
        pager: Box<dyn Pager>,
        description: Description,
        options: ObjectOptions,
        log: Option<Arc<Logged>>,
    ) -> Self {
        let core = new_core(&cache.shared, name, (pager, description), options, log);
        Self::of(cache, core)
    }

    fn of(cache: Arc<CacheInner>, core: ObjectCore) -> Self {
        let core = Arc::new(core);
        let mapped = RankedMutex::new(Rank::Mapped, Weak::new());
        let handle = ObjectHandle { core, cache, mapped, kept: RankedMutex::new(Rank::Kept, None) };
        Self { handle: Arc::new(handle) }
    }

    /// The name that errors carry.
    pub fn name(&self) -> &str {
        &self.handle.core.name
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.handle.core.length()
    }

    /// The version that its pager [named](crate::pagers::Description::version), if it did.
    pub fn version(&self) -> Option<&str> {
        self.handle.core.description.version_name()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Maps the bytes of `range`.
    ///
    /// All mappings of an object in this process share its frames, and with [`FrameVisibility::Local`] its addresses too.
    /// Frames stay while any mapping exists, and are returned with the last; those of an object that can be written
    /// stay until its last handle of any kind goes. Does not call the pager. A private mapping ([`Sharing::Private`])
    /// has frames and addresses of its own, also of objects that are read only.
    ///
    /// # Errors
    ///
    /// `OutOfRange`; `OtherDelivery` if the object has frames of this process alone and is mapped with the other fault
    /// delivery; `NoUserfaultfd` if that delivery needs one; `AddressTaken`, `BadAddress` and `MappedElsewhere` of
    /// [`MapOptions::at`]; `TooManyObjects`; `System`; `Detached` in a child of fork.
    pub fn map(&self, range: impl RangeBounds<u64>, options: MapOptions) -> Result<Mapping, MapError> {
        self.map_range(bytes_in(range, || self.len()), options)
    }

    /// Maps all bytes of the object, as [`map`](Self::map) does. The mapping follows the object: it is as long as the object
    /// is at each moment, also after [`set_len`](Self::set_len). A private one is as long as the object was.
    pub fn map_all(&self, options: MapOptions) -> Result<Mapping, MapError> {
        if options.sharing == Sharing::Private {
            return self.map(.., options);
        }
        // Empty, so that it fits whatever the length is by now.
        self.map_range(0..0, options).map(Mapping::of_all)
    }

    fn map_range(&self, range: Range<u64>, options: MapOptions) -> Result<Mapping, MapError> {
        let handle = &self.handle;
        if !handle.cache.shared.owner.is_this_process() {
            return Err(MapError::Detached);
        }
        if options.sharing == Sharing::Private {
            let shared = options.sharing(Sharing::Shared);
            return self.private_copy().map_range(range, shared);
        }
        if range.start > range.end || range.end > self.len() {
            return Err(MapError::OutOfRange { range, length: self.len() });
        }
        let announce = self.announce(options.delivery);
        let home = options.at.map(|address| Home::new(announce, address, range.start)).transpose()?;
        let parts = self.frames_to_pin(announce, home)?;
        if let Some(home) = home {
            home.check(&handle.core.name, &parts.parts.area, range.start)?;
        }
        let fits = announce.is_none_or(|announce| parts.parts.area.use_view(announce));
        if !fits {
            return Err(MapError::OtherDelivery { object: Arc::clone(&handle.core.name) });
        }
        Ok(Mapping::new(parts, Arc::clone(handle), range, announce))
    }

    /// The parts, for who pins pages of it.
    fn frames_to_pin(
        &self,
        announce: Option<Announce>,
        home: Option<Home>,
    ) -> Result<Arc<PartsHandle>, MapError> {
        let handle = &self.handle;
        // Pins of shared frames are in the view whose faults are queued. Who borrows frames has no pins.
        if announce == Some(Announce::Queued) || handle.core.options.visibility == FrameVisibility::Shared {
            let refused =
                |source| MapError::System { what: "start the threads that read fault events", source };
            handle.cache.lanes.start(&handle.cache.shared).map_err(refused)?;
        }
        self.frames_at(announce, home)
    }

    /// The parts, which is made if nothing of the object is mapped.
    pub(crate) fn frames(&self, announce: Option<Announce>) -> Result<Arc<PartsHandle>, MapError> {
        self.frames_at(announce, None)
    }

    /// As above. A new one has its addresses at `home`.
    fn frames_at(
        &self,
        announce: Option<Announce>,
        home: Option<Home>,
    ) -> Result<Arc<PartsHandle>, MapError> {
        let handle = &self.handle;
        let mut mapped = handle.mapped.lock();
        if let Some(parts) = mapped.upgrade() {
            return Ok(parts);
        }
        let parts = Arc::new(PartsHandle::new(&handle.cache, &handle.core, announce, home, None)?);
        *mapped = Arc::downgrade(&parts);
        if handle.core.is_writable() {
            *handle.kept.lock() = Some(Arc::clone(&parts));
        }
        Ok(parts)
    }

    /// The parts of an object that is kept as `keeping` says, and is not mapped yet: `None` if it is.
    pub(crate) fn frames_kept(&self, keeping: Keeping) -> Result<Option<Arc<PartsHandle>>, MapError> {
        let handle = &self.handle;
        let refused = |source| MapError::System { what: "start the threads that read fault events", source };
        handle.cache.lanes.start(&handle.cache.shared).map_err(refused)?;
        let mut mapped = handle.mapped.lock();
        if mapped.upgrade().is_some() {
            return Ok(None);
        }
        let announce = Some(Announce::Queued);
        let parts = PartsHandle::new(&handle.cache, &handle.core, announce, None, Some(keeping))?;
        let parts = Arc::new(parts);
        *mapped = Arc::downgrade(&parts);
        *handle.kept.lock() = Some(Arc::clone(&parts));
        Ok(Some(parts))
    }

    /// What is kept alive with a mapping or a guest.
    pub(crate) fn handle(&self) -> &Arc<ObjectHandle> {
        &self.handle
    }

    /// An object of its own for one private mapping: it begins as this one, and keeps its changes to itself.
    fn private_copy(&self) -> Self {
        let base = &self.handle;
        let options = base
            .core
            .options
            .clone()
            .writing(Writing::InPlace)
            .visibility(FrameVisibility::Local)
            .max_len(base.core.length());
        let pager = Box::new(Blocking(Private::new(Arc::clone(base))));
        let description = pager.describe();
        let (shared, name) = (&base.cache.shared, &base.core.name);
        let mut core = new_core(shared, name, (pager, description), options, None);
        core.keeps_changes = false;
        Self::of(Arc::clone(&base.cache), core)
    }

    /// `None` is not at all: the mapping cannot be touched.
    fn announce(&self, delivery: Delivery) -> Option<Announce> {
        match delivery {
            Delivery::ReaderThread => Some(Announce::Queued),
            Delivery::InThread => Some(Announce::Signalled),
            Delivery::PinOnly => None,
            Delivery::Auto => match &self.handle.cache.shared.machine.queued {
                Ok(uffd) if !uffd.features().kernel_faults => Some(Announce::Signalled),
                Ok(_) => Some(Announce::Queued),
                Err(_) => None,
            },
        }
    }

    /// The changes of an object that can be written and was mapped.
    pub(crate) fn writes(&self) -> Option<Arc<Writes>> {
        self.handle.kept.lock().as_ref().and_then(|kept| kept.parts.writes.clone())
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        self.handle.core.is_writable()
    }

    /// What has been done for the object so far.
    pub fn metrics(&self) -> ObjectMetrics {
        let core = &self.handle.core;
        core.reporter.counters.get(core.log.as_ref().map(|log| log.checkpoints.get()).unwrap_or_default())
    }

    /// What the pager counts of itself, by name: see [`Pager::counters`](crate::pagers::Pager::counters).
    pub fn pager_counters(&self) -> Vec<(&'static str, u64)> {
        self.handle.core.pager.counters()
    }

    /// Writes back all changes and makes them durable, as [`Mapping::sync`] of everything does.
    pub fn sync(&self) -> Result<(), WriteError> {
        self.refuse_in_child(WriteStep::Sync)?;
        let core = &self.handle.core;
        core.timed(&core.reporter.counters.syncs, || self.sync_all())
    }

    fn sync_all(&self) -> Result<(), WriteError> {
        match self.writes() {
            Some(writes) => writes.sync_all(),
            None if self.handle.core.log.is_some() => self.commit_unmapped(),
            // It was never mapped, but its length may have changed.
            None if self.is_writable() => {
                self.settle_length_unmapped(WriteStep::Sync)?;
                let sync = |core: &ObjectCore| core.ask_now(|pager, to| pager.sync(SyncRequest::new(to)));
                let answer = locks::outside(|| sync(&self.handle.core));
                answer.map_err(|error| self.handle.core.write_error(WriteStep::Sync, 0..self.len(), &error))
            }
            None => Ok(()),
        }
    }

    /// Makes all changes since the last commit durable together: after a crash of the process, of the system or of the
    /// power, all of them are there or none is. Objects of [`Writing::Atomic`](crate::Writing::Atomic) only.
    ///
    /// What each thread stored before it called is in the commit; of threads that store meanwhile, what they had
    /// stored up to one moment. Calls at once share a commit. Blocks for one durable write; stores go on after
    /// their pages were copied. Nothing of the object may be pinned for writing: a commit waits for such pins, and
    /// fails with `Timeout`.
    ///
    /// Room for all of it is made sure of first: `NoSpace` means that nothing has happened. After an `Io` error it is
    /// open whether the commit will be there after a crash; the changes are Dirty still, and the next commit either
    /// fails too, or has them. The format is in `docs/commit-log.md`.
    pub fn commit(&self) -> Result<(), WriteError> {
        self.refuse_in_child(WriteStep::Commit)?;
        let core = &self.handle.core;
        let Some(log) = &core.log else {
            let error = SupplyError::new(ErrorKind::Denied);
            let error = core.write_error(WriteStep::Commit, 0..self.len(), &error);
            return Err(error.because("the object is not open for commits (Writing::Atomic)"));
        };
        core.timed(&core.reporter.counters.commits, || match self.writes() {
            Some(writes) => writes.commit(log),
            None => self.commit_unmapped(),
        })
    }

    /// Begins a transaction: changes that nobody else sees before they are committed together, or that are rolled back.
    /// Objects of [`Writing::Atomic`](crate::Writing::Atomic) only; others are `Denied`.
    ///
    /// Any number can be open at once. The object need not be mapped. Blocks for nothing.
    pub fn begin(&self) -> Result<Transaction, WriteError> {
        self.refuse_in_child(WriteStep::Commit)?;
        let core = &self.handle.core;
        let refused = |error: &SupplyError| core.write_error(WriteStep::Commit, 0..self.len(), error);
        let Some(log) = &core.log else {
            let denied = refused(&SupplyError::new(ErrorKind::Denied));
            return Err(denied.because("the object is not open for transactions (Writing::Atomic)"));
        };
        let parts = self.frames_to_pin(self.announce(Delivery::Auto), None);
        let parts = parts.map_err(|error| refused(&SupplyError::because(ErrorKind::Io, error)))?;
        let Some(writes) = parts.parts.writes.clone() else {
            return Err(refused(&SupplyError::new(ErrorKind::Denied)));
        };
        let all = 0..parts.parts.area.capacity();
        // Without addresses: loads of a transaction are copies.
        let mapping = Mapping::new(parts, Arc::clone(&self.handle), all, None);
        Ok(Transaction::new(mapping, writes, Arc::clone(log)))
    }

    /// Without pages in memory there can be a new length at most.
    fn commit_unmapped(&self) -> Result<(), WriteError> {
        let core = &self.handle.core;
        let Some(log) = core.log.as_ref().filter(|log| log.has_uncommitted()) else { return Ok(()) };
        let committed = log.begin_commit(&[], |_, _| {}).and_then(|commit| commit.finish());
        committed.map_err(|error| core.write_error(WriteStep::Commit, 0..self.len(), &error))
    }

    /// Writes back all changes, makes them durable, and tells how that went. Call it before you drop the last handle. If
    /// you store to the object afterwards, call it again.
    ///
    /// An object of [`Writing::InPlace`](crate::Writing::InPlace) that is dropped with changes still has them written
    /// back, but not made durable, and there is nobody left to tell of an error, other than
    /// [`Cache::events`](crate::Cache::events). One of [`Writing::Atomic`](crate::Writing::Atomic) is committed by
    /// this, and copied in place: after `Ok` the file has everything that was committed before the call, whatever
    /// reads it. That waits for a copy in place that is running already, and for the durable writes of its own. If the
    /// copy fails, that is the error; what is committed is then still in the log. Dropped without, such an object is
    /// left as of its last commit.
    pub fn close(&self) -> Result<(), WriteError> {
        self.sync()?;
        let core = &self.handle.core;
        let Some(log) = &core.log else { return Ok(()) };
        log.put_in_place().map_err(|error| core.write_error(WriteStep::WriteBack, 0..self.len(), &error))
    }

    /// Cuts the object off at `length` bytes, or extends it with zeros. Blocks while pages behind the new end are
    /// pinned or being written, as long as the object's time-out says.
    ///
    /// The length is the pager's at once, and durable after the next sync; of an object of
    /// [`Writing::Atomic`](crate::Writing::Atomic) it is the file's after the next commit. While mapped, an object grows
    /// to at most [`ObjectOptions::max_len`]; beyond, it is `NoSpace`. Touching what is cut off traps.
    /// Mappings stay as long as they are: what they have behind the end of the object is there again once the
    /// object has grown again. On error nothing has changed.
    pub fn set_len(&self, length: u64) -> Result<(), WriteError> {
        self.change_len(length, 0..u64::MAX)
    }

    /// Extends the object to `length` bytes with zeros, unless it is that long: of several who do so at once none cuts
    /// off what another has added.
    pub(crate) fn grow_to(&self, length: u64) -> Result<(), WriteError> {
        self.change_len(length, 0..length)
    }

    /// Changes the length if it is in `from`.
    fn change_len(&self, length: u64, from: Range<u64>) -> Result<(), WriteError> {
        self.refuse_in_child(WriteStep::SetLength)?;
        let core = &self.handle.core;
        let refused = |error: &SupplyError| core.write_error(WriteStep::SetLength, 0..length, error);
        if !core.is_writable() {
            return Err(refused(&SupplyError::new(ErrorKind::Denied)).because("the object is read only"));
        }
        let mut until = None;
        loop {
            // Nobody maps it meanwhile.
            let mapped = self.handle.mapped.lock();
            if !from.contains(&core.length()) {
                return Ok(());
            }
            let Some(writes) = self.writes() else {
                return self.set_length_unmapped(length);
            };
            match writes.set_length(length) {
                Ok(()) => return Ok(()),
                Err(Obstacle::Refused(error)) => return Err(error),
                // Whoever pins a page may need these locks to go on.
                Err(Obstacle::Held(page)) => {
                    drop(mapped);
                    let until = *until.get_or_insert_with(|| core.pin_deadline());
                    writes.wait_to_set_length(page, length, until)?;
                }
            }
        }
    }

    /// Changes the length of an object that was never mapped, on the calling thread.
    fn set_length_unmapped(&self, length: u64) -> Result<(), WriteError> {
        let core = &self.handle.core;
        let refused = |error: &SupplyError| core.write_error(WriteStep::SetLength, 0..length, error);
        let cuts_off = length < core.length();
        if !cuts_off {
            self.settle_length_unmapped(WriteStep::SetLength)?;
        }
        match self.tell_length_unmapped(length) {
            Ok(()) => core.pager_length.is_known(),
            Err(LengthError::Unknown(error)) if cuts_off => {
                core.pager_length.may_be_longer();
                core.set_length(length);
                return Err(refused(&error).because(CUT_OFF_UNTOLD));
            }
            Err(LengthError::Unchanged(error) | LengthError::Unknown(error)) => return Err(refused(&error)),
        }
        core.set_length(length);
        Ok(())
    }

    fn tell_length_unmapped(&self, length: u64) -> Result<(), LengthError> {
        let core = &self.handle.core;
        let ask = |change: LengthChange| core.ask_now(|pager, to| change.make(pager, length, to));
        locks::outside(|| core.change_pager_length(ask))
    }

    /// Tells a pager that may be longer than the object where it ends.
    fn settle_length_unmapped(&self, step: WriteStep) -> Result<(), WriteError> {
        let core = &self.handle.core;
        if !core.pager_length.has_to_be_told() {
            return Ok(());
        }
        match self.tell_length_unmapped(core.length()) {
            Ok(()) => {
                core.pager_length.is_known();
                Ok(())
            }
            Err(LengthError::Unchanged(error) | LengthError::Unknown(error)) => {
                Err(core.write_error(step, 0..core.length(), &error).because(NOT_CUT_OFF))
            }
        }
    }

    fn refuse_in_child(&self, step: WriteStep) -> Result<(), WriteError> {
        if self.handle.cache.shared.owner.is_this_process() {
            return Ok(());
        }
        let detached = SupplyError::new(ErrorKind::Detached);
        Err(self.handle.core.write_error(step, 0..self.len(), &detached))
    }
}

fn new_core(
    cache: &CacheShared,
    name: &str,
    pager: (Box<dyn Pager>, Description),
    options: ObjectOptions,
    log: Option<Arc<Logged>>,
) -> ObjectCore {
    ObjectCore::new(&cache.options.clock, &cache.disposal, &cache.reporter, name, pager, options, log)
}
