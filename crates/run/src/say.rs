//! Lines on standard error.

use std::fmt::Display;
use std::io::{Write, stderr};

/// Says something to whoever started the run. A standard error that is full, or that nobody reads any more, is no reason
/// to end what runs.
pub(crate) fn say(text: &dyn Display) {
    // One write, so that lines of several threads do not mix.
    let _ = stderr().write_all(format!("memobj: {text}\n").as_bytes());
}
