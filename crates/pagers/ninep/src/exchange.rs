//! Waits for one message, until a point in time.

use std::io::{self, Read};
use std::time::Instant;

use crate::frames::{FrameError, Frames};
use crate::open_error::Cause;
use crate::stream::{Stream, is_timeout};

/// Reads from a connection until a point in time.
struct Until<'a>(&'a Stream, Instant);

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.1.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.set_read_timeout(Some(left))?;
        (&mut &*self.0).read(buffer)
    }
}

/// The next message, if all of it comes until `until`.
pub(crate) fn next<'f>(frames: &'f mut Frames, stream: &Stream, until: Instant) -> Result<&'f [u8], Cause> {
    frames.next(&mut Until(stream, until)).map_err(|error| match error {
        FrameError::Ended => Cause::Connection(io::ErrorKind::UnexpectedEof.into()),
        FrameError::Connection(error) if is_timeout(&error) => {
            Cause::Connection(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
        }
        FrameError::Connection(error) => Cause::Connection(error),
        FrameError::Size(size) => Cause::Answer(format!("a message of {size} bytes")),
    })
}
