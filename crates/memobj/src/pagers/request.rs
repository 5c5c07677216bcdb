//! Requests: what a pager is asked, and how it answers.
//!
//! ```text
//!   engine                         pager                                   whoever made the request
//!     supply(request) -----------> keeps it, fills its buffer in pieces
//!                                  request.done() | .fail(error) | drop -> hears it once, on the answering thread
//!     nobody waits any more -----> request.is_wanted() is false; its hook is called
//! ```
//!
//! A request is owned: it can be sent to any thread and answered whenever. Dropping it answers that it failed.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use memobj_linux::region::{Chunk, ChunkPool, SMALL};

use super::filled::Filled;
use super::interest::{Hook, Interest, SupplyControl};
use crate::error::{ErrorKind, SupplyError};

/// Who hears the answer to a [`SupplyRequest`].
pub(crate) trait SupplyTo: Send + Sync {
    /// The answer, with the buffer that is filled if it is `Ok`. Called once.
    fn answered(&self, buffer: Chunk, answer: Result<(), SupplyError>);

    /// Whether anybody waits still.
    fn is_wanted(&self) -> bool {
        true
    }

    /// Until when somebody waits.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Keeps `hook` until nobody waits any more. It is dropped when the answer has come.
    fn when_unwanted(&self, hook: Hook) {
        drop(hook);
    }

    /// Whether somebody waits for the bytes now.
    fn is_urgent(&self) -> bool {
        true
    }
}

fn dropped() -> SupplyError {
    let why = io::Error::other("the pager dropped its request without an answer");
    SupplyError::because(ErrorKind::Integrity, why)
}

/// A range that a pager is to supply, and the memory for its bytes.
///
/// It is owned: keep it, send it to any thread, answer it whenever, in any order. [`done`](Self::done) and
/// [`fail`](Self::fail) answer it; dropping it fails the pages. Once its time has run out, or its object is closed, an
/// answer finds nobody: see [`is_wanted`](Self::is_wanted).
pub struct SupplyRequest {
    range: Range<u64>,
    buffer: Option<Chunk>,
    filled: Filled,
    to: Option<Box<dyn SupplyTo>>,
}

impl fmt::Debug for SupplyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupplyRequest").field("range", &self.range).finish_non_exhaustive()
    }
}

/// The answer goes to a closure.
struct ToClosure<F> {
    closure: std::sync::Mutex<Option<F>>,
    range: Range<u64>,
    interest: Arc<Interest>,
}

impl<F: FnOnce(Result<&[u8], SupplyError>) + Send> SupplyTo for ToClosure<F> {
    fn answered(&self, buffer: Chunk, answer: Result<(), SupplyError>) {
        self.interest.answered();
        let closure = self.closure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(closure) = closure {
            let len = (self.range.end - self.range.start) as usize;
            closure(answer.map(|()| &buffer[..len]));
        }
    }

    fn is_wanted(&self) -> bool {
        self.interest.is_wanted()
    }

    fn when_unwanted(&self, hook: Hook) {
        self.interest.when_unwanted(hook);
    }

    fn is_urgent(&self) -> bool {
        self.interest.is_urgent()
    }
}

impl SupplyRequest {
    /// `buffer` is at least as long as `range`.
    pub(crate) fn to(range: Range<u64>, buffer: Chunk, to: Box<dyn SupplyTo>) -> Self {
        Self { range, buffer: Some(buffer), filled: Filled::default(), to: Some(to) }
    }

    /// A request of your own: for pagers that ask other pagers, and for tests of pagers. `answer` is called once, on the
    /// thread that answers.
    ///
    /// # Errors
    ///
    /// If there is no memory for its buffer.
    pub fn new(
        range: Range<u64>,
        answer: impl FnOnce(Result<&[u8], SupplyError>) + Send + 'static,
    ) -> io::Result<Self> {
        Ok(Self::cancellable(range, answer)?.0)
    }

