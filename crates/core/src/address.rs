//! Addresses, page indices and half-open ranges of them.
//!
//! Each unit has its own type, so that a byte offset cannot be passed where a page index is meant.
//! Arithmetic that can leave the 64-bit range is checked and says so by returning `None`.

use core::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value `count` units further on, or `None` past 2^64 - 1.
            pub const fn checked_add(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

unit!(
    /// A virtual address, in bytes.
    VirtAddr
);
unit!(
    /// A byte offset inside a memory object.
    ObjectOffset
);
unit!(
    /// The index of a page inside a memory object, in units of that object's page size.
    PageIndex
);

/// The size of a page of an object, always a power of two: `1 << shift` bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageSize {
    shift: u32,
}

impl PageSize {
    /// 4 KiB, the base page of x86-64 and RISC-V.
    pub const SMALL: PageSize = PageSize { shift: 12 };
    /// 2 MiB, one huge page of x86-64 and RISC-V.
    pub const LARGE: PageSize = PageSize { shift: 21 };

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// Base-two logarithm of the size.
    pub const fn shift(self) -> u32 {
        self.shift
    }

    /// The page that holds byte `offset`.
    pub const fn page_of(self, offset: ObjectOffset) -> PageIndex {
        PageIndex(offset.0 >> self.shift)
    }

    /// The offset of the first byte of `page`; `None` if it does not fit 64 bits.
    pub const fn offset_of(self, page: PageIndex) -> Option<ObjectOffset> {
        match page.0.checked_mul(1 << self.shift) {
            Some(offset) => Some(ObjectOffset(offset)),
            None => None,
        }
    }

    /// How many pages hold `length` bytes, the last one perhaps in part.
    pub const fn pages_for(self, length: u64) -> u64 {
        length.div_ceil(1 << self.shift)
    }

    /// The pages that hold the bytes of `range`; empty for an empty range.
    pub const fn pages_of(self, range: ByteRange) -> PageRange {
        let first = range.start >> self.shift;
        if range.start == range.end {
            return PageRange { start: first, end: first };
        }
        PageRange { start: first, end: ((range.end - 1) >> self.shift) + 1 }
    }
}

/// A half-open range `[start, end)` of byte offsets inside an object; never reversed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// A half-open range `[start, end)` of page indices; never reversed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PageRange {
    /// First page.
    pub start: u64,
    /// One past the last page.
    pub end: u64,
}

impl ByteRange {
    /// The range of `length` bytes at `start`; `None` if its end does not fit 64 bits.
    pub const fn at(start: u64, length: u64) -> Option<Self> {
        match start.checked_add(length) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The range from `start` to `end`; `None` if reversed.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// Bytes in the range.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether the range holds no byte.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The part of the range below `end`.
    pub const fn below(self, end: u64) -> Self {
        let end = if self.end < end { self.end } else { end };
        let start = if self.start < end { self.start } else { end };
        Self { start, end }
    }
}

impl PageRange {
    /// The single page `page`; callers pass indices of real pages, far below 2^64.
    pub const fn one(page: PageIndex) -> Self {
        Self { start: page.0, end: page.0 + 1 }
    }

    /// Pages in the range.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether the range holds no page.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether `page` lies in the range.
    pub const fn contains(self, page: PageIndex) -> bool {
        self.start <= page.0 && page.0 < self.end
    }

    /// The pages one after another.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = PageIndex> + Clone {
        (self.start..self.end).map(PageIndex)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_covers_both_ends() {
        let range = ByteRange::new(4095, 8193).unwrap();
        assert_eq!(PageSize::SMALL.pages_of(range), PageRange { start: 0, end: 3 });
        let empty = ByteRange::new(8192, 8192).unwrap();
        assert!(PageSize::SMALL.pages_of(empty).is_empty());
        let last = ByteRange::new(u64::MAX - 1, u64::MAX).unwrap();
        assert_eq!(PageSize::SMALL.pages_of(last).len(), 1);
    }

    #[test]
    fn overflow_is_none() {
        assert_eq!(ByteRange::at(u64::MAX, 1), None);
        assert_eq!(ByteRange::new(2, 1), None);
        assert_eq!(PageSize::SMALL.offset_of(PageIndex(u64::MAX)), None);
        assert_eq!(VirtAddr(u64::MAX).checked_add(1), None);
    }
}
