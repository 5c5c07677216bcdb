//! Whether everybody waits for the calling thread: such a thread does not drop what users gave.

use std::cell::Cell;

thread_local! {
    static SERVES_ALL: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread, for as long as it lives, as one that everybody waits for.
pub fn all() {
    SERVES_ALL.set(true);
}

/// Whether the calling thread is marked so.
pub fn is_for_all() -> bool {
    SERVES_ALL.get()
}