    /// As [`new`](Self::new), with what cancels it: for pagers whose own requests can become unwanted.
    ///
    /// ```
    /// # use memobj::pagers::SupplyRequest;
    /// let (inner, control) = SupplyRequest::cancellable(0..4096, |answer| drop(answer))?;
    /// control.cancel();
    /// assert!(!inner.is_wanted());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no memory for its buffer.
    pub fn cancellable(
        range: Range<u64>,
        answer: impl FnOnce(Result<&[u8], SupplyError>) + Send + 'static,
    ) -> io::Result<(Self, SupplyControl)> {
        let len = usize::try_from(range.end.saturating_sub(range.start))
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let pool = ChunkPool::new(1, len.max(1).next_multiple_of(SMALL))?;
        let buffer = pool.take().ok_or(io::ErrorKind::OutOfMemory)?;
        let (closure, interest) = (std::sync::Mutex::new(Some(answer)), Interest::new());
        let to = ToClosure { closure, range: range.clone(), interest: Arc::clone(&interest) };
        Ok((Self::to(range, buffer, Box::new(to)), SupplyControl(interest)))
    }

    /// The bytes of the object that are asked for. They start at a multiple of 4 KiB, and end at one or at the object's end.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Whether anybody waits for the answer still. Nobody does once the time is up, or the object is closed.
    pub fn is_wanted(&self) -> bool {
        self.to.as_ref().is_some_and(|to| to.is_wanted())
    }

    /// Whether somebody waits for the bytes now. Others are read ahead, or prefetched.
    pub fn is_urgent(&self) -> bool {
        self.to.as_ref().is_some_and(|to| to.is_urgent())
    }

    /// When the engine stops waiting, if ever; by the system's clock unless the cache has a clock of its own.
    pub fn deadline(&self) -> Option<Instant> {
        self.to.as_ref().and_then(|to| to.deadline())
    }

    /// Has `hook` called once nobody waits any more: to cancel a transfer. If that is so already, it is called soon. It is
    /// called on a thread of the engine on which it may block, and dropped if the request is answered before. A second hook
    /// replaces the first. The hook of a request that another pager made is called where
    /// [`SupplyControl::cancel`] is.
    pub fn when_unwanted(&self, hook: impl FnOnce() + Send + 'static) {
        if let Some(to) = &self.to {
            to.when_unwanted(Box::new(hook));
        }
    }

