//! A pager whose answers the test lets through.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use memobj::SupplyError;
use memobj::pagers::BlockingPager;

/// Holds calls up until it is opened. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets every call through, from now on.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub fn pass(&self) {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Wraps a pager: the first calls wait at a gate, whatever happens to the object meanwhile, and then answer
/// with bytes that are not the object's.
#[derive(Debug)]
pub struct Gated<P> {
    inner: P,
    gate: Gate,
    left: Mutex<u32>,
}

impl<P: BlockingPager> Gated<P> {
    /// `inner`, whose first `calls` calls wait at `gate`.
    pub fn new(inner: P, gate: Gate, calls: u32) -> Self {
        Self { inner, gate, left: Mutex::new(calls) }
    }

    fn takes_part(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let takes_part = *left > 0;
        *left = left.saturating_sub(1);
        takes_part
    }
}

impl<P: BlockingPager> BlockingPager for Gated<P> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        if !self.takes_part() {
            return self.inner.supply(range, buffer);
        }
        self.gate.pass();
        buffer.fill(0xbd);
        Ok(buffer.len())
    }

    fn detach(&self) {
        self.inner.detach();
    }
}

by_calls!([P: BlockingPager] Gated<P>);
