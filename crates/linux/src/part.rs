//! A part of a shared value, kept together with the value.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// A reference into the value of an [`Arc`], with a share of the value: it stays valid as long as this lives.
pub struct Part<W: ?Sized, P: ?Sized> {
    part: NonNull<P>,
    // Keeps `part` valid.
    _whole: Arc<W>,
}

impl<W: ?Sized, P: ?Sized> Part<W, P> {
    /// The part of `whole` that `choose` finds, if there is one. Calls `choose` once.
    pub fn of(whole: &Arc<W>, choose: impl for<'a> FnOnce(&'a W) -> Option<&'a P>) -> Option<Self> {
        let part = NonNull::from(choose(whole)?);
        Some(Self { part, _whole: Arc::clone(whole) })
    }
}

impl<W: ?Sized, P: ?Sized> Deref for Part<W, P> {
    type Target = P;

    fn deref(&self) -> &P {
        // SAFETY: `choose` returned a reference that lives as long as any borrow of the value. The value does not move
        // inside its `Arc`, lives as long as `_whole`, and nobody can borrow it mutably while that share exists.
        unsafe { self.part.as_ref() }
    }
}

// SAFETY: what is sent is a share of `W` and a `&P`; the bounds are those of both.
unsafe impl<W: ?Sized + Send + Sync, P: ?Sized + Sync> Send for Part<W, P> {}
// SAFETY: as above.
unsafe impl<W: ?Sized + Send + Sync, P: ?Sized + Sync> Sync for Part<W, P> {}

impl<W: ?Sized, P: ?Sized> std::fmt::Debug for Part<W, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_outlives_the_other_shares() {
        let whole: Arc<Vec<String>> = Arc::new(vec!["first".into(), "second".into()]);
        let part = Part::of(&whole, |whole| whole.get(1).map(String::as_str)).unwrap();
        assert!(Part::of(&whole, |whole| whole.get(2)).is_none());
        drop(whole);
        assert_eq!(&*part, "second");
    }
}
