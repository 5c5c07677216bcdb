//! Who has the frames of files: a cache of this process, or a server.

use std::path::Path;
use std::sync::Arc;

use memobj::{Cache, CacheOptions, Metrics};

use crate::error::RunError;
use crate::options::Options;
use crate::via::Via;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum Lender {
    Cache(Cache),
    Server(Arc<Via>),
}

impl Lender {
    pub(crate) fn new(options: &Options) -> Result<Self, RunError> {
        let Some(path) = &options.via else {
            let cache = CacheOptions::new().budget_bytes(options.budget_bytes);
            return Ok(Self::Cache(Cache::new(cache).map_err(RunError::Cache)?));
        };
        match Via::connect(path) {
            Ok(via) => Ok(Self::Server(Arc::new(via))),
            Err(error) => Err(RunError::Via { socket: path.clone(), why: why(path, &error) }),
        }
    }

    /// The cache, if it is one of this process.
    pub(crate) fn cache(&self) -> Option<&Cache> {
        match self {
            Self::Cache(cache) => Some(cache),
            Self::Server(_) => None,
        }
    }

    /// What the cache of this process has done.
    pub(crate) fn metrics(&self) -> Metrics {
        self.cache().map(Cache::metrics).unwrap_or_default()
    }
}

fn why(path: &Path, error: &memobj_serve::control::ClientError) -> String {
    use memobj_serve::control::ClientError;
    match error {
        ClientError::Io(error) if !path.exists() => format!("{error}; is the server running?"),
        ClientError::Io(error) => error.to_string(),
        ClientError::Refused { kind, words } if kind == "refused" => {
            format!("the server refuses this client ({words})")
        }
        other => match other.get("message") {
            Some(message) => message,
            None => other.to_string(),
        },
    }
}
