//! Options of a pager.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use memobj::EngineClock;

use crate::manifest::Manifest;

/// The smallest block that is worth a request.
const SMALLEST_BLOCK: u64 = 64 << 10;
/// The largest block that the engine asks for.
const LARGEST_BLOCK: u64 = 16 << 20;

/// What is done about an object of which the server names no version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum VersionTrust {
    /// It is not opened: a change of it could not be noticed.
    #[default]
    Required,
    /// It is opened, in trust that it does not change. Only a change of its length is noticed. `version=none` in URLs.
    None,
}

/// Whether requests that take longer than nearly all others are sent a second time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Hedging {
    /// A request that waits for its first byte longer than 98 of 100 recent ones did is sent a second time. The first
    /// answer is taken. At most 1 of 20 requests is sent twice.
    #[default]
    Slowest,
    /// Each is sent once.
    Off,
}

/// For [`ObjectStorePager::open`](crate::ObjectStorePager::open).
///
/// ```
/// use memobj_object_store::ObjectStoreOptions;
///
/// let options = ObjectStoreOptions::new().block_bytes(4 << 20).depth(32);
/// assert_eq!((options.block_bytes, options.depth), (4 << 20, 32));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ObjectStoreOptions {
    /// Bytes of the ranges that are asked for: a power of two from 64 KiB to 16 MiB, others are rounded.
    pub block_bytes: u64,
    /// The most requests that are under way at once, for one object.
    pub depth: usize,
    /// How long a request may wait for the next byte of its answer.
    pub request_timeout: Duration,
    /// What is done about an object without a version.
    pub version_trust: VersionTrust,
    /// Whether slow requests are sent a second time.
    pub hedging: Hedging,
    /// Digests of the object's blocks, which every answer is compared with.
    pub manifest: Option<Arc<Manifest>>,
    /// Whether the object can be written. See the README for what the store needs to have.
    pub is_writable: bool,
    /// Whether an object that is not there is made, by the first sync; it is empty until something is written. Only for one that
    /// [can be written](Self::is_writable).
    pub creates: bool,
    /// Where written bytes are kept until a sync; the system's folder for temporary files if `None`.
    pub spool_folder: Option<PathBuf>,
    /// Settings of the store by the names that the crate object_store has for them: `aws_endpoint`, `aws_region`,
    /// `azure_storage_account_name`. They override what the environment says.
    pub settings: Vec<(String, String)>,
    /// Headers of every request to a web server.
    pub headers: Vec<(String, String)>,
    /// What time-outs and hedging are measured by; tests have one of their own.
    pub clock: EngineClock,
}

impl Default for ObjectStoreOptions {
    /// Blocks of 1 MiB, 64 requests at once, 30 s for a byte, read only.
    fn default() -> Self {
        Self {
            block_bytes: 1 << 20,
            depth: 64,
            request_timeout: Duration::from_secs(30),
            version_trust: VersionTrust::Required,
            hedging: Hedging::Slowest,
            manifest: None,
            is_writable: false,
            creates: false,
            spool_folder: None,
            settings: Vec::new(),
            headers: Vec::new(),
            clock: EngineClock::system(),
        }
    }
}

/// Setters with the names of their fields.
macro_rules! setters {
    ($($field:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field.into();
                self
            }
        )*
    };
}

impl ObjectStoreOptions {
    /// The defaults, to be changed by the setters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters!(
        depth: usize,
        request_timeout: Duration,
        version_trust: VersionTrust,
        hedging: Hedging,
        manifest: impl Into<Option<Arc<Manifest>>>,
        spool_folder: impl Into<Option<PathBuf>>,
        clock: EngineClock,
    );

    /// Sets [`block_bytes`](Self#structfield.block_bytes).
    #[must_use]
    pub fn block_bytes(mut self, block_bytes: u64) -> Self {
        self.block_bytes = block_bytes.clamp(SMALLEST_BLOCK, LARGEST_BLOCK).next_power_of_two();
        self
    }

    /// The object can be written: [`is_writable`](Self#structfield.is_writable).
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.is_writable = true;
        self
    }

    /// The object can be written, and need not be there: [`creates`](Self#structfield.creates).
    #[must_use]
    pub fn creating(mut self) -> Self {
        (self.is_writable, self.creates) = (true, true);
        self
    }

    /// Adds one of the [`settings`](Self#structfield.settings).
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Adds one of the [`headers`](Self#structfield.headers).
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}
