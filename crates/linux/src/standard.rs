//! Which standard descriptors this process was started with.
//!
//! The standard library opens /dev/null in place of those that are closed, before `main`. Whoever then writes to standard
//! output is told of no error, and nobody has the output. So they are looked at before that.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU8, Ordering};

/// One of the descriptors that a program is started with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standard {
    /// Descriptor 0.
    Input,
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

/// A bit for each that was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Whether the descriptor was closed when this process was started.
pub fn was_closed(which: Standard) -> bool {
    let bit = match which {
        Standard::Input => 1,
        Standard::Output => 2,
        Standard::Error => 4,
    };
    CLOSED.load(Ordering::Relaxed) & bit != 0
}

extern "C" fn look() {
    for descriptor in 0..3 as c_int {
        // SAFETY: takes numbers.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << descriptor, Ordering::Relaxed);
        }
    }
}

// SAFETY: the loader calls what this section names, once, with arguments that a C function without parameters does not
// look at, before `main`; `look` needs nothing of the standard library's that is not there yet.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;
