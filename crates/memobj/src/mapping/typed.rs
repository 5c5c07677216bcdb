//! Bytes of an object as values of types that every byte pattern is valid for. Feature `zerocopy`.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range, RangeBounds};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Mapping, Pinned};
use crate::error::AccessError;

/// A value in pinned bytes: it is used where it is, and can neither be evicted nor change while this lives.
///
/// Dereferences to the value, which can be a slice.
pub struct PinnedAs<T: ?Sized> {
    pinned: Pinned,
    value: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> fmt::Debug for PinnedAs<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedAs").field("len", &self.pinned.len()).finish_non_exhaustive()
    }
}

impl<T: ?Sized + FromBytes + KnownLayout + Immutable> Deref for PinnedAs<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match T::ref_from_bytes(&self.pinned) {
            Ok(value) => value,
            // Looked at when it was pinned; pinned bytes neither move nor change their number.
            Err(_) => unreachable!("pinned bytes have moved"),
        }
    }
}

impl Mapping {
    /// Pins `range`, which is one value of `T` or a slice of them, as [`pin`](Self::pin) does.
    ///
    /// ```
    /// # use memobj::{Cache, CacheOptions, MapOptions, ObjectOptions, pagers};
    /// use zerocopy::{FromBytes, Immutable, KnownLayout, little_endian::U32};
    ///
    /// #[derive(FromBytes, KnownLayout, Immutable)]
    /// #[repr(C)]
    /// struct Entry {
    ///     key: U32,
    ///     value: U32,
    /// }
    ///
    /// # let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
    /// let bytes = [1, 0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 20, 0, 0, 0];
    /// let object = cache.object("entries", pagers::Bytes::new(bytes), ObjectOptions::default())?;
    /// let mapping = object.map_all(MapOptions::default())?;
    /// let entries = mapping.pin_as::<[Entry]>(..)?;
    /// assert_eq!(entries[1].value.get(), 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Layout` if the bytes are not as many as a `T` has, or do not lie as one has to. Pages lie as every type has to, so the
    /// offset in the object decides; types of the module `zerocopy::little_endian` and those that are `repr(C, packed)` can
    /// lie anywhere. The copies that are pinned of an object with guests that may store are only sure to lie as those do.
    pub fn pin_as<T>(&self, range: impl RangeBounds<u64>) -> Result<PinnedAs<T>, AccessError>
    where
        T: ?Sized + FromBytes + KnownLayout + Immutable,
    {
        let range = self.within(range);
        let pinned = self.pin(range.clone())?;
        match T::ref_from_bytes(&pinned) {
            Ok(_) => Ok(PinnedAs { pinned, value: PhantomData }),
            Err(zerocopy::CastError::Alignment(_)) => Err(layout::<T>(range, "as its alignment wants")),
            Err(_) => Err(layout::<T>(range, "as many as its size")),
        }
    }

    /// A copy of the value at `offset`, wherever that lies, as [`read_at`](Self::read_at) makes it.
    pub fn read_value<T: FromBytes + IntoBytes>(&self, offset: u64) -> Result<T, AccessError> {
        let mut value = T::new_zeroed();
        self.read_at(offset, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies `value` to `offset`, as [`write_at`](Self::write_at) does.
    pub fn write_value<T: ?Sized + IntoBytes + Immutable>(
        &self,
        offset: u64,
        value: &T,
    ) -> Result<(), AccessError> {
        self.write_at(offset, value.as_bytes())
    }
}

fn layout<T: ?Sized>(range: Range<u64>, wanted: &'static str) -> AccessError {
    AccessError::Layout { range, name: std::any::type_name::<T>(), wanted }
}
