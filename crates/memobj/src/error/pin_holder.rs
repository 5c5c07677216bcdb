//! Who pins a page, for errors that name it.

use std::fmt;

/// Whose pin is in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PinHolder {
    /// A pin that the calling thread made, and that lives still: it waits for itself, unless another thread drops the
    /// pin.
    ThisThread,
    /// A pin that another thread made.
    Others,
}

impl fmt::Display for PinHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisThread => "this thread",
            Self::Others => "others",
        })
    }
}
