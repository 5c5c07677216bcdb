//! Transactions: changes of an object that become the object's together, or never.
//!
//! # What a transaction promises
//!
//! * *Its own.* What is written to a transaction is in copies of pages that only it sees. `read_at` of the transaction sees
//!   them; everybody else sees the object without them.
//! * *All or nothing.* [`Transaction::commit`] puts all of it into the object at one moment and then commits the object. So
//!   no commit, by whomever, and no crash shows a part of a transaction. [`Transaction::rollback`], a drop and the end of the
//!   process drop the copies, and nothing else.
//! * *A page belongs to one transaction.* From the first write to a page until the end of the transaction, all others
//!   wait: other transactions that write to it, and everybody who stores to it without a transaction. Loads do not
//!   wait, and see the page as it was before. So no change of a neighbour in the same 4 KiB is lost.
//! * *Several at once.* Transactions on different pages do not wait for each other, and their commits share a sync.
//!
//! # Why not one writer at a time
//!
//! A lock for one transaction would be simpler, but every commit waits for a device: the others would wait with it, though
//! they could share it. A roll-back would need the old bytes of all pages. And whoever keeps a transaction open would stop
//! everybody. With copies, a roll-back is a drop. The price is that a changed page is in memory twice until the commit.
//!
//! Waiting for a page of another transaction can close a circle: that is found at once and refused to the one who closes
//! it ([`AccessError::Deadlock`]).

mod changes;
mod copies;

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use memobj_core::address::{ByteRange, PageRange};
use memobj_linux::area::{self, PinSet};

use crate::error::{AccessError, ErrorKind, SupplyError, WriteError};
use crate::mapping::Mapping;
use crate::pagers::Logged;
use crate::pins::{NotedPin, note_pin};
use crate::write::{Claim, CopyRoom, Writes};
use copies::Copies;

/// Changes of one object that nobody else sees before they are committed together; from
/// [`MemoryObject::begin`](crate::MemoryObject::begin).
///
/// ```
/// use memobj::{Cache, CacheOptions, ObjectOptions, Writing};
///
/// # let path = std::env::temp_dir().join(format!("memobj-transaction-{}", std::process::id()));
/// # std::fs::write(&path, vec![0; 1 << 20])?;
/// let cache = Cache::new(CacheOptions::default())?;
/// let atomic = ObjectOptions::new().writing(Writing::Atomic);
/// let object = cache.open_file(&path, atomic)?;
///
/// let mut transfer = object.begin()?;
/// transfer.write_at(0, b"90")?;
/// transfer.pin_mut(600_000..600_002)?.copy_from_slice(b"10");
/// object.commit()?; // somebody else's commit has nothing of it
/// transfer.commit()?; // durable, both of them
///
/// let mut undone = object.begin()?;
/// undone.write_at(0, b"00")?;
/// undone.rollback();
/// let mut bytes = [0; 2];
/// object.begin()?.read_at(0, &mut bytes)?;
/// assert_eq!(bytes, *b"90");
/// # object.close()?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Memory
///
/// Each page that is written to takes 4 KiB for the copy besides its frame, which stays in memory. Both count against the
/// budget. All open transactions of a cache, with all pins for writing, may have copies of at most a quarter of the
/// budget; beyond, writes fail with [`AccessError::TransactionsExceedBudget`].
///
/// # What waits for a transaction
///
/// Pages of an open transaction are pinned for reading. So stores and pins for writing of these pages wait as long as the
/// object's `pin_timeout`, plain stores without a limit; so do a shorter length that cuts them off, a longer one if the
/// last page is among them, and a discard if they had changes that were not committed. A thread that does one of these
/// while it has the transaction open waits for itself.
pub struct Transaction {
    copies: Copies,
    /// One for each page.
    pins: Vec<(PinSet, NotedPin)>,
    rooms: Vec<CopyRoom>,
    claim: Claim,
    writes: Arc<Writes>,
    log: Arc<Logged>,
    // Dropped last: keeps the parts registered.
    mapping: Mapping,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("object", &self.mapping.frames().object.name)
            .field("pages", &self.copies.pages())
            .finish_non_exhaustive()
    }
}

/// Bytes of a transaction, to be read and changed. Nobody else sees them before the commit.
#[derive(Debug)]
pub struct TransactionBytes<'a> {
    bytes: &'a mut [u8],
}

impl Deref for TransactionBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl DerefMut for TransactionBytes<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

