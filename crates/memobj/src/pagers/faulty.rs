//! Failures on purpose.

use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Pager;
use crate::error::{ErrorKind, SupplyError};

/// What happens to a supply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Inject {
    /// It fails with an input/output error.
    Error,
    /// It fails with an error of this kind.
    Fail(ErrorKind),
    /// It answers fewer bytes than asked for, and leaves rubbish behind them.
    Short,
    /// It answers more bytes than asked for.
    Long,
    /// It panics.
    Panic,
    /// It answers right, but late.
    Delay(Duration),
    /// It does not answer before the object is closed.
    Hang,
}

/// One planned failure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Injection {
    /// The bytes at which it strikes.
    pub range: Range<u64>,
    /// What happens.
    pub action: Inject,
    /// How often, at most; `None` is always.
    pub times: Option<u32>,
}

/// Wraps a pager and makes it fail as planned.
#[derive(Debug)]
pub struct Faulty<P> {
    inner: P,
    seed: u64,
    plan: Mutex<Vec<Injection>>,
    detached: (Mutex<bool>, Condvar),
}

impl<P: Pager> Faulty<P> {
    /// `inner`, with these failures. `seed` decides lengths of short answers.
    pub fn new(inner: P, plan: Vec<Injection>, seed: u64) -> Self {
        Self { inner, seed, plan: Mutex::new(plan), detached: (Mutex::new(false), Condvar::new()) }
    }

    /// `inner`, which fails with an input/output error at `range`, always.
    pub fn failing(inner: P, range: Range<u64>) -> Self {
        Self::new(inner, vec![Injection { range, action: Inject::Error, times: None }], 0)
    }

    /// Takes the next planned failure that strikes in `range`.
    fn next(&self, range: &Range<u64>) -> Option<Inject> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let strikes = |planned: &&mut Injection| {
            planned.range.start < range.end && range.start < planned.range.end && planned.times != Some(0)
        };
        let planned = plan.iter_mut().find(strikes)?;
        if let Some(times) = &mut planned.times {
            *times -= 1;
        }
        Some(planned.action)
    }

    /// Waits for `limit` or the end of the object; says whether the object ended.
    fn pause(&self, limit: Option<Duration>) -> bool {
        let guard = self.detached.0.lock().unwrap_or_else(PoisonError::into_inner);
        match limit {
            Some(limit) => {
                let waited = self.detached.1.wait_timeout_while(guard, limit, |ended| !*ended);
                *waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                *self.detached.1.wait_while(guard, |ended| !*ended).unwrap_or_else(PoisonError::into_inner)
            }
        }
    }
}

impl<P: Pager> Pager for Faulty<P> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        match self.next(&range) {
            None => self.inner.supply(range, buffer),
            Some(Inject::Error) => Err(SupplyError::new(ErrorKind::Io)),
            Some(Inject::Fail(kind)) => Err(SupplyError::new(kind)),
            Some(Inject::Short) => {
                let keep = short_length(self.seed ^ range.start, buffer.len());
                self.inner.supply(range, buffer)?;
                buffer[keep..].fill(0xdb);
                Ok(keep)
            }
            Some(Inject::Long) => {
                let filled = self.inner.supply(range, buffer)?;
                Ok(filled + 1)
            }
            Some(Inject::Panic) => panic!("injected panic at [{}, {})", range.start, range.end),
            Some(Inject::Delay(time)) => {
                if self.pause(Some(time)) {
                    return Err(SupplyError::new(ErrorKind::Detached));
                }
                self.inner.supply(range, buffer)
            }
            Some(Inject::Hang) => {
                self.pause(None);
                Err(SupplyError::new(ErrorKind::Detached))
            }
        }
    }

    fn detach(&self) {
        *self.detached.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.detached.1.notify_all();
        self.inner.detach();
    }
}

/// A length below `len` that depends on `seed` only (the finaliser of splitmix64).
fn short_length(seed: u64, len: usize) -> usize {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % len as u64) as usize
}
