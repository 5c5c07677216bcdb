//! How much clients may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Descriptors that are left to the rest of the process.
const SPARE_DESCRIPTORS: u64 = 128;
/// Descriptors that a client, an object and a mapping take, at most.
pub(super) const OF_CLIENT: u64 = 4;
pub(super) const OF_OBJECT: u64 = 9;
pub(super) const OF_MAPPING: u64 = 4;

/// What clients may have. Most is for each client, the rest for all together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Quota {
    /// Objects that one client has open.
    pub objects: u64,
    /// Mappings of one client.
    pub mappings: u64,
    /// Mappings of one object, of all clients together. The library has a bound of its own, which is the default.
    pub guests: u64,
    /// Bytes that the mappings of one client have together.
    pub mapped_bytes: u64,
    /// Long requests of one client that are under way.
    pub requests: u64,
    /// Bytes of events that wait for one client.
    pub event_bytes: usize,
    /// Clients at once.
    pub clients: u64,
    /// Long requests of all clients that are under way. The first of each client is always taken.
    pub all_requests: u64,
    /// Descriptors that the server holds for all clients.
    pub descriptors: u64,
}

impl Default for Quota {
    /// 64 objects and mappings, 1 TiB, 8 requests and 64 KiB of events for each of 1024 clients; 4096 mappings of an object;
    /// 256 requests of all; and as many descriptors as the process may have, less 128.
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self {
            objects: 64,
            mappings: 64,
            guests: memobj_linux::area::MOST_GUESTS as u64,
            mapped_bytes: 1 << 40,
            requests: 8,
            event_bytes: 64 << 10,
            clients: 1024,
            all_requests: 256,
            descriptors: limit.unwrap_or(u64::MAX).saturating_sub(SPARE_DESCRIPTORS),
        }
    }
}

setters!(
    Quota =>
    objects: u64,
    mappings: u64,
    guests: u64,
    mapped_bytes: u64,
    requests: u64,
    event_bytes: usize,
    clients: u64,
    all_requests: u64,
    descriptors: u64,
);

/// The descriptors that a process needs to serve so many clients with a mapping each, and objects.
pub fn descriptors_for(clients: u64, objects: u64) -> u64 {
    SPARE_DESCRIPTORS + clients * (OF_CLIENT + OF_MAPPING) + objects * OF_OBJECT
}

/// A number that shares are taken of, and given back to.
#[derive(Clone, Default, Debug)]
pub(super) struct Counter(Arc<AtomicU64>);

/// A share of a counter. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Share {
    counter: Counter,
    amount: u64,
}

impl Counter {
    /// Takes `amount`, unless more than `most` would be taken then.
    pub(super) fn take(&self, amount: u64, most: u64) -> Option<Share> {
        let fits = |taken: u64| taken.checked_add(amount).filter(|sum| *sum <= most);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Share { counter: self.clone(), amount })
    }

    /// How much is taken.
    pub(super) fn taken(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.counter.0.fetch_sub(self.amount, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_and_come_back() {
        let counter = Counter::default();
        let first = counter.take(3, 4).unwrap();
        assert!(counter.take(2, 4).is_none() && counter.take(u64::MAX, u64::MAX).is_none());
        let second = counter.take(1, 4).unwrap();
        drop(first);
        assert_eq!(counter.taken(), 1);
        drop(second);
        assert_eq!(counter.taken(), 0);
    }
}