    /// Copies `bytes` to the object's offset `offset`. Pieces can come in any order.
    ///
    /// # Errors
    ///
    /// `Integrity`, if they are not in the range; nothing is copied then.
    pub fn fill(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SupplyError> {
        let end = offset.saturating_add(bytes.len() as u64);
        self.fill_with(offset..end, |into| {
            into.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// Has `fill` write the bytes of `part` to their place in the buffer, and takes them for filled if it says `Ok`.
    ///
    /// # Errors
    ///
    /// What `fill` says; `Integrity`, if `part` is not in the range.
    pub fn fill_with(
        &mut self,
        part: Range<u64>,
        fill: impl FnOnce(&mut [u8]) -> Result<(), SupplyError>,
    ) -> Result<(), SupplyError> {
        let inside = self.range.start <= part.start && part.start <= part.end && part.end <= self.range.end;
        let Some(buffer) = self.buffer.as_mut().filter(|_| inside) else {
            let why = format!(
                "filled [{}, {}) of [{}, {})",
                part.start, part.end, self.range.start, self.range.end
            );
            return Err(SupplyError::because(ErrorKind::Integrity, io::Error::other(why)));
        };
        let start = (part.start - self.range.start) as usize;
        fill(&mut buffer[start..start + (part.end - part.start) as usize])?;
        self.filled.add(part);
        Ok(())
    }

    /// The range is supplied. If a part of it was not filled, that is `Truncated`, and all of it fails.
    pub fn done(self) {
        let answer = match self.filled.is_all_of(&self.range) {
            true => Ok(()),
            false => Err(SupplyError::new(ErrorKind::Truncated)),
        };
        self.finish(answer);
    }

    /// The range cannot be supplied.
    pub fn fail(self, error: SupplyError) {
        self.finish(Err(error));
    }

    /// Fills all of it by a call that says how many bytes it filled: anything but all of them is a failure.
    pub fn answer(self, supply: impl FnOnce(Range<u64>, &mut [u8]) -> Result<usize, SupplyError>) {
        let mut request = self;
        let range = request.range();
        let len = (range.end - range.start) as usize;
        let filled = request.fill_with(range.clone(), |into| match supply(range, into)? {
            count if count == len => Ok(()),
            count if count < len => Err(SupplyError::new(ErrorKind::Truncated)),
            _ => Err(SupplyError::new(ErrorKind::Integrity)),
        });
        match filled {
            Ok(()) => request.done(),
            Err(error) => request.fail(error),
        }
    }

    fn finish(mut self, answer: Result<(), SupplyError>) {
        if let (Some(to), Some(buffer)) = (self.to.take(), self.buffer.take()) {
            to.answered(buffer, answer);
        }
    }
}

impl Drop for SupplyRequest {
    fn drop(&mut self) {
        if let (Some(to), Some(buffer)) = (self.to.take(), self.buffer.take()) {
            to.answered(buffer, Err(dropped()));
        }
    }
}

/// Who hears the answer to a request without a buffer to fill.
pub(crate) type AnswerTo = Box<dyn FnOnce(Result<(), SupplyError>) + Send>;

/// One question with a yes or an error for an answer.
struct Question(Option<AnswerTo>);

impl Question {
    fn finish(&mut self, answer: Result<(), SupplyError>) {
        if let Some(to) = self.0.take() {
            to(answer);
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.finish(Err(dropped()));
    }
}

/// Bytes that a pager is to take for a range.
///
/// Owned as a [`SupplyRequest`] is. The bytes stay as they are until it is answered, and the engine offers none of these
/// pages again before.
pub struct WriteRequest {
    range: Range<u64>,
    bytes: Vec<u8>,
    to: Question,
}

impl fmt::Debug for WriteRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteRequest").field("range", &self.range).finish_non_exhaustive()
    }
}

impl WriteRequest {
    pub(crate) fn to(range: Range<u64>, bytes: Vec<u8>, to: AnswerTo) -> Self {
        Self { range, bytes, to: Question(Some(to)) }
    }

    /// A request of your own, see [`SupplyRequest::new`]. `bytes` go to `offset`.
    pub fn new(
        offset: u64,
        bytes: Vec<u8>,
        answer: impl FnOnce(Result<(), SupplyError>) + Send + 'static,
    ) -> Self {
        Self::to(offset..offset + bytes.len() as u64, bytes, Box::new(answer))
    }

    /// Where they go. The range starts at a multiple of 4 KiB, and ends at one or at the object's end.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The bytes, as many as the range has.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The pager has the bytes: whatever is supplied from now on has them.
    pub fn done(mut self) {
        self.to.finish(Ok(()));
    }

    /// The pager has not taken them: the pages are Dirty again.
    pub fn fail(mut self, error: SupplyError) {
        self.to.finish(Err(error));
    }

    /// Answers what `take` says.
    pub fn answer(mut self, take: impl FnOnce(Range<u64>, &[u8]) -> Result<(), SupplyError>) {
        let answer = take(self.range(), self.bytes());
        self.to.finish(answer);
    }
}

macro_rules! question {
    ($(#[$doc:meta])* $name:ident $(, $field:ident: $type:ty, $(#[$field_doc:meta])*)?) => {
        $(#[$doc])*
        pub struct $name {
            $($field: $type,)?
            to: Question,
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &self.$field))?.finish_non_exhaustive()
            }
        }

        impl $name {
            /// A request of your own, see [`SupplyRequest::new`].
            pub fn new($($field: $type,)? answer: impl FnOnce(Result<(), SupplyError>) + Send + 'static) -> Self {
                Self { $($field,)? to: Question(Some(Box::new(answer))) }
            }

            $(
                $(#[$field_doc])*
                pub fn $field(&self) -> $type {
                    self.$field
                }
            )?

            /// It is done.
            pub fn done(mut self) {
                self.to.finish(Ok(()));
            }

            /// It could not be done.
            pub fn fail(mut self, error: SupplyError) {
                self.to.finish(Err(error));
            }

            /// Answers `answer`.
            pub fn answer(mut self, answer: Result<(), SupplyError>) {
                self.to.finish(answer);
            }
        }
    };
}

question!(
    /// A pager is to make durable what it took before.
    SyncRequest
);
question!(
    /// A pager is to change the length of its object.
    LengthRequest,
    length: u64,
    /// The new length, in bytes.
);
