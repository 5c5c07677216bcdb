//! What a pager counts of itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Declares the counters, and the list that a pager gives of them.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts of one pager, since it was opened.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Count,)*
        }

        impl Counters {
            /// Each with its name.
            pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters!(
    /// Bytes of bodies of answers.
    network_read_bytes,
    /// Bytes of bodies of requests.
    network_written_bytes,
    /// Requests that were sent, of any method.
    requests,
    /// Requests that were sent a second time while the first had not been answered.
    hedged,
    /// Requests of the engine that nobody waited for any more.
    cancelled,
    /// Requests that this pager repeated after a failure: a digest that was wrong, a kept connection that was closed, a
    /// part of an upload.
    retries_asked,
    /// Parts of an upload that the store copied.
    copied_parts,
    /// Parts of an upload that were sent.
    sent_parts,
);

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn add_len(&self, bytes: &[u8]) {
        self.add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
