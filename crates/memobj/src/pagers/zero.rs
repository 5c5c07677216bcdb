//! An object that reads as zeros.

use std::ops::Range;

use super::{BlockingPager, Local, by_calls};
use crate::error::SupplyError;

/// Zeros of any length.
#[derive(Clone, Copy, Debug)]
pub struct Zero {
    length: u64,
}

impl Zero {
    /// `length` bytes of zero.
    pub fn new(length: u64) -> Self {
        Self { length }
    }
}

impl BlockingPager for Zero {
    fn length(&self) -> u64 {
        self.length
    }

    fn supply(&self, _range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        buffer.fill(0);
        Ok(buffer.len())
    }

    fn is_immutable(&self) -> bool {
        true
    }
}

by_calls!([] Zero, |_, description| description.local(Local::Zeros));
