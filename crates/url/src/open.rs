//! From a URL to a pager, and to a memory object.

use memobj::pagers::{File, Pager};
use memobj::{Cache, MemoryObject, Writing};

use crate::error::UrlError;
use crate::options::UrlOptions;
use crate::scheme::{Scheme, path_of_file};

/// Opens objects by their URLs.
pub trait Open {
    /// The object at `url`, which is its name in errors, without a password or query. Blocks for at least one round trip to the server;
    /// how long at most says [`server_timeout`](UrlOptions::server_timeout). An opening that fails is not tried again: see
    /// [`UrlError::may_retry`].
    ///
    /// # Errors
    ///
    /// What the server said, that it did not answer, or that the options ask for what the server does not offer.
    fn open(&self, url: &str, options: UrlOptions) -> Result<MemoryObject, UrlError>;
}

impl Open for Cache {
    fn open(&self, url: &str, options: UrlOptions) -> Result<MemoryObject, UrlError> {
        if let (Some(Scheme::File), Some(path)) = (Scheme::of(url), path_of_file(url)) {
            // With leases, commits and rings, which only files have.
            return Ok(self.open_file(path, options.object)?);
        }
        let pager = pager(url, &options)?;
        Ok(self.object(&shown(url), pager, options.object)?)
    }
}

/// A pager of the object at `url`, for whoever wraps it, or makes the memory object himself. As [`Open::open`] otherwise.
///
/// # Errors
///
/// As [`Open::open`].
pub fn pager(url: &str, options: &UrlOptions) -> Result<Box<dyn Pager>, UrlError> {
    match Scheme::of(url) {
        Some(Scheme::File) => {
            let path =
                path_of_file(url).ok_or_else(|| unknown(url, "files are of this machine: file:///path"))?;
            Ok(Box::new(File::open(path)?))
        }
        Some(Scheme::ObjectStore) => object_store(url, options),
        Some(Scheme::NineP) => ninep(url, options),
        None => Err(unknown(url, "known are s3, gs, az, http, https, 9p, 9p+unix and file")),
    }
}

pub(crate) fn unknown(url: &str, why: &'static str) -> UrlError {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    UrlError::Unknown { scheme: scheme.to_owned(), why }
}

/// `url` for people: without user, password and query. The name of an object in errors and events.
#[must_use]
pub fn shown(url: &str) -> String {
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let query = if query.is_empty() { "" } else { "?..." };
    let Some((scheme, rest)) = before.split_once("://") else { return before.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}{query}")
}

/// Names the object in a disk cache: whatever tells two objects apart is in it, and what changes with each signature is not.
/// Only a digest of it reaches the disk.
#[cfg(feature = "disk-cache")]
fn key(url: &str, environment: impl Fn(&str) -> Option<String>) -> String {
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let is_signature = |part: &&str| part.starts_with("X-Amz-") || part.starts_with("X-Goog-");
    let query: Vec<&str> = query.split('&').filter(|part| !is_signature(part)).collect();
    // One bucket name can be of several stores.
    let endpoints = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let endpoint = endpoints.into_iter().find_map(environment).filter(|_| before.starts_with("s3"));
    format!("{}?{}#{}", shown(before), query.join("&"), endpoint.unwrap_or_default())
}

/// With a tier on the disk, if there is to be one.
pub(crate) fn kept(pager: impl Pager + 'static, url: &str, options: &UrlOptions) -> Box<dyn Pager> {
    #[cfg(feature = "disk-cache")]
    if let Some(cache) = &options.disk_cache {
        return Box::new(cache.pager(pager, &key(url, |name| std::env::var(name).ok())));
    }
    let _ = (url, options);
    Box::new(pager)
}

#[cfg(feature = "object-store")]
fn object_store(url: &str, options: &UrlOptions) -> Result<Box<dyn Pager>, UrlError> {
    let pager = memobj_object_store::ObjectStorePager::open(url, store_options(options));
    Ok(kept(pager.map_err(UrlError::ObjectStore)?, url, options))
}

