//! Bytes that are in memory already.

use std::fmt;
use std::ops::Range;

use super::{BlockingPager, Local, by_calls};
use crate::error::SupplyError;

/// An object whose bytes the process holds: useful for tests, and for code that takes mapped objects only.
#[derive(Clone)]
pub struct Bytes(std::sync::Arc<[u8]>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes").field("length", &self.0.len()).finish()
    }
}

impl Bytes {
    /// An object of these bytes.
    pub fn new(bytes: impl Into<std::sync::Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }
}

impl BlockingPager for Bytes {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        buffer.copy_from_slice(&self.0[range.start as usize..range.end as usize]);
        Ok(buffer.len())
    }

    fn is_immutable(&self) -> bool {
        true
    }
}

by_calls!([] Bytes, |bytes, description| description.local(Local::Memory(std::sync::Arc::clone(&bytes.0))));
