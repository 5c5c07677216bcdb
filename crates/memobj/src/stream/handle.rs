//! Streams.

use std::fmt;
use std::ops::Range;

use super::ahead::Ahead;
use super::error::StreamError;
use super::guards::{Purpose, StreamGuards};
use super::mode::Mode;
use crate::error::{AccessError, MapError};
use crate::locks::{Guard, Rank, RankedMutex};
use crate::mapping::Mapping;
use crate::object::MemoryObject;
use crate::options::{Delivery, MapOptions, setters};

/// What an allocation for writing does past the end of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Growth {
    /// It extends the object.
    #[default]
    Extend,
    /// It is short, as one for reading is.
    Fixed,
}

/// For [`Stream::with_options`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StreamOptions {
    /// What an allocation for writing does past the end.
    pub growth: Growth,
    /// How many bytes [`Stream::alloc`] for reading asks for ahead; `None` is 4 MiB, zero is nothing. An eighth of the
    /// budget at most.
    pub read_ahead_bytes: Option<u64>,
    /// How other mappings of the object are touched: an object has one fault delivery for all its mappings, and
    /// a stream, which never faults, is one of them.
    pub delivery: Delivery,
}

setters!(StreamOptions {
    growth: Growth,
    read_ahead_bytes: impl Into<Option<u64>>,
    delivery: Delivery,
});

/// A position in an object, and allocations of its bytes. Several streams may be open on one object.
///
/// Allocations own what they need: they may outlive the stream, and be dropped in any order and on any thread. Threads
/// may share a stream; each [`alloc`](Self::alloc) gets bytes of its own. Dropped without [`close`](Self::close), what
/// was written stays with the object, which writes it back as [`MemoryObject::close`] says. In a child of fork every
/// allocation is refused as `Detached`.
pub struct Stream {
    object: MemoryObject,
    options: StreamOptions,
    /// Of the whole object as it was; made anew when the object has grown.
    mapping: RankedMutex<Mapping>,
    /// Bytes.
    position: RankedMutex<u64>,
    held: StreamGuards,
    ahead: Ahead,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("object", &self.object)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream at the start of `object`, with the default options.
    pub fn open(object: &MemoryObject) -> Result<Self, MapError> {
        Self::with_options(object, StreamOptions::default())
    }

    /// A stream at the start of `object`. Does not call the pager.
    pub fn with_options(object: &MemoryObject, options: StreamOptions) -> Result<Self, MapError> {
        let mapping = map(object, options.delivery)?;
        let ahead = Ahead::new(options.read_ahead_bytes, mapping.frames().fill.allocator.budget.limit());
        Ok(Self {
            object: object.clone(),
            options,
            mapping: RankedMutex::new(Rank::StreamMapping, mapping),
            position: RankedMutex::new(Rank::Stream, 0),
            held: StreamGuards::new(),
            ahead,
        })
    }

    /// Allocates `length` bytes at the position, which moves behind them.
    ///
    /// As [`alloc_at`](Self::alloc_at) otherwise. One for reading asks for what follows in the background. After an
    /// error the position is where it was, unless another thread has moved it meanwhile.
    pub fn alloc<M: Mode>(&self, _mode: M, length: u64) -> Result<M::Guard, StreamError> {
        let range = {
            let mut position = self.lock_position();
            let range = self.reach::<M>(*position, length);
            *position = range.end;
            range
        };
        let (start, planned) = (range.start, range.end);
        let allocated = self.allocate::<M>(range);
        let end = allocated.as_ref().map_or(start, |bytes| start + bytes.len() as u64);
        if end != planned {
            let mut position = self.lock_position();
            if *position == planned {
                *position = end;
            }
        }
        if M::PURPOSE == Purpose::Reading && end > start {
            self.ask_ahead(end);
        }
        allocated
    }

    /// Allocates `length` bytes at `offset`; the position stays.
    ///
    /// Fewer where the object ends, none behind its end. One for writing extends the object instead, with zeros up to
    /// its start ([`Growth::Extend`]); if it fails afterwards, the object stays extended.
    ///
    /// Blocks until the pages are there. Guards of other streams, and other pins, are waited for where they exclude
    /// this one: as long as the object's time-out says, then it is `Access(Pinned)`. Guards of this stream are not
    /// waited for: `Held`. Guards for writing have whole pages, so two of them that are to live at once keep to
    /// multiples of [`page_bytes`](Self::page_bytes). What can be allocated at once is what can be pinned: seven
    /// eighths of the budget, a quarter for writing.
    pub fn alloc_at<M: Mode>(&self, _mode: M, offset: u64, length: u64) -> Result<M::Guard, StreamError> {
        self.allocate::<M>(self.reach::<M>(offset, length))
    }

