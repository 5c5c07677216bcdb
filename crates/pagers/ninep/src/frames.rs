//! Cuts what comes from a connection into messages.

use std::io::{self, Read};

use crate::message::HEADER_BYTES;

/// What is read at once besides a message.
const EXTRA_BYTES: usize = 64 << 10;

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The connection ended between two messages, or within one.
    Ended,
    /// The connection failed; or its time-out ended, which loses nothing.
    Connection(io::Error),
    /// A size that no message has that was agreed on.
    Size(u32),
}

/// A buffer for one message of at most so many bytes, and for what comes with it.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    most: u32,
}

impl Frames {
    /// For messages of at most `most` bytes. A size in a message never makes it larger.
    pub(crate) fn new(most: u32) -> Self {
        let bytes = usize::try_from(most).unwrap_or(usize::MAX).saturating_add(EXTRA_BYTES);
        Self { buffer: vec![0; bytes], start: 0, end: 0, most }
    }

    /// The most bytes of a message from now on; never more than at first.
    pub(crate) fn limit(&mut self, most: u32) {
        self.most = self.most.min(most);
    }

    /// The next message, with its size in front. After a time-out the next call goes on.
    pub(crate) fn next<R: Read>(&mut self, from: &mut R) -> Result<&[u8], FrameError> {
        loop {
            if let Some(size) = self.whole()? {
                let message = self.start..self.start + size;
                self.start += size;
                return Ok(self.buffer.get(message).unwrap_or_default());
            }
            self.read(from)?;
        }
    }

    /// The size of the message at the front, if all of it is there.
    fn whole(&self) -> Result<Option<usize>, FrameError> {
        let there = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(field) = there.first_chunk::<4>() else { return Ok(None) };
        let size = u32::from_le_bytes(*field);
        if size < HEADER_BYTES || size > self.most {
            return Err(FrameError::Size(size));
        }
        Ok(usize::try_from(size).ok().filter(|size| *size <= there.len()))
    }

    fn read<R: Read>(&mut self, from: &mut R) -> Result<(), FrameError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        match from.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
            Ok(0) => Err(FrameError::Ended),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(FrameError::Connection(error)),
        }
    }
}