impl Transaction {
    /// `mapping` is of all of an object that `log` belongs to.
    pub(crate) fn new(mapping: Mapping, writes: Arc<Writes>, log: Arc<Logged>) -> Self {
        let claim = writes.begin();
        Self { copies: Copies::default(), pins: Vec::new(), rooms: Vec::new(), claim, writes, log, mapping }
    }

    /// Bytes of the object. Only [`MemoryObject::set_len`](crate::MemoryObject::set_len) changes it, outside of
    /// transactions.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length is the object's: it says nothing of the transaction"
    )]
    pub fn len(&self) -> u64 {
        self.mapping.frames().area.length()
    }

    /// Whether nothing was written to it.
    pub fn is_unchanged(&self) -> bool {
        self.copies.is_empty()
    }

    /// Copies the bytes from `offset` on into `buffer`: what the transaction wrote, and what the object has now
    /// elsewhere. Other transactions that commit meanwhile may show in a part of the bytes: who needs several pages as of
    /// one moment obtains them with [`pin_mut`](Self::pin_mut). Blocks until the bytes are there.
    ///
    /// Errors are those of [`Mapping::read_at`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), AccessError> {
        let range = self.inside(offset, buffer.len() as u64)?;
        let mut at = range.start;
        while at < range.end {
            let into = &mut buffer[(at - range.start) as usize..];
            let part = match self.copies.bytes_from(at) {
                Ok(bytes) => {
                    let part = bytes.len().min(into.len());
                    into[..part].copy_from_slice(&bytes[..part]);
                    part
                }
                Err(next) => {
                    let part = next.map_or(into.len(), |next| (into.len() as u64).min(next) as usize);
                    self.mapping.read_at(at, &mut into[..part])?;
                    part
                }
            };
            at += part as u64;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`, for nobody else to see before the commit.
    ///
    /// Pages that are written to for the first time are obtained, also those that are written whole. Blocks until they
    /// are there; while other transactions have them, or others pin them for writing; and while too much is Dirty.
    ///
    /// On error the transaction has the bytes that it had. `Conflict`: another transaction kept a page for longer than
    /// the object's `pin_timeout`. `Deadlock`: it waits for this one; roll one of them back. `TransactionsExceedBudget`:
    /// there is no room for the copies.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), AccessError> {
        let range = self.inside(offset, bytes.len() as u64)?;
        self.obtain(range)?;
        self.copies.write(range.start, bytes);
        Ok(())
    }

    /// The bytes of `range`, to be changed: as they are when the transaction obtains their pages, or as it left them. From
    /// then on nobody else changes them, so this is how to read what is written back in another form.
    ///
    /// The object is not pinned for writing: others load these pages, and commit. Blocks and fails as
    /// [`write_at`](Self::write_at) does.
    pub fn pin_mut(&mut self, range: Range<u64>) -> Result<TransactionBytes<'_>, AccessError> {
        let length = range.end.checked_sub(range.start).ok_or_else(|| self.out_of_range(range.clone()))?;
        let bytes = self.inside(range.start, length)?;
        if bytes.is_empty() {
            return Ok(TransactionBytes { bytes: &mut [] });
        }
        let pages = self.obtain(bytes)?;
        let start = (bytes.start - self.mapping.page_bytes() * pages.start) as usize;
        let writes = Arc::clone(&self.writes);
        let whole = self.copies.side_by_side(pages).map_err(|_| no_memory(&writes, bytes))?;
        Ok(TransactionBytes { bytes: &mut whole[start..][..bytes.len() as usize] })
    }

    /// Makes the changes the object's, all at one moment, and durable. One that has none does nothing.
    ///
    /// Everybody sees them from a moment before they are durable on, as everybody sees stores. Whatever was stored
    /// outside of transactions since the last commit is committed with them, and transactions that commit at once share a
    /// commit. Blocks while others pin a page of it, for the copies, and for one durable write.
    ///
    /// If the error's kind is `Timeout` and [`pinned_by`](WriteError::pinned_by) says who, or if memory of the object was
    /// dropped from outside, the transaction is rolled back. Otherwise the changes are the object's, all of them, and not
    /// known to be durable: what [`MemoryObject::commit`](crate::MemoryObject::commit) says of its errors holds. They are
    /// Dirty, and in the next commit that succeeds.
    pub fn commit(self) -> Result<(), WriteError> {
        let Self { mapping, log, writes, claim, rooms, pins, copies } = self;
        if !mapping.frames().owner.is_this_process() {
            return Err(writes.error_of_commit(&SupplyError::new(ErrorKind::Detached)));
        }
        if copies.is_empty() {
            return Ok(());
        }
        let mut page = vec![0; mapping.page_bytes() as usize];
        let (mut sets, mut pieces) = (Vec::new(), Vec::new());
        // Without the notes: who is in the way from here on is somebody else's pin, or another one of this thread.
        for (set, _) in pins {
            let bytes = writes.bytes_of_pages(set.pages());
            let now = &mut page[..bytes.len() as usize];
            area::copy_pinned(&set, bytes, now).map_err(|at| writes.error_of_trap(at))?;
            let Ok(copy) = copies.bytes_from(bytes.start) else { continue };
            let changed = changes::of(&copy[..now.len()], now);
            let before = pieces.len();
            pieces.extend(changed.map(|(at, changed)| (bytes.start + at as u64, changed)));
            if pieces.len() > before {
                sets.push(set);
            }
        }
        let installed = writes.install(sets, &pieces);
        // From here on the pages are anybody's: nobody waits for them while the device writes.
        drop(pieces);
        drop((claim, copies, rooms));
        installed?;
        writes.commit(&log)
    }

    /// Drops the changes, as a drop of the transaction does. Nothing else is undone: neither what others did, nor stores to
    /// the object outside of this transaction.
    pub fn rollback(self) {}

    fn out_of_range(&self, range: Range<u64>) -> AccessError {
        AccessError::OutOfRange { range, length: self.len() }
    }

    fn inside(&self, offset: u64, length: u64) -> Result<ByteRange, AccessError> {
        if !self.mapping.frames().owner.is_this_process() {
            return Err(AccessError::Detached);
        }
        match offset.checked_add(length) {
            Some(end) if end <= self.len() => Ok(ByteRange { start: offset, end }),
            _ => Err(self.out_of_range(offset..offset.saturating_add(length))),
        }
    }

    /// Makes all pages of `bytes` this transaction's, or none that is not; says which pages they are.
    fn obtain(&mut self, bytes: ByteRange) -> Result<PageRange, AccessError> {
        let parts = self.mapping.frames();
        let pages = parts.area.page_size().pages_of(bytes);
        let missing = self.copies.missing(pages);
        if missing.is_empty() {
            return Ok(pages);
        }
        let writes = &self.writes;
        let count: u64 = missing.iter().map(|run| run.len()).sum();
        writes.claim_pages(&self.claim, &missing)?;
        let allocator = writes.room_for_copies(count * self.mapping.page_bytes());
        let taken = allocator.and_then(|allocator| Ok((allocator, self.copy_pages(&missing)?)));
        if taken.is_err() {
            writes.give_pages_back(&self.claim, &missing);
        }
        let (allocator, (copies, pins)) = taken?;
        self.rooms.push(allocator);
        self.pins.extend(pins);
        for (run, bytes) in missing.iter().zip(copies) {
            self.copies.insert(run.start, bytes);
        }
        Ok(pages)
    }

    /// Pins `runs`, which nobody stores to from then on, and copies them.
    fn copy_pages(&self, runs: &[PageRange]) -> Result<Obtained, AccessError> {
        let parts = self.mapping.frames();
        let page_bytes = self.mapping.page_bytes();
        let pages = runs.iter().flat_map(|run| run.iter());
        let ranges: Vec<ByteRange> =
            pages.map(|page| self.writes.bytes_of_pages(PageRange::one(page))).collect();
        if let Some(cut_off) = ranges.iter().find(|range| range.is_empty()) {
            return Err(self.out_of_range(cut_off.start..cut_off.start + page_bytes));
        }
        let sets = parts.pins.pin_all(&ranges)?;
        let (mut copies, mut pinned) = (Vec::new(), sets.iter().zip(&ranges));
        for run in runs {
            let copy = Copies::zeros(*run);
            let mut copy = copy.map_err(|_| no_memory(&self.writes, self.writes.bytes_of_pages(*run)))?;
            for (into, (set, bytes)) in copy.chunks_mut(page_bytes as usize).zip(pinned.by_ref()) {
                let into = &mut into[..bytes.len() as usize];
                area::copy_pinned(set, *bytes, into).map_err(|at| parts.waits.trapped_at(at))?;
            }
            copies.push(copy);
        }
        let note = |set: PinSet| {
            let noted = note_pin(&parts.area, set.pages());
            (set, noted)
        };
        Ok((copies, sets.into_iter().map(note).collect()))
    }
}

/// Copies of runs of pages, and the pins of all these pages.
type Obtained = (Vec<Vec<u8>>, Vec<(PinSet, NotedPin)>);

fn no_memory(writes: &Writes, bytes: ByteRange) -> AccessError {
    writes.error_of_copy(bytes, &SupplyError::new(ErrorKind::NoSpace)).into()
}