    /// Where the next [`alloc`](Self::alloc) starts, in bytes.
    pub fn position(&self) -> u64 {
        *self.lock_position()
    }

    /// Moves the position to `offset`, which may lie behind the end.
    pub fn seek(&self, offset: u64) {
        *self.lock_position() = offset;
    }

    /// The object.
    pub fn object(&self) -> &MemoryObject {
        &self.object
    }

    /// The size of the object's pages in bytes.
    pub fn page_bytes(&self) -> u64 {
        self.lock_mapping().page_bytes()
    }

    /// Writes back all changes of the object, makes them durable, and tells how that went, as
    /// [`MemoryObject::close`] does; it commits an object of [`Writing::Atomic`](crate::Writing::Atomic).
    ///
    /// `Held` while a guard for writing of this stream lives. The stream can be used, and closed, again: after
    /// an error nothing is dropped, and the next call tries again.
    pub fn close(&self) -> Result<(), StreamError> {
        match self.held.any_writer() {
            Some(held) => Err(StreamError::Held { wanted: 0..self.object.len(), held }),
            None => Ok(self.object.close()?),
        }
    }

    /// The bytes that an allocation is to have.
    fn reach<M: Mode>(&self, offset: u64, length: u64) -> Range<u64> {
        let end = offset.saturating_add(length);
        match self.grows::<M>() {
            true => offset..end,
            false => offset..end.min(self.object.len()).max(offset),
        }
    }

    fn grows<M: Mode>(&self) -> bool {
        M::PURPOSE == Purpose::Writing && self.options.growth == Growth::Extend
    }

    fn allocate<M: Mode>(&self, mut range: Range<u64>) -> Result<M::Guard, StreamError> {
        if M::PURPOSE == Purpose::Writing && !self.object.is_writable() {
            return Err(AccessError::ReadOnly.into());
        }
        if range.is_empty() {
            return Ok(M::guard(range.start, None));
        }
        let length = self.object.len();
        let grows = self.grows::<M>() && range.end > length;
        let page_bytes = self.page_bytes();
        // Growing needs the last page for itself, to clear what is behind the old end.
        let tail = if grows { length / page_bytes * page_bytes..length } else { 0..0 };
        let place = self.held.take(range.clone(), tail, M::PURPOSE, page_bytes)?;
        if grows {
            self.refuse_too_much(&range)?;
            self.object.grow_to(range.end)?;
        }
        let mapping = self.mapping_to(range.end)?;
        loop {
            match M::pin(&mapping, range.clone()) {
                Ok(pin) => return Ok(M::guard(range.start, Some((pin, place)))),
                // Somebody has cut the object off meanwhile.
                Err(AccessError::OutOfRange { length, .. }) if length < range.end => {
                    range.end = length.max(range.start);
                    if range.is_empty() {
                        return Ok(M::guard(range.start, None));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What can never be pinned for writing must not extend the object first.
    fn refuse_too_much(&self, range: &Range<u64>) -> Result<(), StreamError> {
        let (wanted_bytes, mapping) = (range.end - range.start, self.lock_mapping());
        let limit_bytes = mapping.frames().fill.allocator.mut_pins.limit();
        if wanted_bytes > limit_bytes {
            return Err(AccessError::PinsExceedBudget { wanted_bytes, limit_bytes }.into());
        }
        Ok(())
    }

    /// A mapping that has the object's bytes up to `end`, as far as there are.
    fn mapping_to(&self, end: u64) -> Result<Mapping, MapError> {
        let mut mapping = self.lock_mapping();
        if mapping.len() < end {
            *mapping = map(&self.object, self.options.delivery)?;
        }
        Ok(mapping.clone())
    }

    /// Asks for what follows `position`. What fails is told to whoever allocates it.
    fn ask_ahead(&self, position: u64) {
        let mapping = self.lock_mapping();
        let next = self.ahead.next(position, mapping.len().min(self.object.len()));
        if !next.is_empty() {
            let _ = mapping.prefetch(&[next]);
        }
    }

    fn lock_position(&self) -> Guard<'_, u64> {
        self.position.lock()
    }

    fn lock_mapping(&self) -> Guard<'_, Mapping> {
        self.mapping.lock()
    }
}

/// Maps all of `object`, however long it is at the moment.
fn map(object: &MemoryObject, delivery: Delivery) -> Result<Mapping, MapError> {
    loop {
        let length = object.len();
        match object.map(0..length, MapOptions::new().delivery(delivery)) {
            // Cut off since: shorter by now.
            Err(MapError::OutOfRange { length: shorter, .. }) if shorter < length => {}
            mapped => return mapped,
        }
    }
}
