//! Whether anybody waits for pages.

/// Whether anybody waits for the pages of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// Somebody does.
    Demand,
    /// Somebody does, and stores to them next.
    ToStore,
    /// The bytes are somebody's own: they are Dirty from the start.
    Store,
    /// Nobody yet: a failure is forgotten.
    InAdvance,
}
