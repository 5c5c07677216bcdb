//! How an object of a server is opened.

use std::time::Duration;

use memobj::ObjectOptions;

/// Options of [`Open::open`](crate::Open::open).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UrlOptions {
    /// Those of the memory object: its failure policy, its frames, whether it is written. With `Writing::InPlace` the object
    /// is opened for writing at its server, too. Commits ([`Writing::Atomic`](memobj::Writing::Atomic)) are of local files only;
    /// a sync of an object of a store takes effect whole or not at all.
    pub object: ObjectOptions,
    /// Bytes of one request to the server; what suits the server if `None`.
    pub block_bytes: Option<u64>,
    /// How long a server may be silent before a request to it fails; its own default if `None`.
    pub server_timeout: Option<Duration>,
    /// Requests under way at once; what suits the server if `None`.
    pub depth: Option<usize>,
    /// An object of a store that is not there is made, if it is opened for writing.
    pub creates: bool,
    /// Where blocks are kept on the disk.
    #[cfg(feature = "disk-cache")]
    pub disk_cache: Option<memobj_disk_cache::DiskCache>,
    /// Digests of the blocks of an object of a store or of a web server, which every answer is compared with.
    #[cfg(feature = "object-store")]
    pub manifest: Option<std::sync::Arc<memobj_object_store::Manifest>>,
}

macro_rules! setters {
    ($($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
            $(#[$attribute])*
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field.into();
                self
            }
        )*
    };
}

impl UrlOptions {
    /// The defaults, to be changed by the setters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`creates`](Self#structfield.creates).
    #[must_use]
    pub fn creating(mut self) -> Self {
        self.creates = true;
        self
    }

    setters!(
        object: ObjectOptions,
        block_bytes: impl Into<Option<u64>>,
        server_timeout: impl Into<Option<Duration>>,
        depth: impl Into<Option<usize>>,
        #[cfg(feature = "disk-cache")]
        disk_cache: impl Into<Option<memobj_disk_cache::DiskCache>>,
        #[cfg(feature = "object-store")]
        manifest: impl Into<Option<std::sync::Arc<memobj_object_store::Manifest>>>,
    );
}