/// Which conditions the server of the object at `url` honours; `None` of servers that have none: those of 9P, and local files.
/// Blocks for three round trips.
///
/// # Errors
///
/// As [`pager`].
#[cfg(feature = "object-store")]
pub fn conditions(
    url: &str,
    options: &UrlOptions,
) -> Result<Option<memobj_object_store::Conditions>, UrlError> {
    match Scheme::of(url) {
        Some(Scheme::ObjectStore) => {
            let asked = memobj_object_store::conditions(url, store_options(options));
            asked.map(Some).map_err(UrlError::ObjectStore)
        }
        _ => Ok(None),
    }
}

#[cfg(feature = "object-store")]
pub(crate) fn store_options(options: &UrlOptions) -> memobj_object_store::ObjectStoreOptions {
    let mut store = memobj_object_store::ObjectStoreOptions::new().manifest(options.manifest.clone());
    if let Some(bytes) = options.block_bytes {
        store = store.block_bytes(bytes);
    }
    if let Some(timeout) = options.server_timeout {
        store = store.request_timeout(timeout);
    }
    if let Some(depth) = options.depth {
        store = store.depth(depth);
    }
    if options.object.writing != Writing::ReadOnly {
        store = if options.creates { store.creating() } else { store.writable() };
    }
    store
}

#[cfg(not(feature = "object-store"))]
fn object_store(url: &str, _: &UrlOptions) -> Result<Box<dyn Pager>, UrlError> {
    Err(unknown(url, "the feature object-store of memobj-url is off"))
}

#[cfg(feature = "9p")]
fn ninep(url: &str, options: &UrlOptions) -> Result<Box<dyn Pager>, UrlError> {
    let pager = memobj_9p::NinePager::open(url, nine_options(options)).map_err(UrlError::NineP)?;
    Ok(kept(pager, url, options))
}

#[cfg(feature = "9p")]
pub(crate) fn nine_options(options: &UrlOptions) -> memobj_9p::NineOptions {
    let mut nine = memobj_9p::NineOptions::new();
    if let Some(bytes) = options.block_bytes {
        nine = nine.block_bytes(bytes);
    }
    if let Some(timeout) = options.server_timeout {
        nine = nine.silence(timeout).connect_timeout(timeout);
    }
    if let Some(depth) = options.depth {
        nine = nine.depth(depth);
    }
    if options.object.writing != Writing::ReadOnly {
        nine = nine.writable();
    }
    nine
}

#[cfg(not(feature = "9p"))]
fn ninep(url: &str, _: &UrlOptions) -> Result<Box<dyn Pager>, UrlError> {
    Err(unknown(url, "the feature 9p of memobj-url is off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("https://me:secret@host:1/a?X-Amz-Signature=secret"), "https://host:1/a?...");
        assert_eq!(shown("s3://bucket/key"), "s3://bucket/key");
        let error = pager("ftp://me:secret@host/", &UrlOptions::new()).err().unwrap();
        assert_eq!(
            error.to_string(),
            "open ftp://...: known are s3, gs, az, http, https, 9p, 9p+unix and file"
        );
    }

    #[cfg(feature = "disk-cache")]
    #[test]
    fn keys_tell_objects_apart_and_have_no_signatures() {
        let none = |_: &str| None;
        let store = |name: &str| (name == "AWS_ENDPOINT_URL").then(|| "http://minio".to_owned());
        assert_ne!(key("s3://b/k", none), key("s3://b/k", store));
        assert_eq!(key("http://h/k", none), key("http://h/k", store));
        assert_ne!(key("9p://h/f?aname=a", none), key("9p://h/f?aname=b", none));
        let signed =
            |signature: &str| key(&format!("https://me:x@h/k?id=1&X-Amz-Signature={signature}"), none);
        assert_eq!(signed("abc"), signed("def"));
        assert!(!signed("abc").contains("abc") && signed("abc").contains("id=1"));
    }

    #[test]
    fn files_are_opened_by_their_url() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a file");
        std::fs::write(&path, [7; 5000]).unwrap();
        let url = format!("file://{}", path.to_str().unwrap().replace(' ', "%20"));
        let cache = Cache::new(memobj::CacheOptions::new().budget_bytes(1 << 20)).unwrap();
        let object = cache.open(&url, UrlOptions::new()).unwrap();
        let options = memobj::MapOptions::new().delivery(memobj::Delivery::PinOnly);
        assert_eq!(object.map_all(options).unwrap().pin(..).unwrap()[..], [7; 5000]);
        assert!(matches!(pager("file://host/x", &UrlOptions::new()), Err(UrlError::Unknown { .. })));
    }
}
