//! Who has the frames of files: a cache of this process, or a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memobj::{Cache, CacheOptions, Metrics};
use memobj_serve::control::{ClientError, Connecting};

use crate::error::RunError;
use crate::options::Options;
use crate::via::Via;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum Lender {
    Cache(Cache),
    Server(Arc<Via>),
}

/// A lender that is asked for: a server gets ready while this process does.
pub(crate) struct Wanted(Option<(PathBuf, Connecting)>);

impl Wanted {
    pub(crate) fn new(options: &Options) -> Result<Self, RunError> {
        let connect = |path: &PathBuf| match Connecting::begin(path) {
            Ok(connecting) => Ok((path.clone(), connecting)),
            Err(error) => Err(refused(path, &error.into())),
        };
        Ok(Self(options.via.as_ref().map(connect).transpose()?))
    }
}

impl Lender {
    pub(crate) fn new(wanted: Wanted, options: &Options) -> Result<Self, RunError> {
        let Some((path, connecting)) = wanted.0 else {
            let cache = CacheOptions::new().budget_bytes(options.budget_bytes);
            return Ok(Self::Cache(Cache::new(cache).map_err(RunError::Cache)?));
        };
        match Via::new(&path, connecting) {
            Ok(via) => Ok(Self::Server(Arc::new(via))),
            Err(error) => Err(refused(&path, &error)),
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

fn refused(path: &Path, error: &ClientError) -> RunError {
    let why = match error {
        ClientError::Io(error) if !path.exists() => format!("{error}; is the server running?"),
        ClientError::Io(error) => error.to_string(),
        ClientError::Refused { kind, words } if kind == "refused" => {
            format!("the server refuses this client ({words})")
        }
        other => other.get("message").unwrap_or_else(|| other.to_string()),
    };
    RunError::Via { socket: path.to_owned(), why }
}
